"""Draw the accuracy at the end and the consensus distance against the averaging period, over the runs of a sweep.

    python analysis/averaging_period.py RUN... [--by KEY] [-o averaging_period.png]

The period is `algorithm.tau` of local SGD and `algorithm.period` of the other algorithms. Intervals that grow
(`algorithm.tau_growth`) are a line apart, at their first one; runs that average once, at the end, are a level line. Runs
that differ in the seed alone are one point: the line is the mean over vertices and seeds, its band the lowest to the
highest vertex of any seed, the bars plus and minus the standard deviation over the seeds. Other keys must agree, but for
the one of --by, which draws a line a value. A directory that holds runs stands for them.
"""

import sys
from pathlib import Path

import click
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # from a checkout, installed or not

from analysis import pictures
from analysis.runs import jobs, over_seeds, refuse_other_keys, refuse_twice, value_of
from mpiconsensus.errors import UserError

PERIODS, GROWTH = ("algorithm.period", "algorithm.tau"), "algorithm.tau_growth"
ONCE = "one-shot"


def period_of(final):
    """Return the averaging period of a run, NaN for one average at the end, or raise UserError where it has not got one number."""
    name = final.config["algorithm.name"]
    if name == ONCE:
        return np.nan
    if name == "allreduce":
        raise UserError(f"run {final.name} is of algorithm {name}, which has no averaging period; leave it out.")
    period = final.config["algorithm.tau" if name == "local-sgd" else "algorithm.period"]
    period = list(dict.fromkeys(period)) if isinstance(period, list) else [period]
    if len(period) > 1:
        raise UserError(f"run {final.name} has vertices of unequal periods ({', '.join(map(str, period))}); leave it out.")
    return period[0]


def schedule_of(final):
    """Return how the intervals of a run go on from the first, in words."""
    if final.config["algorithm.name"] == ONCE:
        return ONCE
    growth = final.config[GROWTH]
    if not growth:
        return "fixed"
    return "growing by the first" if growth == period_of(final) else f"growing by {growth}"


def rows(runs, by=None):
    """Return one dict a job, in ascending order of group, schedule and period; accuracies in percent."""
    once = [final for final in runs if final.config["algorithm.name"] == ONCE]
    spaced = [final for final in runs if final not in once]
    refuse_other_keys(spaced, (*PERIODS, GROWTH, by), "the averaging period")
    refuse_other_keys([*spaced[:1], *once], ("algorithm.name", *PERIODS, GROWTH, by), "the averaging period")
    made = []
    for group in jobs(runs):
        first = group[0]
        distances = np.array([final.figures["consensus_distance"] for final in group])
        row = {"group": "" if by is None else value_of(first, by), "schedule": schedule_of(first)}
        row |= {"graph": first.config["topology.graph"], "period": period_of(first)}
        row |= over_seeds(group) | {"consensus_distance": float(distances.mean())}
        row["consensus_distance_sd_seeds"] = float(distances.std(ddof=1)) if len(group) > 1 else float("nan")
        made.append(row | {"runs": " ".join(final.name for final in group)})
    refuse_twice([row | {"line": line_of(row)} for row in made], "line", "period")
    made.sort(key=lambda row: (str(row["group"]), row["schedule"], row["period"]))
    periods = list(dict.fromkeys(row["period"] for row in made if row["schedule"] != ONCE))
    if len(periods) < 2:
        raise UserError(f"all these runs have the averaging period {periods[0] if periods else 'of one-shot'}; give runs of at least two.")
    return made


def line_of(row):
    """Return what tells the line of a row from the others."""
    return row["group"], row["schedule"]


@pictures.styled
def draw(made, by=None):
    """Return the figure of the rows: accuracy and consensus distance."""
    lines = list(dict.fromkeys(map(line_of, made)))
    several = len({row["schedule"] for row in made}) > 1
    figure, axes = pictures.canvas(2, 5.6, pictures.height(2.5, len(lines) if by or several else 0))
    for (group, schedule), style in zip(lines, pictures.styles(len(lines), [group for group, _ in lines]), strict=True):
        table = [row for row in made if line_of(row) == (group, schedule)]
        words = ([f"{by} = {pictures.plain(group)}"] if by else []) + ([schedule] if several else [])
        label = ", ".join(words) or None
        if schedule == ONCE:
            (row,) = table
            for axis, height in zip(axes, (row["accuracy_mean"], row["consensus_distance"]), strict=True):
                axis.axhline(height, color=style[0], linestyle=style[1], label=label if axis is axes[0] else None)
            continue
        x = pictures.column(table, "period")
        pictures.band(axes[0], x, table, "accuracy", style, label)
        pictures.bars(axes[0], x, table, "accuracy_mean", "accuracy_sd_seeds", style)
        pictures.line(axes[1], x, pictures.column(table, "consensus_distance"), style)
        pictures.bars(axes[1], x, table, "consensus_distance", "consensus_distance_sd_seeds", style)
    axes[0].set_ylabel("accuracy at the end (%)")
    axes[1].set_ylabel("consensus distance (2-norm)")
    if all(row["consensus_distance"] > 0 for row in made):
        pictures.decades(axes[1])
    for axis in axes:
        axis.set_xlabel("averaging period (steps)")
        axis.set_xscale("log")
        pictures.ticks_at(axis, sorted({row["period"] for row in made if row["schedule"] != ONCE}))
    if by or several:
        pictures.legend(figure, len(lines))
    return figure


@pictures.script(__doc__)
@pictures.RUNS
@click.option("--by", metavar="KEY", help="A key of the job whose values get a line each, for example topology.graph.")
@pictures.output("averaging_period.png")
def main(runs, by, out):
    pictures.of_finals(runs, out, rows, draw, by)


if __name__ == "__main__":
    main()
