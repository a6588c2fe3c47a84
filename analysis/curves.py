"""Draw accuracy, loss and consensus distance against the epoch, from the logs of runs.

    python analysis/curves.py RUN... [-o curves.png]

A line is the mean over the vertices, its band the lowest to the highest vertex. The numbers drawn go to a CSV file of
the same name. Runs are told apart by dashes and markers as well as by colour, so that a print in grey is readable.
"""

import csv
import sys
from itertools import cycle, islice
from pathlib import Path

import click
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # from a checkout, installed or not

from mpiconsensus.errors import UserError
from mpiconsensus.runread import Run

SUFFIXES = (".png", ".pdf", ".svg")
FIELDS = ["run", "graph", "vertices", "epoch", "step", "seconds"] + [
    f"{name}_{statistic}" for name in ("accuracy", "train_loss") for statistic in ("mean", "sd", "min", "max")
] + ["mean_model_accuracy", "consensus_distance"]  # fmt: skip
# Okabe and Ito's colours, from dark to light: they keep apart for the colour-blind and, with the dashes, in grey
STYLES = [("#000000", "-", "o"), ("#0072B2", "--", "s"), ("#D55E00", "-.", "^"), ("#009E73", ":", "D"),
          ("#CC79A7", (0, (5, 1)), "v"), ("#E69F00", (0, (3, 1, 1, 1)), "P"),
          ("#56B4E9", (0, (1, 1)), "X")]  # fmt: skip


def rows(run, name):
    """Return one dict of FIELDS an epoch; accuracies are fractions, NaN where not evaluated; sd with ddof = 1."""
    figures = {"epoch": run.epochs("epoch"), "step": run.epochs("step"), "seconds": run.network("seconds")}
    for column in ("accuracy", "train_loss"):
        figures |= spread(run.epochs(column), column)
    figures["mean_model_accuracy"] = run.network("mean_accuracy")
    figures["consensus_distance"] = run.network("consensus_distance")
    own = {"run": name, "graph": run.graph["spec"], "vertices": run.graph["n"]}
    return [own | {key: values[e].item() for key, values in figures.items()} for e in range(len(figures["epoch"]))]


def spread(values, name):
    """Return mean, sd, min and max over the vertices of (E, n) values, those that are NaN left out."""
    here = ~np.isnan(values)
    count = here.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(here, values, 0).sum(axis=1) / count
        sd = np.sqrt(np.where(here, (values - mean[:, None]) ** 2, 0).sum(axis=1) / (count - 1))
    low, high = np.where(here, values, np.inf).min(axis=1), np.where(here, values, -np.inf).max(axis=1)
    low[count == 0] = high[count == 0] = mean[count == 0] = np.nan
    sd[count < 2] = np.nan
    return {f"{name}_mean": mean, f"{name}_sd": sd, f"{name}_min": low, f"{name}_max": high}


def draw(tables, out):
    """Draw [(label, rows)] as three panels into `out`, in the format of its suffix."""
    try:
        import matplotlib
    except ImportError:
        raise UserError("pictures need matplotlib; install it: pip install matplotlib.") from None
    matplotlib.use("agg")
    from matplotlib import pyplot, ticker

    settings = {"font.size": 8, "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.6,
                "lines.linewidth": 1.2, "pdf.fonttype": 42, "svg.fonttype": "none"}  # fmt: skip
    with pyplot.rc_context(settings):
        figure, axes = pyplot.subplots(1, 3, figsize=(7.2, 2.7 + 0.16 * len(tables)), layout="constrained")
        for (label, table), style in zip(tables, islice(cycle(STYLES), len(tables)), strict=True):
            x = np.array([row["epoch"] for row in table])
            panel(axes[0], x, table, "accuracy", style, label, 100)
            panel(axes[1], x, table, "train_loss", style)
            line(axes[2], x, np.array([row["consensus_distance"] for row in table]), style)
        axes[0].set_ylabel("accuracy (%)")
        axes[1].set_ylabel("training loss (nats)")
        axes[2].set_ylabel("consensus distance (2-norm)")
        if any(row["consensus_distance"] > 0 for _, table in tables for row in table):
            axes[2].set_yscale("log")
        for axis, letter in zip(axes, "abc", strict=True):
            axis.set_xlabel("epoch")
            axis.set_title(letter, loc="left", fontweight="bold")
            axis.xaxis.set_major_locator(ticker.MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
            axis.grid(color="0.9", linewidth=0.5)
            axis.set_axisbelow(True)
        figure.legend(loc="outside lower center", ncols=1 if len(tables) > 2 else 2, frameon=False, handlelength=4)
        figure.savefig(out, dpi=300)
        pyplot.close(figure)


def panel(axis, x, table, name, style, label=None, scale=1):
    """Draw mean and band of one column; epochs that were not evaluated are bridged."""
    mean, low, high = (scale * np.array([row[f"{name}_{s}"] for row in table]) for s in ("mean", "min", "max"))
    here = ~np.isnan(mean)
    axis.fill_between(x[here], low[here], high[here], color=style[0], alpha=0.18, linewidth=0)
    line(axis, x, mean, style, label)


def line(axis, x, y, style, label=None):
    """Draw one line with a few markers, over what is a number."""
    colour, dashes, marker = style
    here = ~np.isnan(y)
    every = max(1, int(here.sum()) // 8)
    look = {"color": colour, "linestyle": dashes, "marker": marker, "markersize": 3, "markevery": every}
    axis.plot(x[here], y[here], label=label, **look)


def save(tables, out):
    """Write the rows of all runs as CSV."""
    with open(out, "w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        for _, table in tables:
            writer.writerows({k: "" if v != v else v for k, v in row.items()} for row in table)  # noqa: PLR0124 (NaN)


def names(paths):
    """Return a name a run: the directory's, with as many of those above as tell all apart."""
    parts = [path.resolve().parts for path in paths]
    parts = [p[:-1] if p[-1] == "run.h5" else p for p in parts]
    for depth in range(1, max(map(len, parts)) + 1):
        found = ["/".join(p[-depth:]) for p in parts]
        if len(set(found)) == len(found):
            return found
    raise UserError("a run is given twice; give each once.")


def label(run, name, table):
    """Return the legend's text of a run; matplotlib would take a dollar sign for mathematics."""
    notes = [run.graph["spec"].replace("$", r"\$"), rf"$|\lambda_2|$ = {run.graph['lambda2_modulus']:.3f}"]
    if all(row["consensus_distance"] == 0 for row in table):
        notes.append("consensus distance 0")  # has no place on a logarithmic axis
    if not run.complete:
        notes.append("incomplete")
    return name.replace("$", r"\$") + f" ({', '.join(notes)})"


@click.command(help=__doc__.split("\n")[0], context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN...")
@click.option("-o", "--out", default="curves.png", type=click.Path(path_type=Path), show_default=True,
              help="Picture: .png, .pdf or .svg; the numbers go beside it as .csv.")  # fmt: skip
def main(runs, out):
    try:
        if out.suffix.lower() not in SUFFIXES:
            raise UserError(f"picture {str(out)!r}: the suffix says the format; choose one of {', '.join(SUFFIXES)}.")
        tables = []
        for path, name in zip(runs, names(runs), strict=True):
            with Run(path) as run:
                table = rows(run, name)
                if not table:
                    raise UserError(f"run {str(path)!r} holds no whole epoch; wait for one, or leave the run out.")
                tables.append((label(run, name, table), table))
        try:
            draw(tables, out)
            save(tables, out.with_suffix(".csv"))
        except OSError as error:
            raise UserError(f"cannot write {str(out)!r}: {error.strerror}; give another place with -o.") from None
    except UserError as error:
        click.echo(f"curves.py: {error}", err=True)
        sys.exit(2)
    click.echo(f"{out} and {out.with_suffix('.csv')}: {', '.join(names(runs))}")


if __name__ == "__main__":
    main()
