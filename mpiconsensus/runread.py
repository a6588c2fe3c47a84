"""The log of a run, read: `Run` gives access to run.h5, made anew where the ranks' files have more.

n vertices, K steps, E epochs.
"""

import json
import tomllib
from pathlib import Path

import h5py
import numpy as np

from mpiconsensus import runlog
from mpiconsensus.errors import UserError, did_you_mean
from mpiconsensus.merging import assemble, merge, open_log, rank_files, stale


def rows(run_dir, world, vertices, counts):
    """Return {group: {column: values}} of the first counts[group] rows of RUN/log, columns in order of `vertices`; collective.

    `vertices` are those that this rank hosts, wherever they were hosted when the rows were written; the network's
    numbers come on rank 0. UserError where the log is damaged or shorter.
    """
    whose = world.bcast(world.agree(_whose, run_dir) if world.rank == 0 else world.agree(lambda: None))
    return world.agree(_rows, whose, run_dir, list(vertices), counts, world.rank == 0)


def own_rows(path, first, last):
    """Return {column: rows first to last - 1} of the steps in a rank's own file, flushed before; local."""
    with open_log(path) as file:
        return {column.name: file["steps"][column.name][first:last] for column in runlog.columns("steps")}


def _whose(run_dir):
    """Return {name of a rank's file: its vertices}, rank 0's first."""
    whose = {}
    for path in rank_files(Path(run_dir)):
        with open_log(path) as file:
            whose[path.name] = file["vertices"][:].tolist()
    return whose


def _rows(whose, run_dir, vertices, counts, network):
    place, found = {vertex: i for i, vertex in enumerate(vertices)}, {}
    lost = set(vertices) - {vertex for hosted in whose.values() for vertex in hosted}
    if lost:
        raise UserError(f"the log of {str(run_dir)!r} has no file for vertex {min(lost)}; put back what was moved from its log/.")
    for number, (name, hosted) in enumerate(whose.items()):
        own = [(j, place[vertex]) for j, vertex in enumerate(hosted) if vertex in place]
        alone = network and number == 0
        if not own and not alone:
            continue
        path = Path(run_dir) / "log" / name
        try:
            with open_log(path) as file:
                if (file["committed"][:3] < [counts["steps"], counts["epochs"], counts["network"] if alone else 0]).any():
                    raise UserError(f"{str(path)!r} ends ahead of the checkpoint; put back the file that was there.")
                for group in counts:
                    for column in runlog.columns(group, alone):
                        _take(file, column, counts[group], own, len(vertices), found)
        except (OSError, KeyError) as error:
            raise UserError(f"{str(path)!r} is damaged ({error}); the run cannot go on without it.") from None
    return found


def _take(file, column, count, own, m, found):
    """Copy the first `count` rows of a column of one file to where its vertices belong in `found`."""
    columns = found.setdefault(column.group, {})
    if column.name not in file[column.group] and column.dtype == "<f8":  # logs of earlier versions lack some
        columns.setdefault(column.name, np.full((count, m) if column.vertex else count, np.nan))
        return
    values = file[column.group][column.name][:count]
    if not column.vertex:
        columns.setdefault(column.name, values)
        return
    target = columns.setdefault(column.name, np.zeros((count, m), column.dtype))
    for source, at in own:
        target[:, at] = values[:, source]


def described(file):
    """Return (config, facts) of a run.h5 or of rank 0's file."""
    return tomllib.loads(file["config/toml"].asstr()[()]), json.loads(file["config/facts"].asstr()[()])


def figures_of(graph):
    """Return the attributes of /graph as a dict of plain values."""
    return {k: plain(v) for k, v in graph.attrs.items()}


class Run:
    """Read access to one run: a run directory or a run.h5; log/ is assembled where run.h5 is missing or stale.

    Attributes: `config` (dict), `facts` (dict), `graph` (dict), `data` (dict), `vertices` (n,), `rank_of_vertex` (n,),
    `closing` (dict, empty without a closing evaluation), `ages` ((AGES, n) rows mixed at each age, None in logs of earlier
    versions), `complete` (bool), `step` (steps in the log), `path`.
    """

    def __init__(self, path):
        self.path = Path(path)
        self._file = _open_run(self.path)
        file = self._file
        self.complete = bool(file.attrs["complete"])
        self.config, self.facts = described(file)
        self.step = len(file["steps/step"])
        self.vertices, self.rank_of_vertex = file["vertices"][:], file["rank_of_vertex"][:]
        self.graph = figures_of(file["graph"])
        self.graph["edges"] = file["graph/edges"][:]
        self.graph["W"] = file["graph/W"][:] if "W" in file["graph"] else None
        if "W_triplets" in file["graph"]:
            self.graph["triplets"] = tuple(file[f"graph/W_triplets/{k}"][:] for k in ("rows", "columns", "weights"))
        data = file.get("data")
        self.data = {} if data is None else {**data.attrs, **{k: data[k][:] for k in data}}
        self.ages = file["ages/rows"][:] if "ages" in file else None
        self.closing = {k: plain(v[()]) for k, v in file.get("closing", {}).items()}

    def steps(self, name, last=0):
        """Return a column of the steps: (K, n), or (K,) for `step`; `last`: of so many at the end, 0 for all."""
        return self._column("steps", name, last)

    def epochs(self, name):
        """Return a column of the epochs: (E, n), or (E,) for `epoch` and `step`."""
        return self._column("epochs", name)

    def network(self, name):
        """Return a column of the network's numbers: (E,)."""
        return self._column("network", name)

    def close(self):
        """Close the file; the attributes stay."""
        self._file.close()

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        self.close()

    def has(self, group, name):
        """Return whether a column is there: logs of earlier versions lack some."""
        return name in self._file[group]

    def _column(self, group, name, last=0):
        if name not in self._file[group]:
            known = [c.name for c in runlog.columns(group) if c.name in self._file[group]]
            hint = did_you_mean(name, known)
            raise UserError(f"{group} has no column {name!r}; it has {', '.join(known)}.{hint}")
        return self._file[group][name][-last:]


def plain(value):
    """Return a value of the log as Python's, or an array as it is."""
    return value.decode() if isinstance(value, bytes) else value.item() if isinstance(value, np.generic) else value


def _open_run(path):
    if not path.exists():
        raise UserError(f"run {str(path)!r} does not exist; give a run directory, as made by `mpiconsensus train`.")
    if path.is_file() and path.name == "run.h5" and rank_files(path.parent):
        path = path.parent
    if path.is_file():
        return open_log(path)
    sources, made = rank_files(path), path / "run.h5"
    if not sources and not made.exists():
        raise UserError(
            f"{str(path)!r} is not a run directory: it holds neither run.h5 nor log/rank-*.h5; "
            "give one made by `mpiconsensus train`."
        )
    if stale(path):
        try:
            assemble(path)
        except OSError:  # a directory that cannot be written is read all the same
            memory = h5py.File("run.h5 in memory", "w", driver="core", backing_store=False)
            merge(sources, memory)
            return memory
    return open_log(made)


def over_ranks(run, values):
    """Return the ranks and the sums of (K, n) or (n,) values over the vertices of each: (K, ranks) or (ranks,).

    Time that a rank spends on all its vertices together is shared out over them in the log; what it spends on one after the
    other follows one another: the sum is the rank's time.
    """
    ranks, column = np.unique(run.rank_of_vertex, return_inverse=True)
    out = np.zeros((*np.shape(values)[:-1], len(ranks)))
    np.add.at(out.T, column, np.nan_to_num(values).T)
    return ranks, out
