"""Messages of random lengths between seven vertices on four ranks, at random times; argv: rounds.

Rank 1 hears nobody, vertex 6 is heard by nobody and hears one. What a message holds tells its vertex and round.
"""

import json
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from mpiconsensus.placement import Placement
from mpiconsensus.runtime import World
from mpiconsensus.transport.packets import Packets

OWNER = [3, 0, 2, 1, 0, 2, 3]
SOURCES = {0: [1, 2, 3], 1: [0, 1, 4], 2: [5, 3], 3: [], 4: [0, 2, 3, 5], 5: [2, 0], 6: [5]}
LENGTHS = (0, 0, 1, 7, 8, 64, 1000, 30_000)  # the last is beyond what MPI sends at once


def message(vertex, k, part):
    number = 2654435761 * (vertex + 7 * (part + 2 * k))
    return (np.arange(LENGTHS[(number >> 9) % len(LENGTHS)]) + (number >> 3)).astype(np.uint8)


world = World.start()
placement = Placement(len(OWNER), world.size, world.rank, np.array(OWNER))
packets, chance = Packets(world, placement, SOURCES), random.Random(world.rank)
wanted = {v for i in placement.hosted for v in [i, *SOURCES[i]]}
sent = 0


def pause():
    if chance.random() < 0.2:
        time.sleep(chance.random() * 1e-3)


for k in range(int(sys.argv[1])):
    pause()
    mine = {v: message(v, k, 0) for v in placement.hosted}
    found = packets.to_neighbours(list(mine.values()))
    assert set(found) == wanted, (k, set(found))
    for v in found:
        assert np.array_equal(found[v], message(v, k, 0)), (k, v)
    for v, row in mine.items():
        hearing = {OWNER[i] for i, sources in SOURCES.items() if v in sources} - {world.rank}
        sent += (len(row) + 8) * len(hearing)
    if k % 3 == 0:
        pause()
        mine = [message(v, k, 1) for v in placement.hosted]
        for v, found_ in enumerate(packets.to_all(mine)):
            assert np.array_equal(found_, message(v, k, 1)), (k, v)
        sent += (world.size - 1) * sum(len(row) + 8 for row in mine)
assert packets.wire_bytes == sent, (packets.wire_bytes, sent)
packets.close()
if world.rank == 0:
    print(json.dumps({"rounds": k + 1}))
