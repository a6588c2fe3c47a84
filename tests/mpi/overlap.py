"""Run under mpirun on 2 ranks: rank 1 is late by a delay that ends within rank 0's gradient; argv: transport, order or delay.

Rank 0's gradient ends only when rank 1 has begun its next round, told by a message: no clock decides.
"""

import json
import sys

import torch
from synthetic import source

from mpiconsensus import config
from mpiconsensus.runtime import World
from mpiconsensus.training import Trainer
from mpiconsensus.wiring import wire

name, how = sys.argv[1:3]
world = World.start()
torch.set_num_threads(1)
values = {"topology.graph": "ring:2", "model.name": "logistic", "training.batch_size": 4, "training.epochs": 10, "transport.name": name}
values |= {"algorithm.delay": 1} if how == "delay" else {"algorithm.order": how}
job = config.Job({key: config.check(config.find(key), value) for key, value in values.items()})
trainer = Trainer(job, world, wire(job.topology, world), source(2))
events = []
trace = trainer.exchange


def told(what, function):
    def wrapped(*arguments):
        events.append(what)
        return function(*arguments)

    return wrapped


start, gradient = trace.start, trainer.backward
STEPS, LATE = 6, 3


def late_start(round_):
    if world.rank == 1 and trainer.k == LATE:
        world.comm.recv(source=0, tag=1)  # rank 0 is inside its gradient, its own round begun
    start(round_)
    events.append("start")
    if world.rank == 1 and trainer.k == LATE:
        world.comm.send(None, 0, tag=2)


def slow_gradient(*arguments):
    result = gradient(*arguments)
    # With dpsgd the round of step LATE is under way in the gradient of LATE, with a delay in that of LATE + 1.
    if world.rank == 0 and trainer.k == LATE + (how == "delay"):
        world.comm.send(None, 1, tag=1)
        world.comm.recv(source=1, tag=2)
    events.append("gradient")
    return result


trace.start, trainer.backward = late_start, slow_gradient
trace.finish = told("finish", trace.finish)
hidden_s = []
waits = 0
for _ in range(STEPS):
    before = trace.waits
    trainer.step()
    if world.rank == 0 and trainer.k - 1 == LATE + (how == "delay"):
        waits = trace.waits - before
        hidden_s = trainer.stepper.take()[2]
    trainer.stepper.take()
if world.rank == 0:
    print(json.dumps({"waits": waits, "hidden_s": hidden_s, "events": events}))
trainer.close()
