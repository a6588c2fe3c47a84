"""A round over `shared` against a plain shared window: neighbours read in place in cache-sized pieces, a barrier of everyone.

    mpirun -n 4 --oversubscribe --bind-to none python benchmarks/window.py [--graph torus] [--parameters 270000] [--repeats 9]

Both in turn in one run, one vertex a rank, float32; prints the median milliseconds of each and of their ratio, and the
ratio of ours to a copy of the same bytes, as `mpiconsensus bench round` measures it.
"""

import statistics

import click
import torch
from mpi4py import MPI

from mpiconsensus import config
from mpiconsensus.bench import timing
from mpiconsensus.bench.round import Network, Transport, row_elements
from mpiconsensus.placement import Placement
from mpiconsensus.runtime import World
from mpiconsensus.wiring import wire

PIECE = 65536


class Window:
    """What one writes in an hour: everybody's two rows in one window, and a barrier ahead of every round."""

    def __init__(self, comm, row, d):
        self.comm, (neighbours, weights), size = comm, row, 4 * d
        self.window = MPI.Win.Allocate_shared(2 * size, 1, comm=comm)

        def rows(rank):
            memory = self.window.Shared_query(rank)[0]
            return [torch.frombuffer(memory, dtype=torch.float32, count=d, offset=side * size).split(PIECE) for side in (0, 1)]

        self.out = rows(comm.rank)
        for side in self.out:
            for piece in side:
                piece.fill_(1.0)
        self.terms = [(rows(j), float(w)) for j, w in zip(neighbours.tolist(), weights)]
        self.side = 0

    def round(self):
        self.comm.Barrier()
        (first, weight), *rest = self.terms
        for p, out in enumerate(self.out[1 - self.side]):
            torch.mul(first[self.side][p], weight, out=out)
            for row, w in rest:
                out.add_(row[self.side][p], alpha=w)
        self.side = 1 - self.side


@click.command()
@click.option("--graph", default="torus")
@click.option("--parameters", default=(270_000, 1_500_000, 11_000_000), multiple=True)
@click.option("--repeats", default=9)
def main(graph, parameters, repeats):
    world = World.start()
    torch.set_num_threads(1)
    job = config.Job({"topology.graph": graph})
    wiring = wire(job.topology, world)
    placement = Placement(wiring.n, world.size, world.rank)
    for count in parameters:
        d = row_elements(count)
        plain = Window(world.comm, wiring.rows[world.rank], d)
        ours = Transport(Network.of(world, wiring, placement), "shared", d, torch.float32)
        for i in range(len(placement.hosted)):
            ours.x(i).fill_(1.0)
        times = timing.in_turn({"plain window": plain.round, "shared": ours.round}, repeats, world)
        if world.rank == 0:
            of = timing.ratio(times["shared"], times["plain window"])
            told = ", ".join(f"{name} {1e3 * statistics.median(found):.3f} ms" for name, found in times.items())
            print(f"{wiring.spec}, {count:,}: {told}; shared / plain, median of {repeats}: {of['median']:.2f} ({of['min']:.2f} to {of['max']:.2f})")
        ours.close()


main()
