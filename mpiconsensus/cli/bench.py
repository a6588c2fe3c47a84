"""mpiconsensus bench: measure this machine."""

import re

import click

from mpiconsensus import config
from mpiconsensus.errors import UserError, did_you_mean, require_choice

SIZES = ("270k", "1.5M", "11M")
TRANSPORTS = config.EXCHANGES
DATASETS = config.find("data.dataset").choices
MOST = 10**15  # parameters: more than any memory holds, and small enough to count with
REPEATS = click.option("--repeats", default=9, show_default=True, type=click.IntRange(1), help="Passes over everything; medians are of these.")
JSON = click.option("--json", "json_file", metavar="FILE", help="Write everything here too; a file that is there is not written over.")
PLOT = click.option("--plot", "plot_file", metavar="FILE", help="Draw it: .png, .pdf or .svg; needs matplotlib.")
BATCH = click.option("--batch", default=32, show_default=True, type=click.IntRange(1), help="Samples of a step.")
GRAPH = click.option("--graph", default="auto", show_default=True, help="A graph as topology.graph takes it, with its size or without.")


def vertices(alone):
    """Return the option --vertices of a command that takes `alone` vertices in one process."""
    text = f"Size of a graph that is given without one; default: one a rank, in one process {alone}."
    return click.option("--vertices", type=click.IntRange(1), metavar="N", help=text)


class Kinds(click.Group):
    """The kinds of measurement; an unknown one is told with those that there are."""

    def get_command(self, context, name):
        if name not in self.commands:
            raise UserError(f"no command 'bench {name}'; commands are {', '.join(self.commands)}.{did_you_mean(name, self.commands)}")
        return self.commands[name]


@click.group(cls=Kinds)
def bench():
    """Measure this machine: a table, and JSON and a picture where they are asked for."""


def counts(context, option, texts):
    """Return the numbers that 270k, 1.5M or 1000 stand for."""
    counts = []
    for text in texts:
        found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([kMG]?)", text)
        count = float(found[1]) * {"": 1, "k": 1e3, "M": 1e6, "G": 1e9}[found[2]] if found else 0
        if not 1 <= count <= MOST or count != int(count):
            told = text if len(text) <= 40 else f"{text[:40]}..."
            raise UserError(f"--parameters {told!r} is not allowed; give a whole number of at least 1 and at most 1000000G, as in 270000, 270k or 1.5M.")
        counts.append(int(count))
    return list(dict.fromkeys(counts))


def _transports(context, option, names):
    for name in names:
        require_choice("--transport", name, TRANSPORTS)
    return list(dict.fromkeys(names))


def _start(json_file, plot_file):
    """Return (World, facts of the machine) with torch's threads set, once the files are known to be free; collective."""
    from mpiconsensus.runtime import World

    world = World.start()
    from mpiconsensus.bench import output, setting

    output.check_files(world, json_file, plot_file)
    threads, _ = world.agree(world.threads)
    import torch

    torch.set_num_threads(threads)
    return world, setting.facts(world, threads)


def _speaker(world):
    return lambda text: click.echo(text, err=True) if world.rank == 0 else None


def _finish(world, result, lines, files, draw):
    """Print the table and write the files, on rank 0."""
    from mpiconsensus.bench import output

    if world.rank == 0:
        for line in lines(result):
            click.echo(line)
        output.write(result, *files, draw)


def _result(kind, machine, settings, **found):
    from mpiconsensus.bench import output, setting

    return output.result(kind, machine, settings, **found, warnings=list(setting.warnings(machine)))


@bench.command()
@GRAPH
@vertices(4)
@click.option("--parameters", multiple=True, default=SIZES, callback=counts, metavar="N", help=f"Size of the model, as in 270k; may be repeated. Default: {', '.join(SIZES)}.")
@click.option("--transport", "names", multiple=True, callback=_transports, metavar="NAME", help=f"{', '.join(TRANSPORTS)}; may be repeated. Default: all that work here.")
@click.option("--dtype", default="float32", show_default=True, type=click.Choice(["float32", "float64"]), help="Type of the parameters.")
@REPEATS
@JSON
@PLOT
def round(graph, vertices, parameters, names, dtype, repeats, json_file, plot_file):
    """Time rounds of averaging over each transport, against a copy of the same bytes and MPI's Neighbor_allgather."""
    world, machine = _start(json_file, plot_file)
    from mpiconsensus.bench import picture, setting, tables
    from mpiconsensus.bench import round as rounds

    wiring, placement = setting.graph_of(world, graph, vertices, alone=4)
    network, kind = rounds.Network.of(world, wiring, placement), rounds.DTYPES[dtype]
    rounds.check(network, parameters, names, kind)
    figures, left_out, switch = rounds.measure(network, parameters, names, kind, repeats, machine, _speaker(world))
    settings = {
        "what": f"rounds on {wiring.spec}, {wiring.n} vertices, {dtype}", "graph": wiring.spec, "vertices": wiring.n,
        "edges": len(wiring.edges), "weights": wiring.weights, "dtype": dtype, "parameters": parameters, "transports": names,
        "repeats": repeats,
    }  # fmt: skip
    advice = rounds.recommend(figures, rounds.choice_of_auto(network, figures, kind))
    found = {"figures": figures, "left_out": left_out, "switch": switch, "recommendation": advice}
    _finish(world, _result("round", machine, settings, **found), tables.rounds, (json_file, plot_file), picture.rounds)


@bench.command()
@click.option("--shards", metavar="DIR", help="Directory of HDF5 shards; a rank takes the first that it would host.")
@click.option("--dataset", metavar="NAME", help=f"Embedded data, {' or '.join(DATASETS)}, in place of shards. Default: {DATASETS[0]}.")
@click.option("--model", default="auto", show_default=True, help="The model whose step consumes the samples.")
@BATCH
@REPEATS
@JSON
@PLOT
def loader(shards, dataset, model, batch, repeats, json_file, plot_file):
    """Time batches drawn and augmented, against what a model step consumes and plain indexing of the same bytes."""
    if shards and dataset:
        raise UserError(f"--shards {shards} and --dataset {dataset} are both given; give one.")
    require_choice("--dataset", dataset or DATASETS[0], DATASETS)
    world, machine = _start(json_file, plot_file)
    from mpiconsensus.bench import loader as loading
    from mpiconsensus.bench import picture, tables

    source = loading.open_data(world, shards, dataset or DATASETS[0])
    figures = loading.measure(world, source, model, batch, repeats, _speaker(world))
    settings = {
        "what": f"{source.name} for {figures['model']}, batches of {figures['batch']}, augmentation {source.augment}", "shards": shards,
        "dataset": source.name, "model": figures["model"], "batch": batch, "augment": source.augment, "repeats": repeats,
    }  # fmt: skip
    result = _result("loader", machine, settings, figures=figures)
    _finish(world, result, tables.loader, (json_file, plot_file), picture.points)


@bench.command()
@click.option("--model", default="resnet20", show_default=True, help="A model as model.name takes it.")
@BATCH
@GRAPH
@vertices(1)
@click.option("--transport", default="auto", show_default=True, type=click.Choice(["auto", *TRANSPORTS]), help="Of the rounds, where there are several vertices.")
@REPEATS
@JSON
@PLOT
def step(model, batch, graph, vertices, transport, repeats, json_file, plot_file):
    """Time training steps against a plain PyTorch loop, and with averaging against without it."""
    world, machine = _start(json_file, plot_file)
    from mpiconsensus.bench import picture, setting, tables
    from mpiconsensus.bench import step as steps

    wiring, placement = setting.graph_of(world, graph, vertices, alone=1)
    figures = steps.measure(world, wiring.spec, placement, model, batch, transport, repeats, _speaker(world))
    over = f" on {wiring.spec}, transport {figures['transport']}" if wiring.n > 1 else ""
    settings = {
        "what": f"steps of {model}, batch {batch}, {wiring.n} vert{'ices' if wiring.n > 1 else 'ex'}{over}", "model": model, "batch": batch,
        "graph": wiring.spec, "vertices": wiring.n, "transport": figures["transport"], "repeats": repeats,
    }  # fmt: skip
    _finish(world, _result("step", machine, settings, figures=figures), tables.step, (json_file, plot_file), picture.points)
