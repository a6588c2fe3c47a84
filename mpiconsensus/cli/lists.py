"""Commands that list what there is: keys, algorithms, models, this machine."""

import math

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
@click.argument("specs", nargs=-1, metavar="[SPEC]...")
@click.option("--size", type=click.IntRange(1, 10**10), default=1_000_000, show_default=True, help="Elements of the vector.")
def compressors(specs, size):
    """List the compressors, or those given, with class, constant and bits for a vector of --size elements.

    Unbiased ones have zeta, E|C(x)|^2 <= zeta |x|^2, contractive ones alpha, E|C(x) - x|^2 <= (1 - alpha) |x|^2. Bits are by
    formula, a float having 32; the share is of the 32 bits an element that no compression sends.
    """
    rows = compressor_rows(specs, size)
    click.echo(f"{'compressor':24} {'class':12} {'constant':14} {'bits':>14} {'share':>8}  C(x)")
    for row in rows:
        click.echo("{:24} {:12} {:14} {:>14} {:>8}  {}".format(*row))


def compressor_rows(specs, size):
    """Return (spec, class, constant, bits, share of 32 bits an element, formula) of every compressor, in words."""
    from mpiconsensus import compress

    rows = []
    for spec in specs or compress.examples():
        c = compress.make(spec, size, clip=not specs)
        kind = "no bound" if c.constant is None else "unbiased" if c.unbiased else "contractive"
        constant = "" if c.constant is None else f"{'zeta' if c.unbiased else 'alpha'} = {c.constant:.5g}"
        bits = math.ceil(c.bits)
        rows.append((spec, kind, constant, f"{bits:,}", f"{bits / (c.b * size):.3%}", c.told))
    return rows


@click.command()
@click.option("--mpi", is_flag=True, help="Under a launcher: try one-sided operations, atomics and locks between the ranks, and recommend a transport.")
@click.option("--seconds", type=click.IntRange(0, 86400), default=0, help="With --mpi: put every mailbox that works here under stress for so long in all; 60 is a thorough test.")
def doctor(mpi, seconds):
    """Describe this machine in a block to paste into a report, and warn of what will hurt."""
    from mpiconsensus import doctor as examination

    if seconds and not mpi:
        raise UserError(f"--seconds {seconds:g} is how long doctor --mpi tries the transports; give --mpi too, under a launcher.")
    if mpi:
        raise SystemExit(not examination.run_mpi(click.echo, seconds))
    examination.run(click.echo)
