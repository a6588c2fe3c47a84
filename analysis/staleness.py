"""Draw accuracy and time of bounded-staleness runs against the bound s, and how old the rows were that they mixed.

    python analysis/staleness.py RUN... [--by KEY] [-o staleness.png]

Left: accuracy at the end over s; the line is the mean over vertices and seeds, its band the lowest to the highest vertex of any
seed, the bars plus and minus the standard deviation over the seeds. Middle: seconds until the slowest vertex was through,
modelled ones under a virtual clock. Right: the share of the rows that were mixed at an age or below it, a line for each s,
over all runs. Ages are in steps of the reader. Other keys must agree, but for the one of --by, which draws a line a value.
A directory that holds runs stands for them.
"""

import math
import sys
from pathlib import Path

import click
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # from a checkout, installed or not

from analysis import pictures
from analysis.runs import jobs, over_seeds, refuse_other_keys, refuse_twice, value_of
from mpiconsensus.errors import UserError

KEY = "algorithm.staleness"


def rows(runs, by=None):
    """Return one dict a job, in ascending order of group and bound; accuracies in percent, age_0, ... shares of the rows mixed."""
    for final in runs:
        if final.config["algorithm.name"] != "bounded-staleness":
            raise UserError(f"run {final.name} is of algorithm {final.config['algorithm.name']}, which has no bound on staleness; leave it out.")
    refuse_other_keys(runs, (KEY, by), "the bound on staleness")
    made = []
    for group in jobs(runs):
        first, ages = group[0], sum(final.ages for final in group)
        seconds = np.array([final.figures["seconds"] for final in group])
        row = {"group": "" if by is None else value_of(first, by), "staleness": first.config[KEY]}
        row |= over_seeds(group) | {"seconds": float(seconds.mean())}
        row |= {"seconds_sd_seeds": float(seconds.std(ddof=1)) if len(group) > 1 else float("nan")}
        row |= {"age_mean": float(ages @ np.arange(len(ages)) / max(ages.sum(), 1)), "rows_mixed": int(ages.sum())}
        row |= {f"age_{age}": float(count / max(ages.sum(), 1)) for age, count in enumerate(ages)}
        made.append(row | {"runs": " ".join(final.name for final in group)})
    refuse_twice(made, "group", "staleness")
    made.sort(key=lambda row: (str(row["group"]), row["staleness"]))
    if len({row["staleness"] for row in made}) < 2:
        raise UserError(f"all these runs have the bound {told(made[0]['staleness'])}; give runs of at least two.")
    return made


def told(bound):
    """Return a bound as it is written."""
    return "inf" if math.isinf(bound) else f"{bound:g}"


@pictures.styled
def draw(made, by=None):
    """Return the figure of the rows: accuracy, time and ages."""
    groups, bounds = (list(dict.fromkeys(row[name] for row in made)) for name in ("group", "staleness"))
    bounds.sort()
    figure, axes = pictures.canvas(3, 7.2, pictures.height(2.5, len(groups) if by else 0))
    for group, style in zip(groups, pictures.styles(len(groups)), strict=True):
        table = [row for row in made if row["group"] == group]
        x = np.array([bounds.index(row["staleness"]) for row in table], float)
        pictures.band(axes[0], x, table, "accuracy", style, f"{by} = {pictures.plain(group)}" if by else None)
        pictures.bars(axes[0], x, table, "accuracy_mean", "accuracy_sd_seeds", style)
        pictures.line(axes[1], x, pictures.column(table, "seconds"), style)
        pictures.bars(axes[1], x, table, "seconds", "seconds_sd_seeds", style)
    for axis, what in zip(axes, ("accuracy at the end (%)", "time of the run (s)")):
        axis.set_ylabel(what)
        axis.set_xlabel("bound on staleness s (steps)")
        axis.set_xticks(range(len(bounds)), [told(bound) for bound in bounds])
    axes[1].set_ylim(bottom=0)
    _ages(axes[2], made, bounds)
    if by:
        pictures.legend(figure, len(groups))
    return figure


def _ages(axis, made, bounds):
    """Draw the share of the rows at an age or below, a line a bound."""
    oldest = 1
    for bound, style in zip(bounds, pictures.styles(len(bounds)), strict=True):
        table = [row for row in made if row["staleness"] == bound]
        counts = [sum(row[name] * row["rows_mixed"] for row in table) for name in table[0] if name.startswith("age_") and name != "age_mean"]
        share = 100 * np.cumsum(counts) / max(sum(counts), 1)
        oldest = max(oldest, int(np.argmax(share > 99.9)))
        pictures.line(axis, np.arange(len(share)), share, style, f"s = {told(bound)}")
    axis.set_xlim(0, oldest)
    axis.set_ylim(0, 102)
    axis.set_xlabel("age of a row (steps of the reader)")
    axis.set_ylabel("rows up to that age (%)")
    axis.legend(frameon=False, fontsize=6, loc="lower right")


@pictures.script(__doc__)
@pictures.RUNS
@click.option("--by", metavar="KEY", help="A key of the job whose values get a line each, for example hetero.slowdown_probability.")
@pictures.output("staleness.png")
def main(runs, by, out):
    pictures.of_finals(runs, out, rows, draw, by)


if __name__ == "__main__":
    main()
