"""What there is of a sweep, and its directory: made once, taken up by the same sweep alone."""

import os

from mpiconsensus import config, rundirectory, slurm, sweepdirectory
from mpiconsensus.errors import UserError


def check(sweep):
    """Raise UserError, with nothing written, unless every run's graph and data are there and ROOT is free or this sweep's."""
    from mpiconsensus import topology, weights
    from mpiconsensus.data.source import open_source

    seen = {}
    for run in sweep.runs:
        table = run.job.topology
        wanted = (table.graph, table.seed, table.weights)
        try:
            if wanted not in seen:
                seen[wanted] = topology.net(table.graph, 4, table.seed)
                topology.require_dense(seen[wanted])
                weights.resolve(seen[wanted], table.weights)
            open_source(run.job.data, seen[wanted].n, run.job.hetero.powers, run.job.training.seed)
        except UserError as error:
            raise UserError(f"run {run.name}: {error}") from None
    _check_root(sweep)
    return {run.name: seen[run.job.topology.graph, run.job.topology.seed, run.job.topology.weights].n for run in sweep.runs}


def _check_root(sweep):
    root = sweep.root
    another = "give another place (--out DIR), or move it away"
    if not root.exists():
        return
    if not root.is_dir():
        raise UserError(f"{str(root)!r} is a file; {another}.")
    if not sweepdirectory.is_sweep(root):
        if any(path.name != f"{sweepdirectory.INDEX}.new" for path in root.iterdir()):
            raise UserError(f"{str(root)!r} is there already and holds no sweep; {another}.")
        return
    stored = sweepdirectory.read(root)
    common = [run for run in sweep.runs if run.name in stored["runs"] and sweepdirectory.job_file(root, run.name).is_file()]
    if stored["name"] != sweep.name or not common:
        what = f"called {stored['name']!r}" if stored["name"] != sweep.name else f"with other runs ({stored['runs'][0]}, ...)"
        raise UserError(f"{str(root)!r} holds another sweep, {what}; {another}.")
    from mpiconsensus import resume

    for run in common:
        resume.compare(config.load(sweepdirectory.job_file(root, run.name)), run.job, root / run.name)


def prepare(sweep):
    """Make ROOT, or take it up, with the jobs of all runs; runs that the sweep had before stay listed."""
    root = sweep.root
    try:
        root.mkdir(parents=True, exist_ok=True)
        before = sweepdirectory.read(root) if sweepdirectory.is_sweep(root) else {"runs": [], "arrays": []}
        names = [run.name for run in sweep.runs]
        sweepdirectory.write(root, sweep.name, names + [name for name in before["runs"] if name not in names], before["arrays"])
        for folder in sweepdirectory.RESERVED:
            (root / folder).mkdir(exist_ok=True)
        for run in sweep.runs:
            path = sweepdirectory.job_file(root, run.name)
            aside = path.with_name(f".{path.name}.new")
            aside.write_text(run.job.to_toml())
            os.replace(aside, path)
    except OSError as error:
        raise UserError(f"the directory of the sweep cannot be made: {error}; give a writable place with room (--out DIR).") from None


def done(sweep, run):
    """Return whether a run came to the end that its job asks for."""
    directory = sweep.root / run.name
    return rundirectory.finished(directory) and _length(config.load(directory / "job.toml")) == _length(run.job)


def queued(sweep):
    """Return the names of the runs that wait or run as tasks of an array filed before, as far as Slurm tells."""
    tasks = {run.name: sweepdirectory.filed(sweep.root / run.name)[0] for run in sweep.runs}
    known = slurm.states(tasks.values())
    return {name for name, task in tasks.items() if known.get(task) in slurm.WAITING | slurm.RUNNING}


def _length(job):
    return job.training.epochs, job.training.max_steps
