"""One round by each of the ways of `neighbor`, and by a plain Neighbor_allgather with a numpy sum, in turn, in one run.

    mpirun -n 4 --oversubscribe --bind-to none python benchmarks/neighbor.py [--parameters 270000] [--vertices 4]

A torus of float32 rows. Prints the median time of a round of each, and the median of its ratios to the plain one.
"""

import statistics

import click
import torch

from mpiconsensus import config
from mpiconsensus.bench import timing
from mpiconsensus.bench.allgather import NeighborAllgather
from mpiconsensus.bench.round import row_elements
from mpiconsensus.block import Rows
from mpiconsensus.mixing import run_round
from mpiconsensus.placement import Placement
from mpiconsensus.runtime import World
from mpiconsensus.schedule import full
from mpiconsensus.transport.neighbor import WAYS, Neighbor
from mpiconsensus.wiring import wire


class Unplanned:
    """What a planned way is measured against: new requests at every round."""

    def __init__(self, single):
        self.single = single

    def start(self, plan, sides):
        comm, incoming, outgoing = self.single.comm, self.single.incoming, self.single.outgoing
        requests = [comm.Irecv(incoming(v).numpy(), source, v) for v, source in plan.receives]
        return requests + [comm.Isend(outgoing(v, sides[v]).numpy(), target, v) for v, target in plan.sends]


def ours(world, placement, d, round_, how):
    exchange = Neighbor(world, placement, d, torch.float32, how=WAYS[0] if how == "unplanned" else how)
    if how == "unplanned":
        exchange._messages = Unplanned(exchange._messages)
    mine = Rows(exchange.storage())
    exchange.bind(mine)
    for i, v in enumerate(placement.hosted):
        mine.x(i).fill_(v)
    return lambda: run_round(exchange, mine, round_)


@click.command()
@click.option("--parameters", default=270_000)
@click.option("--vertices", default=0, help="0: one a rank")
@click.option("--repeats", default=9)
def main(parameters, vertices, repeats):
    world = World.start()
    torch.set_num_threads(1)
    job = config.Job({"topology.graph": f"torus:{vertices}" if vertices else "torus"})
    wiring = wire(job.topology, world)
    placement, round_, d = Placement(wiring.n, world.size, world.rank), full(wiring.rows), row_elements(parameters)
    sides = {how: ours(world, placement, d, round_, how) for how in ("unplanned", *WAYS)}
    sides["plain"] = NeighborAllgather(world, placement, wiring.rows, d, "float32").round
    times = timing.in_turn(sides, repeats, world)
    if world.rank == 0:
        print(f"{wiring.spec} on {world.size} ranks, {d} float32 a row, median of {repeats}")
        for how, found in times.items():
            of = timing.ratio(found, times["plain"])
            print(f"{how:22} {1e3 * statistics.median(found):8.3f} ms   / plain {of['median']:.2f} ({of['min']:.2f} to {of['max']:.2f})")


main()
