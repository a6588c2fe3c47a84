"""Draw the accuracy at the end of several sweeps side by side, against a key of the job.

    python analysis/compare.py SWEEP... [--x KEY] [--by KEY] [-o compare.png]

--x is the key along the axis: the one in which the runs differ, where it is only one. --by is the key whose values get a
line each; without it a line is a directory of runs that was given. Runs that differ in the seed alone are one point,
the mean over vertices and seeds; its band is the lowest to the highest vertex of any seed, its bars plus and minus the
standard deviation over the seeds. Other keys must agree within a line. Beside the keys of a job, topology.kind and
topology.vertices are known: --x topology.vertices --by topology.kind draws kinds of graphs against their size.
"""

import sys
from pathlib import Path

import click
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # from a checkout, installed or not

from analysis import pictures
from analysis.runs import check_keys, differing, finals, jobs, natural, over_seeds, refuse_other_keys, refuse_twice, value_of
from mpiconsensus.errors import UserError


def pick_x(runs, by):
    """Return the key along the axis: the only one, --by left out, in which the runs of a line differ."""
    keys = list(dict.fromkeys(key for line in lines(runs, by).values() for key in differing(line, (by,))))
    if len(keys) == 1:
        return keys[0]
    if not keys:
        raise UserError("the runs of a line do not differ in any key of their jobs; give runs of a sweep, or the key of --x.")
    raise UserError(f"the runs differ in {', '.join(keys)}; say with --x which is along the axis, and with --by which gets a line a value.")


def lines(runs, by):
    """Return {name of a line: its runs}."""
    found = {}
    for final in runs:
        found.setdefault(_name(final, by, runs), []).append(final)
    return found


def _name(final, by, runs):
    if by is not None:
        return f"{by} = {value_of(final, by)}"
    # runs that were given one by one are a line together
    return final.origin if sum(other.origin == final.origin for other in runs) > 1 else "runs"


def rows(runs, x, by=None):
    """Return one dict a job, line by line in ascending order of x; accuracies in percent."""
    made = []
    for line, members in lines(runs, by).items():
        refuse_other_keys(members, (x, by), x)
        points = [
            {"line": line, "key": x, "x": value_of(group[0], x)} | over_seeds(group) | {"runs": " ".join(f.name for f in group)}
            for group in jobs(members)
        ]
        refuse_twice(points, "line", "x")
        made += sorted(points, key=lambda row: natural(row["x"]) if isinstance(row["x"], str) else [(row["x"], "")])
    return made


@pictures.styled
def draw(made):
    """Return the figure of the rows: lines over numbers, points over texts."""
    names = list(dict.fromkeys(row["line"] for row in made))
    figure, (axis,) = pictures.canvas(1, 4.6, pictures.height(2.6, len(names) * (len(names) > 1)))
    values = list(dict.fromkeys(row["x"] for row in made))
    (_over_texts if any(isinstance(value, str) for value in values) else _over_numbers)(axis, made, names, values)
    axis.set(xlabel=made[0]["key"], ylabel="accuracy at the end (%)")
    if len(names) > 1:
        pictures.legend(figure, len(names))
    return figure


def _over_numbers(axis, made, names, values):
    for name, style in zip(names, pictures.styles(len(names)), strict=True):
        table = [row for row in made if row["line"] == name]
        x = pictures.column(table, "x")
        pictures.band(axis, x, table, "accuracy", style, pictures.plain(name))
        pictures.bars(axis, x, table, "accuracy_mean", "accuracy_sd_seeds", style)
    if 0 < 4 * min(values) <= max(values):
        axis.set_xscale("log")
        pictures.ticks_at(axis, sorted(values))


def _over_texts(axis, made, names, values):
    """Draw a point a job; the lines' points of one text stand beside one another. Nothing lies between two texts."""
    width = 0.7 / len(names)
    for number, (name, (colour, _, marker)) in enumerate(zip(names, pictures.styles(len(names)), strict=True)):
        table = [row for row in made if row["line"] == name]
        x = np.array([values.index(row["x"]) for row in table]) + (number - (len(names) - 1) / 2) * width
        mean, low, high = (pictures.column(table, f"accuracy_{s}") for s in ("mean", "min", "max"))
        for patch in axis.bar(x, high - low, 0.7 * width, bottom=low, color=colour, alpha=0.18):
            patch.sticky_edges.y.clear()  # a bar's foot would lie on the axis
        axis.plot(x, mean, linestyle="none", color=colour, marker=marker, markersize=4, label=pictures.plain(name))
        pictures.bars(axis, x, table, "accuracy_mean", "accuracy_sd_seeds", (colour, None, None))
    texts = [pictures.plain(value) for value in values]
    axis.set_xticks(range(len(values)), texts)
    axis.grid(visible=False, axis="x")
    if len("".join(texts)) > 45:
        axis.set_xticks(range(len(values)), texts, rotation=30, ha="right", rotation_mode="anchor")


@pictures.script(__doc__)
@pictures.RUNS
@click.option("--x", metavar="KEY", help="The key along the axis; default: the one in which the runs differ.")
@click.option("--by", metavar="KEY", help="The key whose values get a line each; default: a line a directory of runs.")
@pictures.output("compare.png")
def main(runs, x, by, out):
    pictures.check(out)
    check_keys(x, by)
    ends = finals(runs)
    made = rows(ends, x or pick_x(ends, by), by)
    pictures.save(draw(made), out, made)
    pictures.told(out, [final.name for final in ends])


if __name__ == "__main__":
    main()
