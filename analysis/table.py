"""Print the table of a paper: graph, batch, accuracy of the vertices, the single model's, and in bold where the network keeps up.

    python analysis/table.py RUN... [--single RUN] [--bold single-0.2] [--format table|markdown|latex|csv|json]

A row a job: its runs, which differ in the seed alone, are put together. "+-" is the standard deviation over the vertices
of a run (of several runs the root of the mean variance); the deviation over the seeds, of the runs' means, has a column
of its own. Accuracies are those of the evaluation at the end of a run, in percent. Runs of one vertex are single models;
a network's is the one with the same data and model and the network's whole batch (vertices x batch), else its vertex's
batch, else the only one there is; where the learning rate was scaled by the vertices it is first its vertex's. Keys in
which the jobs differ get a column each; where there are several data sets, keys in which the jobs on one of them differ.

Bold is a rule: single-0.2 means that the mean over the vertices is at least the single model's minus 0.2 points;
best, that it is the largest of the table; none.
"""

import re
import sys
from pathlib import Path

import click
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # from a checkout, installed or not

from analysis import pictures
from analysis.runs import data_of, differing, finals, jobs, over_seeds
from mpiconsensus import tabletext
from mpiconsensus.errors import UserError

HEADS = {"data": "data", "graph": "graph", "vertices": "n", "batch": "batch", "accuracy": "accuracy %", "sd_seeds": "sd over seeds", "seeds": "seeds",
         "mean_model": "mean model %", "single": "single model %", "single_batch": "its batch"}  # fmt: skip
SHOWN = ("topology.graph", "training.batch_size")  # have a column in any case
SHORT = 4  # entries of a list that a cell shows


def rule(text):
    """Return the bold-face rule of `text`: a function of (mean, single model's, all means), in points; UserError on another text."""
    found = re.fullmatch(r"single([+-]\d+(?:\.\d+)?)?", text)
    if found:
        margin = float(found[1] or 0)
        # published accuracies have two digits: 89.01 against 89.21 - 0.2 must not hang on the last bit
        return lambda mean, single, means: round(mean - single - margin, 9) >= 0
    if text == "best":
        return lambda mean, single, means: mean == max(means)
    if text == "none":
        return lambda mean, single, means: False
    raise UserError(f"--bold {text} is not a rule; give single-0.2 (or another number of points), single, best or none.")


def single_of(group, singles):
    """Return the jobs' list of runs that is the single model of a network's, or None."""
    first = group[0]
    alike = [s for s in singles if s[0].config["model.name"] == first.config["model.name"] and data_of(s[0]) == data_of(first)]
    batch = first.config["training.batch_size"]
    # The linear scaling rule wants n times the rate for n times the batch: the steps are those of one vertex alone.
    whole_first = not first.config["training.scale_lr"]
    for wanted in (first.n * batch, batch)[:: 1 if whole_first else -1]:
        if fitting := [s for s in alike if s[0].config["training.batch_size"] == wanted]:
            if len(fitting) > 1:
                keys = ", ".join(differing([s[0] for s in fitting]))
                raise UserError(
                    f"the jobs of {fitting[0][0].name} and {fitting[1][0].name} both are single models of batch {wanted} for {first.name}; "
                    f"they differ in {keys}: give one of them."
                )
            return fitting[0]
    return alike[0] if len(alike) == 1 else None


def rows(runs, bold):
    """Return one dict a job of networks: numbers in percent, NaN or None where there is none; `bold` by the rule."""
    groups = jobs(runs)
    networks, singles = ([g for g in groups if (g[0].n == 1) == alone] for alone in (False, True))
    if not networks:
        raise UserError("all these runs have one vertex; give those of a network too.")
    keys = _columns([g[0] for g in networks])
    made = []
    for group in networks:
        first, figures = group[0], over_seeds(group)
        single = single_of(group, singles)
        row = {"runs": " ".join(f.name for f in group), "data": data_of(first), "graph": first.config["topology.graph"], "vertices": first.n}
        row |= {"batch": first.config["training.batch_size"]} | {key: first.config[key] for key in keys}
        row |= {"accuracy": figures["accuracy_mean"], "sd_vertices": figures["accuracy_sd_vertices"]}
        row |= {"sd_seeds": figures["accuracy_sd_seeds"], "seeds": figures["seeds"]}
        row["mean_model"] = 100 * float(np.mean([f.figures["mean_accuracy"] for f in group]))
        row["single"] = over_seeds(single)["accuracy_mean"] if single else float("nan")
        row["single_sd_seeds"] = over_seeds(single)["accuracy_sd_seeds"] if single else float("nan")
        row["single_batch"] = single[0].config["training.batch_size"] if single else None
        made.append(row)
    means = {row["data"]: [other["accuracy"] for other in made if other["data"] == row["data"]] for row in made}
    return [row | {"bold": bool(bold(row["accuracy"], row["single"], means[row["data"]]))} for row in made]


def _columns(networks):
    """Return the keys that get a column: those in which networks on the same data differ."""
    sets = [[f for f in networks if data_of(f) == data] for data in dict.fromkeys(map(data_of, networks))]
    keys = dict.fromkeys(key for alike in sets for key in differing(alike, SHOWN))
    # Where the shards lie says nothing beside the data set, the vertices and their powers.
    division = lambda f: (data_of(f), f.n, str(f.config["hetero.powers"]))
    if len({division(f) for f in networks}) == len({(division(f), f.config["data.shards"]) for f in networks}):
        keys.pop("data.shards", None)
    return list(keys)


def cells(made):
    """Return (heads, lines of texts, places in bold) of the rows."""
    keys = [key for key in made[0] if "." in key]
    several = len({row["data"] for row in made}) > 1
    repeated, with_single = any(row["seeds"] > 1 for row in made), any(row["single_batch"] for row in made)
    columns = [*(["data"] if several else []), "graph", "vertices", "batch", *keys, "accuracy", *(["sd_seeds", "seeds"] if repeated else []), "mean_model"]
    columns += ["single", "single_batch"] if with_single else []
    heads = [HEADS.get(column) or column.partition(".")[2].replace("_", " ") for column in columns]
    lines = [[_cell(row, column) for column in columns] for row in made]
    return heads, lines, {(r, columns.index("accuracy")) for r, row in enumerate(made) if row["bold"]}


def _cell(row, column):
    value = row[column]
    if isinstance(value, list) and len(value) > SHORT:
        return f"{str(value[:SHORT])[:-1]}, ...]"
    if isinstance(value, str | bool | list):
        return str(value)
    if value is None or value != value:  # noqa: PLR0124 (NaN)
        return "-"
    deviation = row.get({"accuracy": "sd_vertices", "single": "single_sd_seeds"}.get(column), float("nan"))
    if column in ("accuracy", "sd_seeds", "mean_model", "single"):
        return f"{value:.2f}" + ("" if np.isnan(deviation) else f" +- {deviation:.2f}")
    return f"{value:g}"


def text(made, form):
    """Return the table in a format of tabletext.FORMATS."""
    if form in tabletext.TEXTS:
        return "\n".join(tabletext.TEXTS[form](*cells(made)))
    return tabletext.records(made, form)


@pictures.script(__doc__)
@pictures.RUNS
@click.option("--single", "singles", multiple=True, type=click.Path(path_type=Path), metavar="RUN", help="A run of one vertex; may be repeated.")
@click.option("--bold", default="single-0.2", show_default=True, metavar="RULE", help="single-0.2, single, best or none.")
@click.option("--format", "form", default="table", show_default=True, type=click.Choice(tabletext.FORMATS), help="csv and json are numbers in full precision.")
def main(runs, singles, bold, form):
    bold = rule(bold)
    click.echo(text(rows(finals([*runs, *singles], several=True), bold), form))


if __name__ == "__main__":
    main()
