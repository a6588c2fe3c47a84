"""Draw the accuracy at the end and the consensus distance against the averaging period, over the runs of a sweep.

    python analysis/averaging_period.py RUN... [--by KEY] [-o averaging_period.png]

The period is `algorithm.tau` of local SGD and `algorithm.period` of the other algorithms. Runs that differ in the seed
alone are one point: the line is the mean over vertices and seeds, its band the lowest to the highest vertex of any
seed, the bars plus and minus the standard deviation over the seeds. Other keys must agree, but for the one of --by,
which draws a line a value. A directory that holds runs stands for them.
"""

import sys
from pathlib import Path

import click
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # from a checkout, installed or not

from analysis import pictures
from analysis.runs import jobs, over_seeds, refuse_other_keys, refuse_twice, value_of
from mpiconsensus.errors import UserError

PERIODS = ("algorithm.period", "algorithm.tau")


def period_of(final):
    """Return the averaging period of a run, or raise UserError where it has not got one number."""
    name = final.config["algorithm.name"]
    if name in ("one-shot", "allreduce"):
        raise UserError(f"run {final.name} is of algorithm {name}, which has no averaging period; leave it out.")
    period = final.config["algorithm.tau" if name == "local-sgd" else "algorithm.period"]
    period = list(dict.fromkeys(period)) if isinstance(period, list) else [period]
    if len(period) > 1:
        raise UserError(f"run {final.name} has vertices of unequal periods ({', '.join(map(str, period))}); leave it out.")
    return period[0]


def rows(runs, by=None):
    """Return one dict a job, in ascending order of group and period; accuracies in percent."""
    refuse_other_keys(runs, (*PERIODS, by), "the averaging period")
    made = []
    for group in jobs(runs):
        first = group[0]
        distances = np.array([final.figures["consensus_distance"] for final in group])
        row = {"group": "" if by is None else value_of(first, by), "graph": first.config["topology.graph"], "period": period_of(first)}
        row |= over_seeds(group) | {"consensus_distance": float(distances.mean())}
        row["consensus_distance_sd_seeds"] = float(distances.std(ddof=1)) if len(group) > 1 else float("nan")
        made.append(row | {"runs": " ".join(final.name for final in group)})
    refuse_twice(made, "group", "period")
    made.sort(key=lambda row: (str(row["group"]), row["period"]))
    if len({row["period"] for row in made}) < 2:
        raise UserError(f"all these runs have the averaging period {made[0]['period']}; give runs of at least two.")
    return made


@pictures.styled
def draw(made, by=None):
    """Return the figure of the rows: accuracy and consensus distance."""
    groups = list(dict.fromkeys(row["group"] for row in made))
    figure, axes = pictures.canvas(2, 5.6, 2.5 + (0.16 * len(groups) if by else 0))
    for group, style in zip(groups, pictures.styles(len(groups)), strict=True):
        table = [row for row in made if row["group"] == group]
        x = pictures.column(table, "period")
        pictures.band(axes[0], x, table, "accuracy", style, f"{by} = {pictures.plain(group)}" if by else None)
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
        pictures.ticks_at(axis, sorted({row["period"] for row in made}))
    if by:
        pictures.legend(figure, len(groups))
    return figure


@pictures.script(__doc__)
@pictures.RUNS
@click.option("--by", metavar="KEY", help="A key of the job whose values get a line each, for example topology.graph.")
@pictures.output("averaging_period.png")
def main(runs, by, out):
    pictures.of_finals(runs, out, rows, draw, by)


if __name__ == "__main__":
    main()
