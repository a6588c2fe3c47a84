"""One round by each of the ways of `neighbor`, and by a plain Neighbor_allgather with a numpy sum, in turn, in one run.

    mpirun -n 4 --oversubscribe --bind-to none python benchmarks/neighbor.py [--elements 272474] [--vertices 4]

A torus of float32 rows. Prints the median time of a round of each, and the median of its ratios to the plain one.
"""

import statistics
import time

import click
import numpy as np
import torch
from mpi4py import MPI

from mpiconsensus.block import ROW_ELEMENTS, Rows
from mpiconsensus.mixing import run_round
from mpiconsensus.placement import Placement
from mpiconsensus.runtime import World
from mpiconsensus.schedule import full
from mpiconsensus.topology import build, edges
from mpiconsensus.transport.neighbor import WAYS, Neighbor
from mpiconsensus.weights import mixing_matrix, rows


class Unplanned:
    """What a planned way is measured against: new requests at every round."""

    def __init__(self, single):
        self.single = single

    def start(self, plan, sides):
        comm, incoming, outgoing = self.single.comm, self.single.incoming, self.single.outgoing
        requests = [comm.Irecv(incoming(v).numpy(), source, v) for v, source in plan.receives]
        return requests + [comm.Isend(outgoing(v, sides[v]).numpy(), target, v) for v, target in plan.sends]

    def close(self):
        pass


def ours(world, placement, d, round_, how):
    exchange = Neighbor(world, placement, d, torch.float32, how=WAYS[0] if how == "unplanned" else how)
    if how == "unplanned":
        exchange._messages = Unplanned(exchange._messages)
    mine = Rows(exchange.storage())
    exchange.bind(mine)
    for i, v in enumerate(placement.hosted):
        mine.x(i).fill_(v)
    return lambda: run_round(exchange, mine, round_)


def plain(world, placement, d, matrix):
    """One vertex a rank, or all rows of a rank as one message to each rank that needs any of them."""
    owner, m = np.array(placement.owner), len(placement.hosted)
    needed = {int(owner[j]) for v in placement.hosted for j in np.flatnonzero(matrix[v])} - {world.rank}
    partners = sorted(needed)
    comm = world.comm.Create_dist_graph_adjacent(partners, partners)
    assert len(set(placement.counts)) == 1, "the plain one needs as many vertices on every rank"
    x, received = np.zeros((m, d), np.float32), np.empty((len(partners), m, d), np.float32)
    sums = []
    for i, v in enumerate(placement.hosted):
        x[i] = v
        at = {j: received[partners.index(int(owner[j])), j % m] if owner[j] != world.rank else x[j % m] for j in np.flatnonzero(matrix[v])}
        sums.append([(np.float32(matrix[v, j]), row) for j, row in at.items()])

    def step():
        comm.Neighbor_allgather(x, received)
        x[:] = [sum(weight * row for weight, row in terms) for terms in sums]

    return step


@click.command()
@click.option("--elements", default=272474)
@click.option("--vertices", default=0, help="0: one a rank")
@click.option("--repeats", default=15)
@click.option("--rounds", default=10)
def main(elements, vertices, repeats, rounds):
    world = World.start()
    torch.set_num_threads(1)
    n, d = vertices or world.size, -(-elements // ROW_ELEMENTS) * ROW_ELEMENTS
    long = next(k for k in range(int(n**0.5), 0, -1) if n % k == 0)
    graph = f"torus:{long}x{n // long}"
    matrix = mixing_matrix(n, edges(build(graph)), "metropolis")
    placement, round_ = Placement(n, world.size, world.rank), full(rows(matrix))
    ways = {how: ours(world, placement, d, round_, how) for how in ("unplanned", *WAYS)}
    ways["plain"] = plain(world, placement, d, np.array(round_.matrix()))
    times = {how: [] for how in ways}
    for repeat in range(repeats + 1):
        for how, step in ways.items():
            for _ in range(4 if repeat == 0 else 1):
                step()
            world.barrier()
            start = time.perf_counter()
            for _ in range(rounds):
                step()
            world.barrier()
            if repeat:  # the first pass warms up
                times[how].append((time.perf_counter() - start) / rounds)
    if world.rank == 0:
        print(f"{graph} on {world.size} ranks, {d} float32 a row, {MPI.Get_library_version().split(',')[0]}, median of {repeats}")
        for how, found in times.items():
            ratios = [a / b for a, b in zip(found, times["plain"], strict=True)]
            print(f"{how:22} {1e3 * statistics.median(found):7.2f} ms   / plain {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


main()
