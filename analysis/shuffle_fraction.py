"""Draw the accuracy at the end against the exchange fraction Q, over runs that shuffle, with the bytes sent and stored.

    python analysis/shuffle_fraction.py RUN... [-o shuffle_fraction.png]

A panel a partition, a line for each number of vertices and kind of normalisation: mean over vertices and seeds, bars plus
and minus the standard deviation over the seeds. Q is 0 for local shuffling; global has a place of its own behind Q = 1.
The last panel has the bytes of samples that a vertex sends in the run (mean over the vertices) and, thin, the most that one
stores. Other keys must agree. A directory that holds runs stands for them.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # from a checkout, installed or not

from analysis import pictures
from analysis.runs import jobs, over_seeds, refuse_other_keys, refuse_twice
from mpiconsensus.errors import UserError

KEYS = (
    "data.shuffle",
    "data.exchange_fraction",
    "data.mix_owners",
    "data.partition",
    "data.shards",
    "topology.kind",
    "topology.vertices",
    "model.norm",
)


def fraction_of(final):
    """Return Q of a run: a number, or "global"."""
    way = final.config["data.shuffle"]
    return {"local": 0.0, "global": "global"}.get(way, final.config["data.exchange_fraction"])


def place(fraction):
    """Return the key by which fractions are ordered."""
    return (1, 0.0) if fraction == "global" else (0, fraction)


def rows(runs):
    """Return one dict a job, in ascending order of partition, vertices, normalisation and Q; accuracies in percent."""
    refuse_other_keys(runs, KEYS, "the exchange fraction")
    if len({final.config["data.shuffle"] for final in runs} & {"partial", "neighbors"}) > 1:
        raise UserError("these runs shuffle by data.shuffle = partial and by neighbors; give runs of one of them.")
    made = []
    for group in jobs(runs):
        first = group[0]
        norm, partition = first.config["model.norm"], first.config["data.partition"]
        row = {"partition": partition, "vertices": first.n, "norm": norm, "fraction": fraction_of(first)} | over_seeds(group)
        for name, column in (("sample_bytes_sent_vertex", "sample_bytes_sent"), ("parameter_bytes_sent_vertex", "bytes_sent")):
            row[name] = sum(final.figures[column] for final in group) / len(group) / first.n
        if "samples_stored" not in first.facts:
            raise UserError(f"run {first.name} is of a version that does not tell how many samples are stored; leave it out.")
        row["sample_bytes_stored_vertex"] = first.facts["samples_stored"] * first.facts["sample_bytes"]
        row["line"] = f"{partition}, {_line(row)}"
        made.append(row | {"runs": " ".join(final.name for final in group)})
    refuse_twice(made, "line", "fraction")
    made.sort(key=lambda row: (row["partition"], row["vertices"], row["norm"], place(row["fraction"])))
    if len({row["fraction"] for row in made}) < 2:
        raise UserError(f"all these runs have the exchange fraction {made[0]['fraction']}; give runs of at least two.")
    return made


def _line(row):
    return f"{row['vertices']} vertices, {row['norm']} norm"


@pictures.styled
def draw(made):
    """Return the figure of the rows: accuracy for each partition, then bytes."""
    partitions = list(dict.fromkeys(row["partition"] for row in made))
    fractions = sorted({row["fraction"] for row in made}, key=place)
    lines = list(dict.fromkeys(_line(row) for row in sorted(made, key=lambda row: (row["vertices"], row["norm"]))))
    figure, axes = pictures.canvas(len(partitions) + 1, pictures.DOUBLE, pictures.height(2.5, len(lines)))
    style_of = dict(zip(lines, pictures.styles(len(lines)), strict=True))
    for line, style in style_of.items():
        for axis, partition in zip(axes, partitions):
            table = [row for row in made if _line(row) == line and row["partition"] == partition]
            x = pictures.column([{"x": fractions.index(row["fraction"])} for row in table], "x")
            label = line if partition == next(row["partition"] for row in made if _line(row) == line) else None
            pictures.line(axis, x, pictures.column(table, "accuracy_mean"), style, label)
            pictures.bars(axis, x, table, "accuracy_mean", "accuracy_sd_seeds", style)
    by_size = {(row["vertices"], row["fraction"]): row for row in made}
    for vertices in sorted({row["vertices"] for row in made}):
        # What moves does not depend on the model: the style of the first line of as many vertices stands for all.
        style = next(style_of[_line(row)] for line in lines for row in made if _line(row) == line and row["vertices"] == vertices)
        table = [by_size[vertices, fraction] for fraction in fractions if (vertices, fraction) in by_size]
        x = pictures.column([{"x": fractions.index(row["fraction"])} for row in table], "x")
        sent, stored = (pictures.column(table, f"sample_bytes_{what}_vertex") for what in ("sent", "stored"))
        axes[-1].plot(x[sent > 0], sent[sent > 0], color=style[0], marker=style[2], markersize=3)
        axes[-1].plot(x, stored, color=style[0], linewidth=0.6, linestyle=":")
    pictures.decades(axes[-1])
    for axis, partition in zip(axes, partitions):
        axis.set_title(pictures.plain(partition))
        axis.set_ylabel("accuracy at the end (%)")
    axes[-1].set_title("samples of a vertex")
    axes[-1].set_ylabel("bytes sent in the run; dotted: stored")
    for axis in axes:
        axis.set_xlabel("exchange fraction Q")
        pictures.ticks_at(axis, range(len(fractions)), [str(f) if f == "global" else f"{f:g}" for f in fractions])
    pictures.legend(figure, len(lines))
    return figure


@pictures.script(__doc__)
@pictures.RUNS
@pictures.output("shuffle_fraction.png")
def main(runs, out):
    pictures.of_finals(runs, out, rows, draw)


if __name__ == "__main__":
    main()
