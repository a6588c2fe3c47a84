"""Commands that read a run directory: status, watch, report, trace, export, evaluate."""

import click

from mpiconsensus.tabletext import FORMATS


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option("--epochs", type=click.IntRange(0), help="How many of the last epochs to print; 0: all. Default: 10, in csv and json all.")
@click.option("--format", "form", default="table", show_default=True, type=click.Choice(FORMATS), help="csv and json are numbers in full precision.")
def report(runs, epochs, form):
    """Print the table of a run, from its log alone; of several runs, a row each."""
    from mpiconsensus import report as tables
    from mpiconsensus.runread import Run

    if epochs is None:
        epochs = 0 if form in ("csv", "json") else 10
    runs = [Run(path) for path in runs]
    if form == "table":
        tables.show(runs, last=epochs)
    else:
        click.echo(tables.text(runs, form, epochs))


@click.command()
@click.argument("run")
@click.option("-o", "--out", metavar="FILE", help="Where to; default: RUN's name and -trace.json, in the current directory.")
@click.option("--steps", metavar="FIRST:LAST", help="The steps drawn, from 0; default: all, or as many of the last as a browser takes.")
def trace(run, out, steps):
    """Write the steps of RUN as a timeline that ui.perfetto.dev and chrome://tracing open."""
    from pathlib import Path

    from mpiconsensus import trace as timeline

    out = out or f"{Path(run).resolve().name}-trace.json"
    click.echo(timeline.write(run, out, steps))


@click.command()
@click.argument("runs", nargs=-1, metavar="[RUN|DIR]...")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(runs, as_json):
    """Tell how runs stand, from their files alone: state, step, accuracy, time left. DIR: all runs in it; default: runs."""
    from mpiconsensus import status as standing

    found = [standing.figures(path) for path in standing.find(runs or ["runs"])]
    click.echo(standing.as_json(found) if as_json else "\n".join(standing.table(found)))


@click.command()
@click.argument("run", metavar="RUN|DIR")
@click.option("--once", is_flag=True, help="Print one frame and end, as where the output is no terminal.")
def watch(run, once):
    """Show how RUN goes, anew every second, until it ends: progress, accuracies, distance, the slowest rank, time left.

    From its files alone, which are left as they are. DIR: a line for each run in it. Ctrl-C ends the view, not the run.
    """
    try:
        from mpiconsensus import watch as live

        live.watch(run, once)
    except KeyboardInterrupt:
        click.echo()


WHICH = click.option("--which", default="last", show_default=True, type=click.Choice(["last", "best"]), help="Of the last or the best epoch.")
VERTEX = click.option("--vertex", default="mean", show_default=True, help="mean, best, or a vertex's number.")


@click.command()
@click.argument("run")
@VERTEX
@WHICH
@click.option("--out", metavar="FILE", help="Where to; default: RUN's name and the vertex, in the current directory.")
def export(run, vertex, which, out):
    """Copy the weights of one model of RUN to a safetensors file."""
    from pathlib import Path

    from mpiconsensus import modelfiles

    out = out or f"{Path(run).resolve().name}-{vertex}.safetensors"
    click.echo(modelfiles.export(run, vertex, out, which))


@click.command()
@click.argument("run")
@click.option("--data", "shards", metavar="SHARDS", help="Directory of shards whose test set is used; default: the run's own data.")
@VERTEX
@WHICH
@click.option("--batch-size", default=256, show_default=True, type=click.IntRange(1), help="Samples a forward pass.")
def evaluate(run, shards, vertex, which, batch_size):
    """Evaluate a model of RUN on the test set of its data, or of other shards of the same kind."""
    from mpiconsensus.inference import evaluate as compute

    accuracy, loss, samples = compute(run, shards, vertex, which, batch_size)
    click.echo(f"vertex {vertex} ({which}): accuracy {100 * accuracy:.2f} %, loss {loss:.4f} on {samples} test samples")
