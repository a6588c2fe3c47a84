"""Draw the samples trained on a second against the ranks, with the ideal line, for weak or strong scaling.

    python analysis/scaling.py RUN... [--kind auto|strong|weak] [-o scaling.png]

strong: the whole network's batch of a step (vertices x batch) is the same in all runs; weak: it is the same a rank.
auto tells by the runs. A run's figure is the median over its epochs of the samples of all vertices a second, evaluation
left out. Runs on the same ranks are one point, the bar their lowest to highest. The ideal line goes through the point of
the fewest ranks, and what there is of it is the efficiency.
"""

import sys
from pathlib import Path

import click
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # from a checkout, installed or not

from analysis import pictures
from analysis.runs import config_of, epochs_of, opened
from mpiconsensus.errors import UserError

SAME = ("model.name", "training.precision", "training.concurrency", "training.arithmetic", "algorithm.name", "algorithm.order")


def measure(run, name):
    """Return what one run has measured: ranks, vertices, the batch of a step, samples a second."""
    epochs_of(run)
    config, ranks = config_of(run), len(np.unique(run.rank_of_vertex))
    same = {key: config[key] for key in SAME} | {"data": run.facts.get("data"), "threads a rank": run.facts.get("threads")}
    batch = run.graph["n"] * config["training.batch_size"]
    return {"run": name, "ranks": ranks, "vertices": run.graph["n"], "batch": batch, "same": same,
            "samples_per_s": float(np.median(run.network("samples_per_s")))}  # fmt: skip


def kind_of(measured, wanted="auto"):
    """Return "strong" or "weak"; UserError where runs are of neither, of another than wanted, or cannot be told."""
    first = measured[0]
    for other in measured[1:]:
        for key, value in other["same"].items():
            if value != first["same"][key]:
                raise UserError(
                    f"runs {first['run']} and {other['run']} cannot be compared: {key} is {first['same'][key]} and {value}; "
                    "give runs that differ in ranks and vertices alone."
                )
    if len({m["ranks"] for m in measured}) < 2:
        raise UserError(f"all these runs have {first['ranks']} rank{'s' * (first['ranks'] > 1)}; scaling needs runs on different numbers of ranks.")
    fits = {"strong": len({m["batch"] for m in measured}) == 1, "weak": len({m["batch"] / m["ranks"] for m in measured}) == 1}
    if wanted != "auto" and not fits[wanted] or not any(fits.values()):
        batches = ", ".join(f"{m['run']}: {m['batch']} on {m['ranks']}" for m in measured[:4])
        what = "neither strong nor weak scaling" if wanted == "auto" else f"not {wanted} scaling"
        raise UserError(
            f"these runs are {what}: the samples of a step ({batches}) are not the same "
            f"{'in all or ' if wanted == 'auto' else ''}{'in all' if wanted == 'strong' else 'a rank'}; give the runs of one kind."
        )
    return wanted if wanted != "auto" else "strong" if fits["strong"] else "weak"


def rows(measured, kind):
    """Return one dict a number of ranks, ascending: mean, lowest and highest samples a second, ideal and efficiency."""
    made = []
    for ranks in sorted({m["ranks"] for m in measured}):
        here = [m for m in measured if m["ranks"] == ranks]
        rates = np.array([m["samples_per_s"] for m in here])
        made.append({
            "kind": kind, "ranks": ranks, "vertices": here[0]["vertices"], "runs": " ".join(m["run"] for m in here),
            "samples_per_s": float(rates.mean()), "samples_per_s_min": float(rates.min()), "samples_per_s_max": float(rates.max()),
        })  # fmt: skip
    base = made[0]["samples_per_s"] / made[0]["ranks"]
    for row in made:
        row["ideal_samples_per_s"] = base * row["ranks"]
        row["efficiency"] = row["samples_per_s"] / row["ideal_samples_per_s"]
    return made


@pictures.styled
def draw(made):
    """Return the figure of the rows: samples a second with the ideal line, and the efficiency."""
    figure, axes = pictures.canvas(2, 5.6, 2.6)
    ranks, rate = pictures.column(made, "ranks"), pictures.column(made, "samples_per_s")
    measured, ideal = pictures.styles(2)
    ends = np.abs([pictures.column(made, f"samples_per_s_{end}") - rate for end in ("min", "max")])
    axes[0].plot(ranks, pictures.column(made, "ideal_samples_per_s"), color="0.4", linestyle=ideal[1], linewidth=0.8, label="ideal")
    axes[0].errorbar(ranks, rate, ends if ends.any() else None, color=measured[0], marker=measured[2], markersize=3, capsize=2, label="measured")
    axes[0].set(yscale="log", ylabel="samples/s")
    pictures.decades(axes[0])
    axes[1].axhline(100, color="0.4", linestyle=ideal[1], linewidth=0.8)
    efficiency = 100 * pictures.column(made, "efficiency")
    axes[1].plot(ranks, efficiency, color=measured[0], marker=measured[2], markersize=3)
    axes[1].set(ylabel="efficiency (%)", ylim=(0, max(110, 1.1 * efficiency.max())))
    for axis in axes:
        axis.set(xscale="log", xlabel="ranks")
        pictures.ticks_at(axis, sorted({int(r) for r in ranks}))
    axes[0].legend(frameon=False, title=f"{made[0]['kind']} scaling", title_fontsize=8, alignment="left", handlelength=3)
    return figure


@pictures.script(__doc__)
@pictures.RUNS
@click.option("--kind", default="auto", show_default=True, type=click.Choice(["auto", "strong", "weak"]), help="Which scaling the runs are for.")
@pictures.output("scaling.png")
def main(runs, kind, out):
    pictures.check(out)
    measured = [measure(run, name) for name, run in opened(runs)]
    made = rows(measured, kind_of(measured, kind))
    pictures.save(draw(made), out, made)
    pictures.told(out, [m["run"] for m in measured])


if __name__ == "__main__":
    main()
