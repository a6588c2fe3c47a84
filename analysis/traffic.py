"""Draw accuracy and training loss against the bytes that a vertex has sent: what the communication buys.

    python analysis/traffic.py RUN... [-o traffic.png]

Bytes are those that a vertex sends to its neighbours over the edges of its rounds, wherever they are hosted, summed from
the start, mean over the vertices; an average over all vertices counts as a ring would send it. A line is the mean over
the vertices, its band the lowest to the highest. The axis is logarithmic; epochs before the first byte have no place on it.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # from a checkout, installed or not

from analysis import pictures
from analysis.curves import along, label
from analysis.curves import rows as epoch_rows
from analysis.runs import opened
from mpiconsensus.errors import UserError

FIELDS = ["run", "graph", "vertices", "epoch", "step", "bytes_sent_vertex"] + [
    f"{name}_{statistic}" for name in ("accuracy", "train_loss") for statistic in ("mean", "sd", "min", "max")
]  # fmt: skip


@pictures.styled
def draw(tables):
    """Return the figure of [(label, rows)]: two panels."""
    figure, axes = pictures.canvas(2, 5.6, 2.6 + 0.16 * len(tables))
    name, factor, words = along(tables, "bytes")
    for (run, table), style in zip(tables, pictures.styles(len(tables)), strict=True):
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


@pictures.script(__doc__)
@pictures.RUNS
@pictures.output("traffic.png")
def main(runs, out):
    pictures.check(out)
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
