"""Draw accuracy and training loss against the bytes that a vertex has sent: what the communication buys.

    python analysis/traffic.py RUN... [--x bytes|bits] [--relative] [-o traffic.png]

Bytes are those that a vertex sends to its neighbours over the edges of its rounds, wherever they are hosted, summed from
the start, mean over the vertices; an average over all vertices counts as a ring would send it. A line is the mean over
the vertices, its band the lowest to the highest. The axis is logarithmic; epochs before the first byte have no place on it.

--x bits counts the messages of compressed algorithms by the formulas of the literature, each once whatever its receivers, and
draws accuracy and the squared norm of the mean gradient (of runs with log.gradient_norm) against them. A table beside it, and
in NAME-reached.csv, says after how many steps and bits that norm was below 1e-2, 1e-4 and 1e-6; the first step's message,
which some methods send as it is, does not count. --relative divides the squared norm by that of the first step.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # from a checkout, installed or not

import click
import numpy as np

from analysis import bits, pictures
from analysis.curves import along, label
from analysis.curves import rows as epoch_rows
from analysis.runs import opened
from mpiconsensus import tabletext
from mpiconsensus.errors import UserError

FIELDS = ["run", "graph", "vertices", "epoch", "step", "bytes_sent_vertex"] + [
    f"{name}_{statistic}" for name in ("accuracy", "train_loss") for statistic in ("mean", "sd", "min", "max")
]  # fmt: skip


@pictures.styled
def draw(tables):
    """Return the figure of [(label, rows)]: two panels."""
    figure, axes = pictures.canvas(2, 5.6, pictures.height(2.6, len(tables)))
    name, factor, words = along(tables, "bytes")
    for (run, table), style in zip(tables, pictures.styles(len(tables), [table[0]["graph"] for _, table in tables]), strict=True):
        sent = [row for row in table if row[name] > 0]
        places = pictures.column(sent, name) / factor
        pictures.band(axes[0], places, sent, "accuracy", style, run, 100)
        pictures.band(axes[1], places, sent, "train_loss", style)
    axes[0].set_ylabel("accuracy (%)")
    axes[1].set_ylabel("training loss (nats)")
    pictures.decades(axes[1])
    for axis in axes:
        axis.set_xlabel(words)
        pictures.decades(axis, "x")
    pictures.legend(figure, len(tables))
    return figure


@pictures.styled
def draw_bits(runs):
    """Return the figure of [(name, figures, epochs)]: accuracy where it was evaluated on the way, the gradient's norm where it was logged."""
    # One point a run, that of its end, is no line.
    evaluated = any(sum(np.isfinite(row["accuracy_mean"]) and row["bits"] > 0 for row in table) > 1 for _, _, table in runs)
    followed = any(figures["gradient"] is not None for _, figures, _ in runs)
    if not (evaluated or followed):
        raise UserError("no run evaluated a model on its way or logged its gradient; train with evaluation.every or log.gradient_norm.")
    figure, axes = pictures.canvas(evaluated + followed, 5.6 if evaluated and followed else 4.2, pictures.height(2.9, len(runs)))
    for (name, figures, table), style in zip(runs, pictures.styles(len(runs), [table[0]["graph"] for _, _, table in runs]), strict=True):
        if evaluated:
            seen = [row for row in table if row["bits"] > 0 and np.isfinite(row["accuracy_mean"])]
            pictures.band(axes[0], pictures.column(seen, "bits"), seen, "accuracy", style, name, 100)
        if followed and figures["gradient"] is not None:
            bits.draw_gradient(axes[-1], name, figures, style, None if evaluated else name)
    if evaluated:
        axes[0].set_ylabel("accuracy (%)")
    if followed:
        axes[-1].set_ylabel("squared norm of the mean gradient")
        pictures.decades(axes[-1])
    for axis in axes:
        axis.set_xlabel("sent by a vertex (bits, by formula)")
        pictures.decades(axis, "x")
    pictures.legend(figure, len(runs))
    return figure


def against_bits(runs, out, relative=False):
    """Draw, write and print what --x bits asks for."""
    found = []
    for name, run in opened(runs):
        figures = bits.steps(run, name, relative)
        table = epoch_rows(run, name)
        for row in table:
            row["bits"] = float(figures["bits"][row["step"] - 1])
        found.append((name, figures, table))
    pairs = [(name, figures) for name, figures, _ in found]
    pictures.save(draw_bits(found), out, bits.records(pairs))
    head, rows = bits.table(pairs)
    out.with_name(f"{out.stem}-reached.csv").write_text(tabletext.records([dict(zip(head, row, strict=True)) for row in rows], "csv"))
    for line in tabletext.plain(head, rows):
        click.echo(line)
    pictures.told(out, [name for name, _ in pairs])


@pictures.script(__doc__)
@pictures.RUNS
@click.option("--x", default="bytes", show_default=True, type=click.Choice(["bytes", "bits"]), help="What to draw against.")
@click.option("--relative", is_flag=True, help="With --x bits: gradients relative to the first step's.")
@pictures.output("traffic.png")
def main(runs, x, relative, out):
    pictures.check(out)
    if relative and x != "bits":
        raise UserError("--relative is about gradients, which are drawn with --x bits.")
    if x == "bits":
        against_bits(runs, out, relative)
        return
    names, tables = [], []
    for name, run in opened(runs):
        table = epoch_rows(run, name)
        if not any(row["bytes_sent_vertex"] for row in table):
            raise UserError(f"run {str(run.path)!r} has sent nothing, so that it has no place on the axis of bytes; leave it out.")
        names.append(name)
        tables.append((label(run, name, table), [{field: row[field] for field in FIELDS} for row in table]))
    pictures.save(draw(tables), out, [row for _, table in tables for row in table])
    pictures.told(out, names)


if __name__ == "__main__":
    main()
