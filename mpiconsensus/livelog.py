"""The log of a run as it stands, flushed or not, for those who look on: nothing is written and little is read.

n vertices, K steps, E epochs.
"""

from pathlib import Path

import numpy as np

from mpiconsensus import merging, runlog, runread
from mpiconsensus.errors import UserError

LAST = 200  # steps at the end that are read
READ = {"steps": ("step", "loss", "io_s", "compute_s", "wait_s", "mix_s"),
        "epochs": ("epoch", "step", "train_loss", "accuracy", "consensus_distance_vertex", "bytes_sent", "samples")}  # fmt: skip


def look(run_dir):
    """Return the log of a run directory: a Run where run.h5 is up to date, else a Live; None while nothing is logged.

    Raise UserError for files that cannot be read.
    """
    run_dir = Path(run_dir)
    if not merging.stale(run_dir):
        return runread.Run(run_dir) if (run_dir / "run.h5").exists() else None
    paths = merging.rank_files(run_dir)
    with merging.open_log(paths[0]) as first:
        begun = "graph" in first and "network" in first
    return Live(run_dir, paths) if begun else None


class Live:
    """What the ranks' files hold at this moment, cut to the shortest; attributes and methods are those of a Run.

    Of the steps the last are there, of the columns those of READ.
    """

    def __init__(self, path, paths):
        self.path, self.complete = path, False
        try:
            self._read(paths)
        except (OSError, KeyError) as error:
            raise UserError(f"log {str(path / 'log')!r} is damaged ({error}); move the damaged rank file away.") from None

    def _read(self, paths):
        counts, hosted, ranks = [], [], []
        for path in paths:
            with merging.open_log(path) as file:
                counts.append(file["written" if "written" in file else "committed"][:4])
                hosted.append(file["vertices"][:])
                ranks.append(int(file.attrs["rank"]))
        order = np.argsort(np.concatenate(hosted))
        self.vertices = np.concatenate(hosted)[order]
        self.rank_of_vertex = np.repeat(ranks, [len(v) for v in hosted])[order]
        steps, epochs, _, closing = np.min(counts, axis=0).tolist()
        epochs = min(epochs, int(counts[0][2]))
        self.step, self.closing = steps, {}
        rows = {"steps": slice(max(0, steps - LAST), steps), "epochs": slice(0, epochs)}
        parts = []
        for path in paths:
            with merging.open_log(path) as file:
                part = {(group, name): file[group][name][rows[group]] for group, names in READ.items() for name in names}
                part["closing", "accuracy"] = file["closing/accuracy"][:]
                parts.append(part)
                if len(parts) == 1:
                    self.config, self.facts = runread.described(file)
                    self.graph = runread.figures_of(file["graph"])
                    self._network = {c.name: file["network"][c.name][:epochs] for c in runlog.columns("network")}
        of_vertices = {(c.group, c.name): c.vertex for c in runlog.COLUMNS}
        self._columns = {
            key: np.concatenate([part[key] for part in parts], axis=1)[:, order] if of_vertices[key] else parts[0][key] for key in parts[0]
        }
        if closing:
            self.closing = {"accuracy": self._columns["closing", "accuracy"][0]}

    def steps(self, name, last=0):
        """Return the end of a column of the steps: (LAST or `last` at most, n)."""
        return self._columns["steps", name][-last:]

    def epochs(self, name):
        """Return a column of the epochs: (E, n), or (E,) for `epoch` and `step`."""
        return self._columns["epochs", name]

    def network(self, name):
        """Return a column of the network's numbers: (E,)."""
        return self._network[name]

    def close(self):
        """Do nothing: the files are closed."""

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        self.close()
