"""Commands that list what there is: keys, algorithms, models, this machine."""

import click

from mpiconsensus import config as keys
from mpiconsensus.errors import UserError, did_you_mean


@click.command()
@click.argument("name", required=False)
def config(name):
    """List every key of a job; NAME (a table or a key) lists a part."""
    chosen = [k for k in keys.KEYS if name in (None, k.name, k.name.split(".")[0])]
    if not chosen:
        keys.find(name)
        raise UserError(f"no key or table {name!r}.{did_you_mean(name, keys.TABLES)}")
    table = None
    for key in chosen:
        if key.name.split(".")[0] != table:
            table = key.name.split(".")[0]
            click.echo(f"[{table}]")
        allowed = f" ({', '.join(key.choices)})" if key.choices else ""
        click.echo(f"  {key.name.split('.')[1]} = {keys.toml_value(key.default)}   {_kind(key)}{allowed}")
        click.echo(f"      {key.help}")


def _kind(key):
    """Return what the key takes, in words."""
    if key.kind in ("ints", "floats"):
        numbers = KINDS[key.kind[:-1]] + "s"
        return f"list of {numbers}" if isinstance(key.default, list) else f"{KINDS[key.kind[:-1]]}, or a list of {numbers}, one a vertex"
    return KINDS[key.kind]


KINDS = {
    "int": "whole number",
    "bound": "whole number or inf",
    "float": "number",
    "bool": "true or false",
    "str": "text",
}


@click.command()
def algorithms():
    """List the algorithms, with formula and reference."""
    from mpiconsensus.algorithms import REGISTRY

    for name, cls in REGISTRY.items():
        click.echo(f"{name}\n    {cls.formula}\n    orders: {', '.join(cls.orders)}\n    {cls.reference}")


@click.command()
def models():
    """List the models: built in, and torchvision's."""
    from mpiconsensus import models as registry

    for name, description in registry.names():
        click.echo(f"{name:15} {description}")
    click.echo("package:builder  your own: builder(shape=(C, H, W), classes=K) returns the module")
    click.echo("torchvision:     " + " ".join(registry.torchvision_names()))


@click.command()
def doctor():
    """Describe this machine in a block to paste into a report, and warn of what will hurt."""
    from mpiconsensus import doctor as examination

    examination.run(click.echo)
