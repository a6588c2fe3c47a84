"""Draw where the time of a step goes, a bar a run: data, computing, waiting, mixing, and what none of these covers.

    python analysis/breakdown.py RUN... [-o breakdown.png]

Milliseconds a step of a rank, mean over the ranks: the vertices of a rank share it, so that theirs are summed. A step's
time is rank 0's wall time of the epochs without their evaluation, divided by the steps; "other" is what is left of it,
not drawn where it is below 0 because other ranks waited into rank 0's evaluation. The hatched bar below is no part of the sum: rows were that long on their way while something
else was computed (with messages, at most that long).
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # from a checkout, installed or not

from analysis import pictures
from analysis.runs import epochs_of, opened
from mpiconsensus.runread import over_ranks

# part -> (legend, colour): dark beside light, so that neighbours are told apart in grey
PARTS = {"compute_s": ("compute", "#0b3c5d"), "io_s": ("data", "#8fb8de"), "wait_s": ("exchange wait", "#D55E00"),
         "mix_s": ("mix", "#f5c99b"), "other_s": ("other", "0.93")}  # fmt: skip


def row(run, name):
    """Return the seconds a step of a rank of one run as a dict: mean, min and max over the ranks of each part."""
    epochs_of(run)
    ranks = np.unique(run.rank_of_vertex)
    steps = int(run.epochs("step")[-1])
    wall = float((run.epochs("samples").sum(axis=1) / run.network("samples_per_s")).sum()) / steps
    out = {"run": name, "graph": run.graph["spec"], "vertices": run.graph["n"], "ranks": len(ranks), "steps": steps, "step_s": wall}
    covered = np.zeros(len(ranks))
    for part in ("io_s", "compute_s", "wait_s", "mix_s", "hidden_s"):
        of_ranks = over_ranks(run, run.epochs(part).sum(axis=0) / steps)[1]
        covered += of_ranks if part != "hidden_s" else 0
        out |= _spread(part, of_ranks)
    return out | _spread("other_s", wall - covered)


def _spread(part, values):
    return {part: float(values.mean()), f"{part}_min": float(values.min()), f"{part}_max": float(values.max())}


@pictures.styled
def draw(table, labels):
    """Return the figure of the rows."""
    figure, (axis,) = pictures.canvas(1, 5.2, 1.1 + 0.34 * len(table))
    axis.grid(visible=False, axis="y")
    places = np.arange(len(table))
    left = np.zeros(len(table))
    for part, (legend, colour) in PARTS.items():
        widths = 1e3 * np.maximum(pictures.column(table, part), 0)
        axis.barh(places, widths, 0.5, left=left, color=colour, edgecolor="black", linewidth=0.4, label=legend)
        left += widths
    hidden = 1e3 * pictures.column(table, "hidden_s")
    if hidden.any():
        axis.barh(places + 0.34, hidden, 0.18, color="white", edgecolor="black", linewidth=0.4, hatch="//////", label="hidden exchange")
    axis.set_yticks(places, labels)
    axis.set_ylim(len(table) - 0.35, -0.45)
    axis.tick_params(axis="y", length=0)
    axis.set_xlabel("time per step of a rank (ms)")
    figure.legend(loc="outside upper center", ncols=6, frameon=False, handlelength=1.2, columnspacing=1.2)
    return figure


@pictures.script(__doc__)
@pictures.RUNS
@pictures.output("breakdown.png")
def main(runs, out):
    pictures.check(out)
    names, table, labels = [], [], []
    for name, run in opened(runs):
        names.append(name)
        table.append(row(run, name))
        ranks = table[-1]["ranks"]
        note = f"{run.graph['n']} vertices, {ranks} rank{'s' * (ranks > 1)}" + ("" if run.complete else ", incomplete")
        labels.append(f"{pictures.plain(name)}\n{note}")
    pictures.save(draw(table, labels), out, table)
    pictures.told(out, names)


if __name__ == "__main__":
    main()
