"""Publish a row and mix it with the newest of the neighbours, over each mailbox, against a copy of the same bytes.

    mpirun -n 4 --oversubscribe --bind-to none python benchmarks/mailbox.py [--graph torus] [--parameters 270000] [--repeats 9]
    mpirun -n 5 --oversubscribe --bind-to none python benchmarks/mailbox.py --graph complete        4 neighbours

One vertex a rank, float32, nobody waits for anybody; the sides in turn in one run. Prints the median milliseconds of each, the
median and range of its ratio to the floor (the own row and those of the neighbours read, one written, at the speed of the
copy), and how many rows a call took from other ranks: one that did not change is not taken again by rma. The bare publication
stands beside it.

The copies of the floor lie in a core's own cache where they fit. `fresh rows` is what the same bytes cost where others have
just written what is read, and have just read what is written over: each rank publishes a copy of its row, in the memory
of `shared`, and reads each neighbour's newest once, with no sum of rows.
"""

import statistics

import click
import torch

from mpiconsensus import mixing
from mpiconsensus.bench import setting, timing
from mpiconsensus.bench.floor import Copy, rows_moved, sets_beyond
from mpiconsensus.bench.round import row_elements
from mpiconsensus.block import Rows
from mpiconsensus.pieces import pieces
from mpiconsensus.runtime import World
from mpiconsensus.schedule import full
from mpiconsensus.transport.mailbox import open_mailbox


class Side:
    """A mailbox with rows of its own. lapped: mixes done again because a row was overwritten meanwhile."""

    def __init__(self, name, world, placement, wiring, round_, d):
        self.vertex = placement.hosted[0]
        self.blend = round_.blends[self.vertex]
        self.mailbox = open_mailbox(name, world, placement, d, torch.float32, readers=round_.readers)
        self.rows = Rows(self.mailbox.storage())
        self.mailbox.bind(self.rows)
        for slot in self.rows.storage:
            slot.fill_(1.0)
        self.clock, self.calls, self.lapped = -1, 0, 0
        self.mailbox.publish(0, self.clock)
        world.barrier()

    def publish(self):
        self.rows.flip(0)
        self.clock += 1
        self.mailbox.publish(0, self.clock)

    def mix(self):
        self.publish()
        self.calls += 1
        while True:
            letters = {j: self.mailbox.peek(j, self.vertex) for j, _ in self.blend if j != self.vertex}
            rows = {j: pieces(letter.row) for j, letter in letters.items() if letter}
            rows[self.vertex] = pieces(self.rows.x(0))
            terms = [(rows[j], share) for j, share in self.blend if j in rows]
            mixing.Sums([(self.rows.next_pieces(0), terms)], self.mailbox.stream).run()
            if self.mailbox.intact([letter for letter in letters.values() if letter]):
                return
            self.lapped += 1

    def move(self):
        """Move the bytes of a mix without its arithmetic: the own row into the next buffer, each neighbour's read once."""
        self.publish()
        self.rows.other(0).copy_(self.rows.x(0))
        for j, _ in self.blend:
            if j != self.vertex and (letter := self.mailbox.peek(j, self.vertex)):
                letter.row.amax()


@click.command()
@click.option("--graph", default="torus")
@click.option("--parameters", default=(270_000, 11_000_000), multiple=True)
@click.option("--transport", "names", default=("shared", "rma"), multiple=True)
@click.option("--repeats", default=9)
def main(graph, parameters, names, repeats):
    world = World.start()
    torch.set_num_threads(1)
    wiring, placement = setting.graph_of(world, graph, None, 4)
    machine, round_ = setting.facts(world, 1), full(wiring.rows)
    for count in parameters:
        d = row_elements(count)
        sides = {name: Side(name, world, placement, wiring, round_, d) for name in names}
        level, row = setting.last_level(machine["caches"]), 4 * d
        beyond = level is not None and 2 * row * world.node_size > level
        copy = Copy(1, d, torch.float32, sets_beyond(level, 2 * row, min(world.node_size, machine["cores"])) if beyond else 1)
        calls = {**copy.ways, **{name: side.mix for name, side in sides.items()}, **{f"{n}, publish": s.publish for n, s in sides.items()}}
        moving = Side("shared" if world.comm else "inprocess", world, placement, wiring, round_, d)
        calls["fresh rows"] = moving.move
        times = timing.in_turn(calls, repeats, world)
        copied = min((times[name] for name in copy.ways), key=statistics.median)
        floor = [seconds * rows_moved(wiring.rows) / (2 * wiring.n) for seconds in copied]
        found = world.allgather([(side.mailbox.rows_wire, side.lapped, side.calls) for side in sides.values()])
        if world.rank == 0:
            links = statistics.mean(len(indices) - 1 for indices, _ in wiring.rows)
            fresh = timing.ratio(times["fresh rows"], floor)
            print(
                f"{wiring.spec}, {links:g} neighbours, {count:,}: floor {1e3 * statistics.median(floor):.3f} ms; "
                f"fresh rows / floor {fresh['median']:.2f} ({fresh['min']:.2f} to {fresh['max']:.2f})"
            )
            for at, name in enumerate(names):
                of, bare = timing.ratio(times[name], floor), statistics.median(times[f"{name}, publish"])
                over = timing.ratio(times[name], times["fresh rows"])
                moved, lapped, all_calls = (sum(rank[at][which] for rank in found) for which in range(3))
                print(
                    f"  {name:7} {1e3 * statistics.median(times[name]):8.3f} ms, / floor {of['median']:.2f} ({of['min']:.2f} to {of['max']:.2f}), "
                    f"/ fresh rows {over['median']:.2f} ({over['min']:.2f} to {over['max']:.2f}); "
                    f"{moved / all_calls:.2f} rows from others and {lapped / all_calls:.4f} mixes again a call; publish alone {1e6 * bare:.1f} us",
                    flush=True,
                )
        for side in (*sides.values(), moving):
            side.rows = None
            side.mailbox.close()


main()
