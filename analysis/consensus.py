"""Draw how far the vertices are apart against the step, beside the decay that the graph alone would give.

    python analysis/consensus.py RUN... [--x step|epoch] [-o consensus.png]

The consensus distance, ||X - x_bar||_F / sqrt(n), is logged at the end of every epoch. The thin line of a run starts at
its first value and falls as |lambda_2|^t, t being the rounds of mixing since: what would be left of that value had
training stopped. What lies above the line is what the gradients put in. Runs whose rounds are not those of W alone
(gossip, averages over all vertices, a delayed round, unequal periods, a graph that changes) have no thin line.
"""

import sys
from pathlib import Path

import click
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # from a checkout, installed or not

from analysis import pictures
from analysis.runs import config_of, epochs_of, opened
from mpiconsensus.errors import UserError

LABELS = {"step": "step", "epoch": "epoch"}


def rounds_between(config, first, steps):
    """Return how many rounds of W the steps from `first` up to each of `steps` (excluded) hold, or None where rounds are not W."""
    period = config["algorithm.period"]
    if config["algorithm.name"] != "consensus" or config["algorithm.delay"]:
        return None
    if isinstance(period, list):
        if len(set(period)) > 1:
            return None
        period = period[0]
    # mixing steps k < s, with k = 0, q, 2q, ...: ceil(s / q)
    done = -(-np.asarray(steps) // period) - -(-first // period)
    return config["algorithm.rounds"] * done


def rows(run, name):
    """Return one dict an epoch: the distance, and what |lambda_2| to the power of the rounds leaves of the first one."""
    epochs_of(run)
    steps, distance = run.epochs("step"), run.network("consensus_distance")
    rounds = rounds_between(config_of(run), int(steps[0]), steps)
    second = run.graph["lambda2_modulus"]
    if rounds is None or not np.isfinite(second):
        rounds, alone = [None] * len(steps), np.full(len(steps), np.nan)
    else:
        alone = distance[0] * second**rounds
    own = {"run": name, "graph": run.graph["spec"], "lambda2_modulus": second}
    values = zip(run.epochs("epoch").tolist(), steps.tolist(), distance.tolist(), rounds, alone.tolist(), strict=True)
    return [
        own | {"epoch": e, "step": s, "consensus_distance": d, "rounds_since_first": None if t is None else int(t), "graph_alone": a}
        for e, s, d, t, a in values
    ]


def decay(table, x, lowest):
    """Return (x, y) of a run's thin line, a point a round, down to `lowest`; None without one."""
    first, last = table[0], table[-1]
    base, rounds = first["lambda2_modulus"], last["rounds_since_first"]
    if not rounds or not first["consensus_distance"] > 0:
        return None
    fall = np.log(lowest / first["consensus_distance"]) / np.log(base) if 0 < base < 1 else rounds
    t = np.linspace(0, min(rounds, max(fall, 0)), 100)
    place = first[x] + t * (last[x] - first[x]) / rounds
    return place, first["consensus_distance"] * base**t


@pictures.styled
def draw(tables, x="step"):
    """Return the figure of [(label, rows)]."""
    figure, (axis,) = pictures.canvas(1, 4.6, pictures.height(2.7, len(tables)))
    every = np.concatenate([pictures.column(table, "consensus_distance") for _, table in tables])
    low, high = every[every > 0].min(), every[every > 0].max()
    # decay is shown as far down as there is something to compare it with
    bottom = 10.0 ** np.floor(np.log10(low) - 0.3)
    for (run, table), style in zip(tables, pictures.styles(len(tables), [table[0]["graph"] for _, table in tables]), strict=True):
        distance = pictures.column(table, "consensus_distance")
        pictures.line(axis, pictures.column(table, x), np.where(distance > 0, distance, np.nan), style, run)
        if (thin := decay(table, x, bottom)) is not None:
            axis.plot(*thin, color=style[0], linestyle=style[1], linewidth=0.6)
    axis.set_ylim(bottom, 2 * high)
    pictures.decades(axis)
    axis.set(xlabel=LABELS[x], ylabel="consensus distance (2-norm)", xlim=(0, None))
    pictures.whole_numbers(axis)
    decays = any(table[0]["rounds_since_first"] is not None for _, table in tables)
    if decays:
        axis.plot([], [], color="0.4", linewidth=0.6, label=r"thin: first value $\times\ |\lambda_2|^t$, $t$ rounds later")
    pictures.legend(figure, len(tables) + decays, columns=1)
    return figure


@pictures.script(__doc__)
@pictures.RUNS
@click.option("--x", default="step", show_default=True, type=click.Choice(list(LABELS)), help="What to draw against.")
@pictures.output("consensus.png")
def main(runs, x, out):
    pictures.check(out)
    names, tables = [], []
    for name, run in opened(runs):
        table = rows(run, name)
        names.append(name)
        tables.append((pictures.run_label(run, name), table))
    if not any(row["consensus_distance"] > 0 for _, table in tables for row in table):
        raise UserError("the vertices of these runs are never apart (consensus distance 0); give a run of two vertices or more.")
    pictures.save(draw(tables, x), out, [row for _, table in tables for row in table])
    pictures.told(out, names)


if __name__ == "__main__":
    main()
