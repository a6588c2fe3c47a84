"""What a sweep costs ahead of it: steps, samples and bytes of each run, and their sums."""

from mpiconsensus import config, cost, tabletext
from mpiconsensus.data.source import open_source
from mpiconsensus.errors import UserError
from mpiconsensus.runtime import World
from mpiconsensus.wiring import wire

HEADS = ["run", "graph", "n", "steps", "samples", "MB sent"]


def figures(sweep):
    """Return one dict a run: run, graph, vertices, steps, samples (gradients of all vertices), bytes_sent (by all vertices)."""
    wirings, made = {}, []
    for run in sweep.runs:
        table = run.job.topology
        key = (table.graph, table.weights, table.seed)
        try:
            if key not in wirings:
                wirings[key] = wire(table, World())
            source = open_source(run.job.data, wirings[key].n, run.job.hetero.powers, run.job.training.seed)
            found = cost.totals(run.job, wirings[key], source)
        except UserError as error:
            raise UserError(f"run {run.name}: {error}") from None
        made.append({"run": run.name, "graph": config.toml_value(wirings[key].spec).strip('"'), "vertices": wirings[key].n, **found})
    return made


def table(made):
    """Return the lines of the table of `figures`, with the total."""
    names = ("steps", "samples", "bytes_sent")
    total = {name: sum(row[name] for row in made) for name in names}
    rows = [[row["run"], row["graph"], str(row["vertices"]), *_cells(row)] for row in made]
    return tabletext.plain(HEADS, [*rows, [f"{len(made)} run{'s' * (len(made) > 1)}", "", "", *_cells(total)]])


def _cells(row):
    return [f"{row['steps']:,}", f"{row['samples']:,}", f"{row['bytes_sent'] / 1e6:,.1f}"]
