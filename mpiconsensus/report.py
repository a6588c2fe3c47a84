"""The figures of a run as a table, from its log alone: what `mpiconsensus report RUN` prints.

Accuracies are in percent. Over the vertices of a network: the mean, and the standard deviation of a sample (ddof = 1:
the vertices stand for the models that such a network trains); no deviation where n = 1.
"""

import numpy as np

from mpiconsensus import tabletext

EPOCH = ["epoch", "loss", "accuracy %", "mean model %", "distance", "samples/s", "MB sent", "seconds"]
RUNS = ["run", "graph", "|lambda_2|", "algorithm", "data", "model", "epochs", "loss", "accuracy %", "mean model %",
        "distance", "MB sent", "seconds"]  # fmt: skip


def mean_sd(values):
    """Return (mean, sample standard deviation) of an array (n,); the deviation is NaN where n = 1."""
    values = np.asarray(values, "f8")
    return float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else float("nan")


def epochs(run):
    """Return a list of one dict an epoch; accuracies and their deviation are fractions, NaN where not evaluated."""
    loss, accuracy = run.epochs("train_loss"), run.epochs("accuracy")
    sent = run.epochs("bytes_sent").sum(axis=1)
    names = ("mean_accuracy", "consensus_distance", "samples_per_s", "seconds")
    network = {name: run.network(name) for name in names}
    rows = []
    for e, number in enumerate(run.epochs("epoch")):
        mean, sd = mean_sd(accuracy[e])
        row = {"epoch": int(number), "loss": _mean_of_trained(loss[e]), "accuracy": mean, "accuracy_sd": sd}
        rows.append(row | {name: float(network[name][e]) for name in names} | {"bytes_sent": int(sent[e])})
    return rows


def summary(run):
    """Return the figures of a run as one flat dict: facts, the last epoch, and the closing evaluation where it has one.

    `bytes_sent`, what they would be without compression (`bytes_uncompressed`), and apart from them `sample_bytes_sent`, are over
    all vertices and epochs. `accuracy` and `accuracy_sd` are over vertices: of the closing evaluation, else of the last
    evaluated epoch.
    """
    facts, graph, config = run.facts, run.graph, run.config
    rows = epochs(run)
    names = ("model", "parameters", "data", "mpi", "ranks", "threads", "algorithm", "started")
    figures = {name: facts.get(name) for name in names}
    figures["algorithm"] = figures["algorithm"] or config.get("algorithm", {}).get("name")
    figures |= {"run": run.path.stem if run.path.is_file() else run.path.resolve().name, "vertices": graph["n"]}
    figures |= {name: graph[name] for name in ("spec", "weights", "lambda2_modulus", "spectral_gap")}
    figures |= {"steps": len(run.steps("step")), "epochs": len(rows), "complete": run.complete}
    if rows:
        evaluated = [row for row in rows if not np.isnan(row["accuracy"])]
        last = evaluated[-1] if evaluated else rows[-1]
        figures |= {name: rows[-1][name] for name in ("loss", "consensus_distance", "seconds")}
        figures["bytes_sent"] = sum(row["bytes_sent"] for row in rows)
        if run.has("epochs", "bytes_uncompressed"):
            figures["bytes_uncompressed"] = int(run.epochs("bytes_uncompressed").sum())
        figures["sample_bytes_sent"] = int(run.epochs("sample_bytes_sent").sum())
        figures |= {name: last[name] for name in ("accuracy", "accuracy_sd", "mean_accuracy")}
    if run.closing:
        figures["accuracy"], figures["accuracy_sd"] = mean_sd(run.closing["accuracy"])
        figures["accuracy_min"], figures["accuracy_max"] = (float(f(run.closing["accuracy"])) for f in (np.min, np.max))
        figures["closing_loss"], figures["closing_loss_sd"] = mean_sd(run.closing["loss"])
        names = ("mean_accuracy", "mean_accuracy_recalibrated", "best_epoch", "samples", "split")
        figures |= {name: run.closing[name] for name in names}
    return figures


def _mean_of_trained(losses):
    trained = losses[~np.isnan(losses)]
    return float(trained.mean()) if len(trained) else float("nan")


def header(f):
    """Return the lines that say what was run, from a `summary`."""
    graph = f"{f['spec']}: {f['vertices']} vertices, {f['weights']} weights"
    lines = [
        f"run        {f['run']}" + (f", started {f['started']}" if f["started"] else ""),
        f"graph      {graph}, |lambda_2| = {f['lambda2_modulus']:.4f}",
        f"data       {_text(f['data'])}",
        f"model      {_text(f['model'])}, {_count(f['parameters'])} parameters",
        f"algorithm  {_text(f['algorithm'])}",
        f"runs on    ranks x threads: {_text(f['ranks'])} x {_text(f['threads'])}; {_text(f['mpi'])}",
    ]
    if not f["complete"]:
        lines.append(f"incomplete: the log ends after step {f['steps']}, epoch {f['epochs']}")
    return lines


def epoch_cells(row):
    """Return the texts of one epoch's line, as EPOCH heads them."""
    return [
        str(row["epoch"]), number(row["loss"], ".4f"), accuracy_text(row["accuracy"], row["accuracy_sd"]),
        accuracy_text(row["mean_accuracy"]), number(row["consensus_distance"], ".3g"),
        number(row["samples_per_s"], ".0f"), number(row["bytes_sent"] / 1e6, ".1f"), number(row["seconds"], ".1f"),
    ]  # fmt: skip


def closing_rows(f):
    """Return the (name, text) pairs of the closing table, from a `summary`; none without a closing evaluation."""
    if "split" not in f:
        return []
    rows = [
        ("evaluated", f"{f['samples']} samples of {f['split']}, every vertex"),
        ("accuracy %, mean +- sd over vertices", accuracy_text(f["accuracy"], f["accuracy_sd"])),
        ("accuracy %, lowest to highest", f"{100 * f['accuracy_min']:.2f} to {100 * f['accuracy_max']:.2f}"),
        ("accuracy %, mean model", accuracy_text(f["mean_accuracy"])),
    ]
    if not np.isnan(f["mean_accuracy_recalibrated"]):
        rows.append(("accuracy %, mean model, batch norm recalibrated", accuracy_text(f["mean_accuracy_recalibrated"])))
    rows.append(("loss, mean +- sd over vertices", _pair(f["closing_loss"], f["closing_loss_sd"], ".4f")))
    rows.append(("best epoch", str(f["best_epoch"])))
    sent, plain = f.get("bytes_sent"), f.get("bytes_uncompressed")
    if sent and plain and sent != plain:
        rows.append(("MB sent, and uncompressed / sent", f"{sent / 1e6:.1f}, {plain / sent:.3g}"))
    return rows


def text(runs, form, last=0):
    """Return the report in a format of tabletext.FORMATS but `table`; `last`: how many epochs, 0 for all.

    markdown, latex: the tables of `show`. csv: a row an epoch of one run, a row a run of several, in full precision.
    json: a list of one `summary` a run, with its `epochs` under "epoch_rows". No figure: an empty field, null.
    """
    if form == "json":
        return tabletext.records([summary(run) | {"epoch_rows": epochs(run)[-last:]} for run in runs], form)
    if form == "csv":
        return tabletext.records(epochs(runs[0])[-last:] if len(runs) == 1 else [summary(run) for run in runs], form)
    made = tabletext.TEXTS[form]
    if len(runs) > 1:
        return "\n".join(made(RUNS, [run_cells(summary(run)) for run in runs]))
    figures = summary(runs[0])
    mark = {"markdown": "- ", "latex": "% "}[form]
    tables = [[mark + " ".join(line.split()) for line in header(figures)]]
    tables.append(made(EPOCH, [epoch_cells(row) for row in epochs(runs[0])[-last:]]))
    if closing := closing_rows(figures):
        tables.append(made(["closing evaluation", ""], closing))
    return "\n\n".join("\n".join(lines) for lines in tables)


def show(runs, stream=None, last=10):
    """Print the table of one run, or one row a run of several; `last`: how many epochs, 0 for all.

    On a terminal with frames, else as plain aligned lines. `stream` defaults to standard output.
    """
    from rich.console import Console

    console = Console(file=stream, highlight=False, soft_wrap=True)
    if len(runs) > 1:
        _print(console, RUNS, [run_cells(summary(run)) for run in runs])
        return
    figures, rows = summary(runs[0]), epochs(runs[0])
    for line in header(figures):
        console.print(line, markup=False)
    if rows:
        console.print()
        _print(console, EPOCH, [epoch_cells(row) for row in rows[-last:]])
    if closing := closing_rows(figures):
        console.print()
        _print(console, ["closing evaluation", ""], closing)


def run_cells(f):
    """Return the texts of one run's row, as RUNS heads them."""
    return [
        f["run"], f["spec"], f"{f['lambda2_modulus']:.4f}", _text(f["algorithm"]), _text(f["data"]), _text(f["model"]),
        str(f["epochs"]) + ("" if f["complete"] else " (incomplete)"), number(f.get("loss"), ".4f"),
        accuracy_text(f.get("accuracy"), f.get("accuracy_sd")), accuracy_text(f.get("mean_accuracy")),
        number(f.get("consensus_distance"), ".3g"), number(f.get("bytes_sent", 0) / 1e6, ".1f"),
        number(f.get("seconds"), ".1f"),
    ]  # fmt: skip


def accuracy_text(mean, sd=None):
    """Return fractions as percent, '92.05 +- 0.09'; '-' where there is none."""
    return _pair(*(None if value is None else 100 * value for value in (mean, sd)), ".2f")


def _print(console, heads, rows):
    if not console.is_terminal:
        for line in tabletext.plain(heads, rows):
            console.print(line, markup=False)
        return
    from rich.table import Table

    table = Table()
    for i, head in enumerate(heads):
        table.add_column(head, justify="right" if i else "left")
    for cells in rows:
        table.add_row(*cells)
    console.print(table, soft_wrap=False)


def _pair(mean, sd, form):
    text = number(mean, form)
    return text if text == "-" or sd is None or np.isnan(sd) else f"{text} +- {sd:{form}}"


def number(value, form):
    """Return a number in a format, "-" for None and NaN."""
    return "-" if value is None or np.isnan(value) else f"{value:{form}}"


def _count(value):
    return "-" if value is None else f"{value:,}"


def _text(value):
    return "-" if value is None or value == "" else str(value)
