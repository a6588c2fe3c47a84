"""Draw accuracy, loss and consensus distance against the epoch, the time or the bytes sent, from the logs of runs.

    python analysis/curves.py RUN... [--x epoch|time|bytes] [-o curves.png]

A line is the mean over the vertices, its band the lowest to the highest vertex. The numbers drawn go to a CSV file of
the same name. Runs are told apart by dashes and markers as well as by colour, so that a print in grey is readable.
"""

import sys
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # from a checkout, installed or not

from analysis import pictures
from analysis.runs import epochs_of, opened, spread

# --x -> (column, axis, units)
AXES = {"epoch": ("epoch", "epoch", [(1, "")]), "time": ("seconds", "time", pictures.SECONDS),
        "bytes": ("bytes_sent_vertex", "sent by a vertex", pictures.BYTES)}  # fmt: skip


def rows(run, name):
    """Return one dict an epoch; accuracies are fractions, NaN where not evaluated; sd with ddof = 1.

    bytes_sent_vertex: sent by a vertex since the start, mean over the vertices.
    """
    epochs_of(run)
    figures = {"epoch": run.epochs("epoch"), "step": run.epochs("step"), "seconds": run.network("seconds")}
    for column in ("accuracy", "train_loss"):
        figures |= spread(run.epochs(column), column)
    figures["mean_model_accuracy"] = run.network("mean_accuracy")
    figures["consensus_distance"] = run.network("consensus_distance")
    figures["bytes_sent_vertex"] = run.epochs("bytes_sent").mean(axis=1).cumsum()
    own = {"run": name, "graph": run.graph["spec"], "vertices": run.graph["n"]}
    return [own | {key: values[e].item() for key, values in figures.items()} for e in range(len(figures["epoch"]))]


def along(tables, x):
    """Return (the name of the x column, its factor, the axis's label) for [(label, rows)]."""
    name, label, units = AXES[x]
    factor, word = pictures.unit(max(row[name] for _, table in tables for row in table), units)
    return name, factor, f"{label} ({word})" if word else label


@pictures.styled
def draw(tables, x="epoch"):
    """Return the figure of [(label, rows)]: three panels."""
    figure, axes = pictures.canvas(3, pictures.DOUBLE, pictures.height(2.7, len(tables)))
    name, factor, label = along(tables, x)
    for (run, table), style in zip(tables, pictures.styles(len(tables), [table[0]["graph"] for _, table in tables]), strict=True):
        places = pictures.column(table, name) / factor
        pictures.band(axes[0], places, table, "accuracy", style, run, 100)
        pictures.band(axes[1], places, table, "train_loss", style)
        pictures.line(axes[2], places, pictures.column(table, "consensus_distance"), style)
    axes[0].set_ylabel("accuracy (%)")
    axes[1].set_ylabel("training loss (nats)")
    axes[2].set_ylabel("consensus distance (2-norm)")
    if any(row["consensus_distance"] > 0 for _, table in tables for row in table):
        pictures.decades(axes[2])
    for axis in axes:
        axis.set_xlabel(label)
        if x == "epoch":
            pictures.whole_numbers(axis)
    pictures.legend(figure, len(tables))
    return figure


def label(run, name, table):
    """Return the legend's text of a run."""
    # no place on a logarithmic axis
    together = ["consensus distance 0"] if all(row["consensus_distance"] == 0 for row in table) else []
    return pictures.run_label(run, name, *together)


@pictures.script(__doc__)
@pictures.RUNS
@click.option("--x", default="epoch", show_default=True, type=click.Choice(list(AXES)), help="What to draw against.")
@pictures.output("curves.png")
def main(runs, x, out):
    pictures.check(out)
    names, tables = [], []
    for name, run in opened(runs):
        table = rows(run, name)
        names.append(name)
        tables.append((label(run, name, table), table))
    pictures.save(draw(tables, x), out, [row for _, table in tables for row in table])
    pictures.told(out, names)


if __name__ == "__main__":
    main()
