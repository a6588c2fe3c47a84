"""Write the reference pages of this folder from the code: job keys, log layout, algorithms, command line.

    python docs/reference.py

tests/test_docs.py compares the pages with what this makes, byte for byte.
"""

import sys
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # from a checkout, installed or not

from mpiconsensus import cli, config, description, runlog, topology
from mpiconsensus.algorithms import REGISTRY
from mpiconsensus.cli import lists
from mpiconsensus.topology import files

MADE = "This page is made from the code by `python docs/reference.py`; do not edit it by hand.\n"
GROUPS = {
    "steps": "One row a step.",
    "epochs": "One row an epoch.",
    "network": "One row an epoch; rank 0's file has it.",
    "ages": "How old the rows were that asynchronous vertices mixed, over the whole run; all 0 where rounds are synchronous.",
    "closing": "One row: the evaluation at the end of the run, on the whole test set. It is absent from a run that did not end.",
}


def table(heads, rows):
    """Return a Markdown table; a bar in a cell is escaped."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def code(text):
    return f"`{text}`"


def job_keys():
    """Return the page of every key of a job, and of the graphs."""
    text = f"# Job keys\n\n{MADE}\n`mpiconsensus config` prints the same list; a key that a job does not name has its default.\n"
    for name in config.TABLES:
        keys = [key for key in config.KEYS if key.name.startswith(f"{name}.")]
        text += f"\n## [{name}]\n\n" + table(["key", "type", "default", "meaning"], [_key_row(key) for key in keys])
    text += "\n## Graphs\n\nThe forms of `topology.graph`; without its size a graph takes one vertex a rank.\n\n"
    text += table(["form", "parameters", "graph", "kind"], [_graph_row(form) for form in topology.FORMS.values()])
    text += f"""
`directed`: edges are arcs, from sender to receiver. `changing`: a graph for each exchange, a function of (seed, k).
`seeded`: drawn from `topology.seed`. Every graph is connected (directed: strongly; changing: the union of its graphs), has
at most {topology.MAX_VERTICES:,} vertices and {topology.MAX_EDGES:,} edges; training takes at most {topology.DENSE_VERTICES:,} vertices.

## Graph files

[Choosing a graph](choose-a-graph.md#graph-files) shows them.

"""
    rows = [[code(suffix) if suffix.startswith(".") else suffix, meaning, f"{size}"] for suffix, (meaning, size) in files.FORMATS.items()]
    return text + table(["suffix", "file", "at most, MB"], rows)


def _graph_row(form):
    kinds = [word for word in ("directed", "changing", "seeded") if getattr(form, word)]
    return [code(form.example), code(form.parameters), form.meaning, ", ".join(kinds)]


def _key_row(key):
    meaning = key.help
    if key.choices:
        meaning += f". One of {', '.join(map(code, key.choices))}"
    bounds = [f"{word} {bound:g}" for word, bound in (("at least", key.low), ("at most", key.high)) if bound is not None]
    if bounds:
        meaning += f". {' and '.join(bounds).capitalize()}"
    return [code(key.name), lists._kind(key), code(config.toml_value(key.default)), meaning]


def log_layout():
    """Return the page of every column of the log, with its unit."""
    text = f"""# Log layout

{MADE}
A run's log is `run.h5` in its directory, HDF5, assembled from one file a rank in `log/`: after flushes while the run goes on,
at its end, and by whoever reads a log that was cut.
[Reading a log](read-a-log.md) shows how to get at it. n vertices, K steps, E epochs; every dataset carries its unit
and description as attributes.

`/` has the attributes `format` = "{runlog.FORMAT}", `format_version` = {runlog.VERSION} and `complete` (1: every rank came to its end).

| dataset | holds |
| --- | --- |
| `/config/toml` | the resolved job, TOML |
| `/config/facts` | versions, hosts, command and figures of the run, JSON |
| `/graph` | attributes `n`, `lambda2_modulus` (of a changing graph the factor an exchange), `spectral_gap`, `spec`, `weights`, `directed`, `changing` |
| `/graph/edges` | (edges, 2), pairs of vertices; directed: arcs (sender, receiver); changing: of all exchanges |
| `/graph/W` | (n, n) mixing matrix, row = receiver, of a changing graph its average over the exchanges; past {description.DENSE} vertices `/graph/W_triplets/rows`, `columns`, `weights` |
| `/data` | attribute `partition` |
| `/data/labels` | (n, classes) {description.LABELS}; absent where old shards do not say |
| `/data/skew` | (n,) {description.SKEW} |
| `/vertices` | (n,) vertices of the columns, in order |
| `/rank_of_vertex` | (n,) rank that hosted the vertex |
"""
    for group, meaning in GROUPS.items():
        rows = [_column_row(column) for column in runlog.COLUMNS if column.group == group]
        text += f"\n## /{group}\n\n{meaning}\n\n" + table(["dataset", "shape", "unit", "meaning"], rows)
    return text


def _column_row(column):
    length = {"steps": "K", "closing": "", "ages": str(runlog.AGES)}.get(column.group, "E")
    shape = ", ".join(filter(None, [length, "n" if column.vertex else ""]))
    return [code(f"/{column.group}/{column.name}"), (f"({shape})" if "," in shape else f"({shape},)") if shape else "number", column.unit, column.meaning]


def algorithms():
    """Return the page of the algorithms."""
    rows = [[code(name), code(cls.formula), ", ".join(map(code, cls.orders)), cls.reference] for name, cls in REGISTRY.items()]
    text = f"# Algorithms\n\n{MADE}\n`mpiconsensus algorithms` prints the same; [choosing an algorithm](choose-an-algorithm.md) says when to take which.\n\n"
    return text + table(["algorithm.name", "formula", "algorithm.order", "reference"], rows)


def compressors():
    """Return the page of the compressors."""
    rows = [[code(row[0]), row[5], *row[1:5]] for row in lists.compressor_rows((), 1_000_000)]
    text = f"""# Compressors

{MADE}
`mpiconsensus compressors` prints the same for any size; [compression](compression.md) says how to choose. Here for a vector
of 1,000,000 elements. Unbiased: E|C(x)|^2 <= zeta |x|^2; contractive: E|C(x) - x|^2 <= (1 - alpha) |x|^2. Bits are by
formula, a float having 32; the share is of the 32 bits an element that no compression sends.

"""
    return text + table(["compressor", "C(x)", "class", "constant", "bits", "share"], rows)


def command_line():
    """Return the page of the commands and their options."""
    text = f"# Command line\n\n{MADE}"
    for name, command in _commands():
        arguments = [p for p in command.params if isinstance(p, click.Argument)]
        words = " ".join(p.metavar or (p.name.upper() if p.required else f"[{p.name.upper()}]") for p in arguments)
        text += f"\n## {f'mpiconsensus {name} {words}'.strip()}\n\n" + " ".join(command.help.split()) + "\n"
        rows = [_option_row(p) for p in command.params if isinstance(p, click.Option)]
        text += "\n" + table(["option", "default", "meaning"], rows) if rows else ""
    return text + EXIT_CODES


def _commands():
    """Yield (name, command) of every command, those of a group under its own."""
    for name in cli.COMMANDS:
        command = cli.group.get_command(None, name)
        yield name, command
        yield from ((f"{name} {word}", below) for word, below in getattr(command, "commands", {}).items())


def _option_row(option):
    kind = "|".join(option.type.choices) if isinstance(option.type, click.Choice) else option.type.name.split()[0].upper()
    value = "" if option.is_flag else f" {option.metavar or kind}"
    default = code(option.default) if option.show_default else ""
    return [code(option.opts[0] + value), default, option.help]


EXIT_CODES = """
## Exit codes

| code | means |
| --- | --- |
| 0 | done |
| 1 | a defect of the program |
| 2 | a mistake in what was given; one line on standard error says what, and nothing was trained |
| 3 | a run that could not go on: a loss that is not finite, a full disk; its log is kept |
| 75 | stopped by a signal, behind a checkpoint: `--resume` goes on ([stop, resume, requeue](checkpoints.md)) |
| 130 | interrupted before training began |
"""

PAGES = {"job-keys": job_keys, "log-layout": log_layout, "algorithms": algorithms, "compressors": compressors, "command-line": command_line}


def main():
    for name, page in PAGES.items():
        (Path(__file__).parent / f"{name}.md").write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
