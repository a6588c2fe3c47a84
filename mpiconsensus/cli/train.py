"""mpiconsensus train."""

import gc

import click

from mpiconsensus import config
from mpiconsensus.runtime import World


@click.command()
@click.argument("job", required=False)
@click.option("--set", "overrides", multiple=True, metavar="TABLE.KEY=VALUE", help="Override a key of the job; may be repeated.")
@click.option("--placement", metavar="NAME", help="Which rank hosts which vertex: short for --set placement.map=NAME.")
@click.option("--out", metavar="DIR", help="The run directory, which must not exist; default: a numbered one in log.directory.")
@click.option("--dry-run", is_flag=True, help="Print the resolved job and what it costs; train nothing.")
def train(job, overrides, placement, out, dry_run):
    """Train one replica a vertex as the TOML file JOB says; without it, with every default.

    Under mpirun the vertices are spread over the ranks; in one process they all live here.
    """
    # Imports make half a million objects that stay: collections walk them over and over, an eighth of the start-up.
    gc.disable()
    world = World.start()
    if placement is not None:
        overrides = (*overrides, f"placement.map={placement}")
    settings = world.agree(config.load, job, overrides)
    from mpiconsensus.data.source import open_source
    from mpiconsensus.placement import place
    from mpiconsensus.wiring import wire

    threads, warning = world.agree(world.threads, settings.training.threads)
    wiring = wire(settings.topology, world)
    placed = place(settings.placement.map, world, wiring)
    source = world.agree(open_source, settings.data, wiring.n, settings.hetero.powers, settings.training.seed)
    if dry_run:
        from mpiconsensus import cost

        cost.show(settings, world, wiring, source, placed)
        return
    if warning and world.rank == 0:
        click.echo(f"warning: {warning}", err=True)
    from mpiconsensus import run

    gc.freeze()
    gc.enable()
    run.train(settings, world, wiring, source, threads, out, placed)
