"""A sweep file and its expansion: a base job, a grid (the product of its lists) and a list of [[run]] (a product with the grid)."""

import itertools
import re
from pathlib import Path
from typing import NamedTuple

from mpiconsensus import config, sweepdirectory
from mpiconsensus.errors import UserError, did_you_mean
from mpiconsensus.sweep import naming

TOP = ("base", "name", "set", "grid", "run")
OURS = ("log.name", "log.directory")  # the sweep says where its runs lie
LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=-]*")


class Planned(NamedTuple):
    """A run: its name; values of the keys that vary, {key: value}; its Job."""

    name: str
    values: dict
    job: config.Job


class Sweep(NamedTuple):
    """name; root: directory of the runs; runs: list of Planned, the last key of the file varies fastest."""

    name: str
    root: Path
    runs: list


def read(path, overrides=(), out=None, ranks=None):
    """Return the Sweep of the TOML file `path`, with `table.key=value` overrides for all runs; UserError for whatever is wrong.

    out: its directory; default: log.directory/name. ranks: vertices of a graph that is given without its size; default 4.
    """
    path = Path(path)
    tables = config.read_toml(path, "sweep file")
    base, fixed, grid, entries = _parts(tables, path)
    fixed |= _given(overrides, grid, entries)
    job = base.replace(**{_word(key): value for key, value in fixed.items()})
    title = _label(tables.get("name", path.stem), path, "name")
    runs = [_planned(job, name, values, ranks or 4, path) for name, values in expand(grid, entries)]
    _refuse_twice(runs, path)
    return Sweep(title, Path(out) if out is not None else Path(job.log.directory) / title, runs)


def expand(grid, entries):
    """Return the (name, values) of every run: each entry, a pair of (values, label), with each combination of the grid's lists.

    A label stands in the name in place of its entry's keys.
    """
    combinations = [dict(zip(grid, chosen, strict=True)) for chosen in itertools.product(*grid.values())]
    return [
        (naming.name(chosen if label else values | chosen, label), values | chosen)
        for values, label in entries or [({}, "")]
        for chosen in combinations
    ]


def _parts(tables, path):
    """Return (base job, {key: value} for all runs, {key: list}, entries) of the tables of a sweep file, checked."""
    for word in tables:
        if word in config.TABLES:
            raise UserError(f"{path}: [{word}] is a table of a job, not of a sweep; train a job with `mpiconsensus train {path}`, or write \"{word}.KEY\" under [set] or [grid].")
        if word not in TOP:
            raise UserError(f"{path}: unknown {word!r}; a sweep has {', '.join(TOP)}.{did_you_mean(word, TOP)}")
    if not config.SWEEPS & tables.keys():
        raise UserError(f"{path}: a sweep needs [grid], with a list a key, or [[run]], a table a run; a job is trained by `mpiconsensus train`.")
    base = tables.get("base")
    if base is not None and not isinstance(base, str):
        raise UserError(f"{path}: base = {config.toml_value(base)}; give the path of a job file, relative to the sweep file.")
    base = config.load(None if base is None else path.parent / base)
    fixed = _values(tables.get("set", {}), path, "set")
    grid = _grid(_values(tables.get("grid", {}), path, "grid", lists=True), path)
    entries = _entries(tables.get("run", []), path)
    for key in grid:
        elsewhere = "[set]" if key in fixed else "a [[run]]" if any(key in values for values, _ in entries) else ""
        if elsewhere:
            raise UserError(f"{path}: {key} stands in [grid] and in {elsewhere}; write it once.")
    return base, fixed, grid, entries


def _values(table, path, place, lists=False):
    """Return {key: value} of a table whose keys are "table.key", quoted or not; checked, but for lists of them."""
    if not isinstance(table, dict):
        raise UserError(f"{path}: {place} is not a table; write [{place}] and a line a key under it.")
    flat = {}
    for word, value in table.items():
        flat |= {f"{word}.{last}": v for last, v in value.items()} if isinstance(value, dict) else {word: value}
    try:
        found = {config.find(word).name: value if lists else config.check(config.find(word), value) for word, value in flat.items()}
    except UserError as error:
        raise UserError(f"{path}: [{place}]: {error}") from None
    for key in found:
        if key in OURS and (key, place) != ("log.directory", "set"):
            raise UserError(f"{path}: [{place}]: {key} is not for a sweep to say, which names its runs itself; set their place with log.directory under [set], or --out.")
    return found


def _grid(lists, path):
    checked = {}
    for name, values in lists.items():
        if not isinstance(values, list):
            raise UserError(f"{path}: [grid]: {name} = {config.toml_value(values)} is not a list; give one, or write the key under [set].")
        if not values:
            raise UserError(f"{path}: [grid]: the list of {name} is empty; give at least one value.")
        try:
            checked[name] = [config.check(config.find(name), value) for value in values]
        except UserError as error:
            inner = " Here a value is a list itself: [[64], [64, 64]]." if isinstance(config.find(name).default, list) else ""
            raise UserError(f"{path}: [grid]: {error}{inner}") from None
        for i, value in enumerate(checked[name]):
            if value in checked[name][:i]:
                raise UserError(f"{path}: [grid]: {name} has {config.toml_value(value)} twice; give each value once.")
    return checked


def _entries(tables, path):
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise UserError(f"{path}: run is not a list of tables; write [[run]] ahead of the keys of each.")
    made = []
    for number, table in enumerate(tables, 1):
        place = f"run {number}"
        label = _label(table["label"], path, f"{place}: label") if "label" in table else ""
        values = _values({word: value for word, value in table.items() if word != "label"}, path, place)
        if not values and not label:
            raise UserError(f"{path}: [[run]] number {number} is empty; give it a key, or a label.")
        made.append((values, label))
    return made


def _label(text, path, what):
    if not isinstance(text, str) or not LABEL.fullmatch(text) or text in sweepdirectory.RESERVED or len(text) > naming.LONGEST:
        raise UserError(
            f"{path}: {what} = {config.toml_value(text)} cannot be a directory's name here; take letters, digits, and . _ + = - within, "
            f"at most {naming.LONGEST}, and neither {' nor '.join(sweepdirectory.RESERVED)}."
        )
    return text


def _given(overrides, grid, entries):
    """Return {key: value} of the command line's --set."""
    found = dict(map(config.override, overrides))
    for key in found:
        if key in grid or any(key in values for values, _ in entries):
            raise UserError(f"--set {key}: the sweep varies this key; change its values in the sweep file.")
        if key == "log.name":
            raise UserError("--set log.name: a sweep names its runs itself; give its place with --out.")
    return found


def _planned(job, name, values, vertices, path):
    from mpiconsensus import topology

    made = job.replace(**{_word(key): value for key, value in values.items()})
    try:
        # On any number of ranks the runs of a sweep are those of one graph.
        made = made.replace(topology__graph=topology.expand(made.topology.graph, vertices))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return Planned(name, values, made)


def _refuse_twice(runs, path):
    jobs, names = {}, {}
    for run in runs:
        same = jobs.setdefault(tuple(config.toml_value(run.job.get(key.name)) for key in config.KEYS), run)
        if same is not run:
            raise UserError(f"{path}: runs {same.name} and {run.name} are the same job twice; leave one out.")
        if names.setdefault(run.name.casefold(), run) is not run:
            raise UserError(f"{path}: two runs would be called {run.name}; tell them apart by the label of their [[run]].")


def _word(key):
    return key.replace(".", "__", 1)
