"""Run under mpirun: five vertices with every compressed method and many compressors; what each ends with goes to the directory argv[1].

On four ranks: hosted out of order, a checkpoint half way. On two: the checkpoints of four are gone on with as well. Asserts
that what goes to other ranks, counted at MPI's own calls, are the messages as the codec makes them, with their lengths.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from synthetic import source

from mpiconsensus import checkpoint, config
from mpiconsensus.placement import Placement
from mpiconsensus.runtime import World
from mpiconsensus.training import Trainer
from mpiconsensus.wiring import wire

N, STEPS, D = 5, 6, 16 * 8 + 8 + 8 * 3 + 3
OWNERS = {1: [0] * N, 2: [1, 0, 0, 1, 0], 4: [2, 0, 1, 0, 3]}
UNBIASED = ["rand-k-unbiased:0.1", "natural", "qsgd:4", "identity", "subspace:1"]
ANY = ["top-k:0.1", "top-k:0.1+power-of-two", "top-k:16+natural", "rand-k:0.1", "sign", "qsgd:4", "natural", "svd:1 tensor", "power-step:1", "identity", "bf16"]
SOME = ["top-k:0.1", "rand-k:0.1", "qsgd:4", "svd:1 tensor"]
METHODS = {
    "ef21": ANY, "choco-sgd": ANY, "dcgd": [*SOME, "bf16"], "ef14": [*SOME, "sign"], "ef21-sgdm": SOME, "choco-gossip": SOME[:2],
    "beer": [*SOME, "natural"], "diana": UNBIASED, "marina": UNBIASED,
}  # fmt: skip
RESUMED = [
    "ef21 top-k:0.1", "ef14 sign", "ef21-sgdm qsgd:4", "diana rand-k-unbiased:0.1", "marina natural", "choco-sgd top-k:0.1", "beer qsgd:4", "ef21 power-step:1",
]  # fmt: skip
# Bytes of a message of D float32: least and most. 16 of them take 16 bytes of indices and one that tells how they are coded, or less.
INDICES = (2, 17)
LENGTHS = {
    "top-k:0.1": (64 + INDICES[0], 64 + INDICES[1]), "top-k:0.1+power-of-two": (18 + INDICES[0], 18 + INDICES[1]),
    "top-k:16+natural": (18 + INDICES[0], 18 + INDICES[1]), "sign": 4 + 21, "natural": D + 21, "qsgd:4": 4 + 21 + 62, "bf16": 2 * D,
    "svd:1 tensor": 4 * (8 + 16 + 8 + 3 + 8 + 3), "power-step:1": 4 * (13 + 13), "identity": 4 * D, "rand-k:0.1": 64, "rand-k-unbiased:0.1": 64,
    "subspace:1": 4 * 13,
}  # fmt: skip


class Counted:
    """A communicator that counts the bytes that go to other ranks."""

    def __init__(self, comm):
        self.comm, self.bytes = comm, 0

    def Isend(self, whole, rank):
        assert rank != self.comm.rank
        self.bytes += whole.nbytes
        return self.comm.Isend(whole, rank)

    def Allgatherv(self, mine, into):
        self.bytes += (self.comm.size - 1) * mine.nbytes
        self.comm.Allgatherv(mine, into)

    def __getattr__(self, name):
        return getattr(self.comm, name)


class Watch:
    """Looks at the messages and at the rows that are averaged."""

    def __init__(self, t, operator):
        self.t, self.operator, self.expected, self.averaged, self.messages = t, operator, 0, [], 0
        packets, self.mean = t.stepper.packets, t.reduction.mean
        self.near = {v: set(np.flatnonzero(t.wiring.matrix[v])) for v in range(N)}
        self.to_all, self.to_neighbours = packets.to_all, packets.to_neighbours
        packets.to_all, packets.to_neighbours, t.reduction.mean = self.all, self.neighbours, self.rows
        if packets._comm is not None:
            packets._comm = Counted(packets._comm)

    def look(self, messages):
        least, most = np.broadcast_to(LENGTHS[self.operator], 2)
        assert all(m.dtype == np.uint8 and least <= len(m) <= most for m in messages), (self.operator, [len(m) for m in messages])
        self.messages += len(messages)

    def all(self, messages):
        self.look(messages)
        self.expected += (self.t.world.size - 1) * sum(len(m) + 8 for m in messages)
        return self.to_all(messages)

    def neighbours(self, messages):
        self.look(messages)
        owner = self.t.placement.owner
        for v, message in zip(self.t.hosted, messages, strict=True):
            self.expected += (len(message) + 8) * len({owner[j] for j in self.near[v]} - {self.t.world.rank})
        return self.to_neighbours(messages)

    def rows(self, rows):
        self.averaged.append(rows[0].numel())
        return self.mean(rows)

    def check(self, steps):
        """Assert what was sent in `steps` steps, and that the log is told so."""
        t, stepper = self.t, self.t.stepper
        if t.world.size > 1:
            assert stepper.packets._comm.bytes == self.expected == stepper.packets.wire_bytes
        dense = sum(t.algorithm.dense(k) for k in range(steps)) if t.algorithm.reach == "all" else 0
        parts = len(getattr(t.algorithm, "parts", "x"))
        seed = 64 if self.operator.startswith(("rand-k", "subspace")) else 0
        bits, residual = stepper.take()[4:6]
        assert (bits == dense * 32 * D + (steps - dense) * parts * (stepper.codec.bits + seed)).all(), self.operator
        assert (residual > 0).all() or self.operator in ("identity", "svd:1 tensor") or dense == steps
        if t.algorithm.reach == "all" and stepper.way != "gather":
            values = LENGTHS[self.operator] // 4 if stepper.way == "sum" else D
            assert not self.messages and sorted(self.averaged) == sorted([D] * dense + [values] * (steps - dense))
        else:
            assert self.messages == (steps - dense) * parts * t.block.m and self.averaged == [D] * dense
        if self.operator in ("top-k:0.1", "sign", "qsgd:4", "natural", "power-step:1"):
            assert t.algorithm.reach == "neighbours" or stepper.way == "gather"


def make(method, operator, world):
    spec, _, scope = operator.partition(" ")
    values = {
        "topology.graph": "star:5", "algorithm.name": method, "compression.operator": spec, "compression.scope": scope or "vector",
        "compression.gamma": 0.2, "model.name": "mlp", "model.hidden": [8], "training.batch_size": 64 if method == "marina" else 8,
        "training.epochs": 10, "training.lr": 0.1,
    }  # fmt: skip
    job = config.Job({name: config.check(config.find(name), value) for name, value in values.items()})
    placement = Placement(N, world.size, world.rank, np.array(OWNERS[world.size]))
    t = Trainer(job, world, wire(job.topology, world), source(N, (1, 4, 4), 3), placement)
    assert t.block.layout.count == D
    return t


def ended(t):
    """Return the rows of the hosted vertices, with the state of their algorithm, and close."""
    rows = {v: np.concatenate([t.block.x(i).numpy(), *t.algorithm.state_dict(i).values()]) for i, v in enumerate(t.hosted)}
    t.close()
    return rows


def main(out):
    world = World.start()
    torch.set_num_threads(1)
    found = {}
    for method, operators in METHODS.items():
        for operator in operators:
            name = f"{method} {operator}"
            t = make(method, operator, world)
            watch = Watch(t, operator)
            for k in range(STEPS):
                if k == STEPS // 2 and name in RESUMED and world.size == 4:
                    common, content = (({}, {}) if world.rank == 0 else (None, None))
                    checkpoint.write(Path(out) / name, world, k, t.state_dict()["vertices"], common, content)
                t.step()
            watch.check(STEPS)
            found |= {f"{name}/{v}": row for v, row in ended(t).items()}
    for name in RESUMED if world.size == 2 else ():
        method, _, operator = name.partition(" ")
        t = make(method, operator, world)
        saved, damaged = checkpoint.choose(Path(out) / name, world)
        assert not damaged
        t.load_state_dict({"step": saved.content["step"], "vertices": saved.vertices(t.hosted)})
        assert t.k == STEPS // 2
        while t.k < STEPS:
            t.step()
        found |= {f"resumed {name}/{v}": row for v, row in ended(t).items()}
    np.savez(Path(out) / f"{world.size}-{world.rank}.npz", **{key.replace("/", "|"): row for key, row in found.items()})


if __name__ == "__main__":
    main(sys.argv[1])
