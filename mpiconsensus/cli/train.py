"""mpiconsensus train."""

import gc

import click

from mpiconsensus import config, signals
from mpiconsensus.errors import UserError
from mpiconsensus.runtime import World


@click.command()
@click.argument("job", required=False)
@click.option("--set", "overrides", multiple=True, metavar="TABLE.KEY=VALUE", help="Override a key of the job; may be repeated.")
@click.option("--placement", metavar="NAME", help="Which rank hosts which vertex: short for --set placement.map=NAME.")
@click.option("--out", metavar="DIR", help="The run directory, which must not exist; default: a numbered one in log.directory.")
@click.option("--resume", "run", metavar="RUN|auto", help="Go on with the run of this directory, with its own job where none is given; auto: with the run in --out or log.name, and start it where there is none.")
@click.option("--virtual-clock", "virtual", is_flag=True, help="Run an asynchronous algorithm by modelled time, hundreds to thousands of vertices in one process: short for --set hetero.clock=virtual.")
@click.option("--dry-run", is_flag=True, help="Print the resolved job and what it costs; train nothing.")
def train(job, overrides, placement, out, run, virtual, dry_run):
    """Train one replica a vertex as the TOML file JOB says; without it, with every default.

    Under mpirun the vertices are spread over the ranks; in one process they all live here.
    """
    # Imports make half a million objects that stay: collections walk them over and over, an eighth of the start-up.
    gc.disable()
    told = signals.Signals()
    told.catch(signals.USER)
    world = World.start()
    if placement is not None:
        overrides = (*overrides, f"placement.map={placement}")
    if virtual:
        overrides = (*overrides, "hetero.clock=virtual")
    start = None
    if run is None or dry_run:
        settings = world.agree(config.load, job, overrides)
    else:
        from mpiconsensus import resume

        start = resume.begin(world, job, overrides, out, run)
        settings = start.job
        if start.finished:
            if world.rank == 0:
                click.echo(f"{start.directory} is finished: `mpiconsensus report {start.directory}`.")
            return
    kind = world.agree(_kind, settings, world)
    from mpiconsensus.data.source import open_source
    from mpiconsensus.placement import place
    from mpiconsensus.wiring import wire

    threads, warning = world.agree(world.threads, settings.training.threads)
    wiring = start.wiring(world) if start and start.found else wire(settings.topology, world)
    placed = place(settings.placement.map, world, wiring)
    source = world.agree(open_source, settings.data, wiring.n, settings.hetero.powers, settings.training.seed)
    if dry_run:
        from mpiconsensus import cost

        cost.show(settings, world, wiring, source, placed)
        return
    if warning and world.rank == 0:
        click.echo(f"warning: {warning}", err=True)
    from mpiconsensus import run as runs

    gc.freeze()
    gc.enable()
    runs.train(settings, world, wiring, source, threads, out, placed, start, told, _session(kind))


def _kind(job, world):
    """Return "synchronous", "asynchronous" or "virtual"; UserError where a run cannot go by modelled time."""
    from mpiconsensus.algorithms import REGISTRY

    asynchronous = REGISTRY[job.algorithm.name].asynchronous
    if job.hetero.clock != "virtual":
        return "asynchronous" if asynchronous else "synchronous"
    if not asynchronous:
        names = ", ".join(name for name, cls in REGISTRY.items() if cls.asynchronous)
        raise UserError(f"hetero.clock = virtual is for asynchronous algorithms ({names}), this job has {job.algorithm.name}; take machine, or leave --virtual-clock out.")
    if world.size > 1:
        raise UserError(f"hetero.clock = virtual hosts all vertices in one process, {world.size} ranks were started; start one, without mpirun.")
    return "virtual"


def _session(kind):
    """Return the class of the session of a run, None for the synchronous one."""
    if kind == "synchronous":
        return None
    from mpiconsensus.asynchronous import session

    return session.VirtualSession if kind == "virtual" else session.AsyncSession
