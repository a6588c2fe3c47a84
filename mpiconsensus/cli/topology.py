"""mpiconsensus topology: graphs and weights looked at before a run."""

import json

import click

from mpiconsensus.cli import bench
from mpiconsensus.errors import UserError, did_you_mean


class Views(click.Group):
    """The views of a graph; an unknown one is told with those that there are."""

    def get_command(self, context, name):
        if name not in self.commands:
            raise UserError(f"no command 'topology {name}'; commands are {', '.join(self.commands)}.{did_you_mean(name, self.commands)}")
        return self.commands[name]


@click.group(cls=Views)
def topology():
    """Graphs and mixing weights: how fast they agree and what they send, before a run."""


def _parameters(context, option, text):
    return None if text is None else bench.counts(context, option, [text])[0]


SPEC = click.argument("spec")
SPECS = click.argument("specs", nargs=-1, required=True, metavar="SPEC...")
WEIGHTS = click.option("--weights", default="auto", show_default=True, metavar="METHOD", help="Weights as topology.weights takes them.")
SEED = click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Of graphs that are drawn, as topology.seed.")
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
PARAMETERS = click.option("--parameters", callback=_parameters, metavar="N", help="Length of a row in float32 numbers, as in 270k, for the bytes of a round.")
MODEL = click.option("--model", metavar="NAME", help="The same from a model as model.name takes it; loads torch.")
NODES = click.option("--nodes", type=click.IntRange(1), metavar="N", help="Put the vertices on so many nodes: the edges and bytes that cross.")
PLACEMENT = click.option("--placement", default="block", show_default=True, metavar="NAME", help="How they are put there, as placement.map.")
FORCE = click.option("--force", is_flag=True, help="Write over files that are there.")


@topology.command("list")
@JSON
def list_(as_json):
    """List the graphs with their parameters, then the weights."""
    from mpiconsensus.topology import FORMS
    from mpiconsensus.weights import METHODS

    methods = {name: method.meaning for name, method in METHODS.items()}
    if as_json:
        forms = {name: form._asdict() | {"high": _finite(form.high)} for name, form in FORMS.items()}
        click.echo(json.dumps({"graphs": forms, "weights": methods}, indent=1))
        return
    click.echo("Graphs, as topology.graph takes them, on the vertices 0 to n - 1.\n")
    for name, form in FORMS.items():
        kinds = [kind for kind in ("directed", "changing", "seeded") if getattr(form, kind)]
        click.echo(f"  {f'{name}:{form.parameters}':34} {form.example}" + f"   [{', '.join(kinds)}]" * bool(kinds))
        click.echo(click.wrap_text(form.meaning, 110, " " * 6, " " * 6))
    click.echo("\nWeights, as topology.weights takes them.\n")
    for name, meaning in methods.items():
        click.echo(f"  {name}\n" + click.wrap_text(meaning, 110, " " * 6, " " * 6))


def _finite(number):
    return None if number == float("inf") else number


def _net(spec, seed):
    """Return the Net of a spec, which must have its size."""
    from mpiconsensus import topology as graphs

    name, colon, _ = spec.strip().lower().partition(":")
    form = graphs.FORMS.get(name.strip())
    if name == "auto" and not colon:
        raise UserError("graph 'auto' takes its size from the ranks of a run; give a graph with its size, for example ring:8.")
    if form and not colon:
        raise UserError(f"graph {spec!r} has no size; give it, for example {form.example} ({form.meaning}).")
    return graphs.net(spec, 1, seed)


def _row(parameters, model):
    """Return (length of a row or None, what it is the length of)."""
    if parameters and model:
        raise UserError(f"--parameters {parameters} and --model {model} are both given; give one.")
    if not model:
        return parameters, ""
    from mpiconsensus.survey.figures import parameters_of

    count, samples = parameters_of(model)
    return count, f"{model} for {samples}"


def _surveys(specs, methods, seed, parameters, nodes=None, placement="block"):
    from mpiconsensus.survey.figures import on_nodes, survey
    from mpiconsensus.weights import resolve

    found = []
    for spec in specs:
        net = _net(spec, seed)
        on = on_nodes(net, nodes, placement) if nodes else None
        extra = {"placement": placement} if nodes else {}
        found += [survey(net, resolve(net, method), parameters, on) | extra for method in methods]
    return found


@topology.command()
@SPEC
@WEIGHTS
@SEED
@PARAMETERS
@MODEL
@NODES
@PLACEMENT
@JSON
def show(spec, weights, seed, parameters, model, nodes, placement, as_json):
    """Show the figures of the graph SPEC with weights: degrees, distances, spectrum, bytes of a round."""
    from mpiconsensus.survey import figures as surveyed
    from mpiconsensus.survey import tell

    parameters, what = _row(parameters, model)
    (figures,) = _surveys([spec], [weights], seed, parameters, nodes, placement)
    if as_json:
        click.echo(json.dumps(tell.plain(figures), indent=1))
        return
    for name, value in tell.lines(figures, what):
        click.echo(f"{name:23} {value}")
    click.echo("\n" + "\n".join(surveyed.words(figures)))


@topology.command()
@SPECS
@click.option("--weights", default="auto", show_default=True, metavar="METHOD,...", help="Weights, several separated by commas: a row each.")
@SEED
@PARAMETERS
@MODEL
@JSON
@click.option("--csv", "csv_file", metavar="FILE", help="Write all figures here too, a row each.")
@FORCE
def compare(specs, weights, seed, parameters, model, as_json, csv_file, force):
    """Put the figures of several graphs side by side, a row each, in the order given."""
    from mpiconsensus import outputs
    from mpiconsensus.survey import tell

    if csv_file:
        outputs.check("--csv", csv_file, force)
    parameters, _ = _row(parameters, model)
    methods = [word.strip() for word in weights.split(",")]
    found = _surveys(specs, methods, seed, parameters)
    if as_json:
        click.echo(json.dumps([tell.plain(figures) for figures in found], indent=1))
    else:
        for line in tell.side_by_side(found):
            click.echo(line)
    if csv_file:
        outputs.put(csv_file, lambda name: tell.write_csv(name, found))
        click.echo(f"figures    {csv_file}", err=as_json)


@topology.command()
@SPEC
@click.option("-o", "--out", "picture", metavar="FILE", help="Where to: .png, .pdf or .svg. Default: the name of the graph, .png, here.")
@WEIGHTS
@SEED
@FORCE
def plot(spec, picture, weights, seed, force):
    """Draw the graph SPEC, its edges coloured by weight, beside its mixing matrix; needs matplotlib."""
    from mpiconsensus import outputs
    from mpiconsensus.survey import drawing, tell
    from mpiconsensus.weights import resolve

    picture = picture or f"{tell.file_name(spec)}.png"
    outputs.check("--out", picture, force, outputs.PICTURES)
    net = _net(spec, seed)
    drawing.save(drawing.graph_and_weights(net, resolve(net, weights)), picture)
    click.echo(f"picture    {picture}")


@topology.command()
@SPECS
@click.option("--rounds", default=100, show_default=True, type=click.IntRange(1), help="Rounds of averaging.")
@WEIGHTS
@SEED
@click.option("--dimension", default=1, show_default=True, type=click.IntRange(1), help="Numbers a vertex.")
@click.option("-o", "--out", "prefix", metavar="PREFIX", help="Write PREFIX.h5 and the picture PREFIX.png; needs matplotlib.")
@click.option("--format", "suffix", default="png", show_default=True, type=click.Choice(["png", "pdf", "svg"]), help="Of the picture.")
@FORCE
def simulate(specs, rounds, weights, seed, dimension, prefix, suffix, force):
    """Average random values over each graph: how far they are from agreeing after each round, beside |lambda_2|^t."""
    from mpiconsensus import outputs
    from mpiconsensus.survey import simulate as consensus
    from mpiconsensus.survey import tell
    from mpiconsensus.weights import resolve

    if prefix:
        outputs.check("--out", f"{prefix}.h5", force)
        outputs.check("--out", f"{prefix}.{suffix}", force, outputs.PICTURES)
    nets = [_net(spec, seed) for spec in specs]
    curves = [consensus.simulate(net, resolve(net, weights), rounds, seed, dimension) for net in nets]
    each = f"{dimension} number{'s' * (dimension > 1)} a vertex"
    used = " and ".join(dict.fromkeys(curve.weights for curve in curves))
    click.echo(f"disagreement ||X_t - x_bar|| / ||X_0 - x_bar||, {used} weights, {each}, seed {seed}\n")
    for line in tell.aligned(*consensus.table(curves)):
        click.echo(line)
    if prefix:
        from mpiconsensus.survey import drawing

        consensus.save(f"{prefix}.h5", curves)
        drawing.save(drawing.curves(curves), f"{prefix}.{suffix}")
        click.echo(f"\ncurves     {prefix}.h5\npicture    {prefix}.{suffix}")
