"""Training steps on this machine: a vertex against a plain PyTorch loop, and averaging against no exchange."""

import torch

from mpiconsensus import config, models
from mpiconsensus.bench import timing
from mpiconsensus.bench.synthetic import source as random_images
from mpiconsensus.errors import UserError
from mpiconsensus.runtime import World
from mpiconsensus.training import Trainer
from mpiconsensus.wiring import wire

CALLS = 20  # steps of a pass
PLAIN, ALONE, AVERAGING = "plain PyTorch", "mpiconsensus, no exchange", "mpiconsensus, averaging"


def trainer(world, source, model, batch, graph, **keys):
    """Return a Trainer of SGD with momentum and weight decay over `source`; keys: further job keys; collective."""
    values = {
        "topology.graph": graph, "model.name": model, "training.batch_size": batch, "training.lr": 0.01,
        "training.epochs": 10**6, **keys,
    }  # fmt: skip
    job = config.Job(values)
    return Trainer(job, world, wire(job.topology, world), source)


def apart(world, source, model, batch, graph):
    """Return the Trainer whose vertices exchange nothing."""
    return trainer(world, source, model, batch, graph, **{"algorithm.name": "one-shot"})


def plain(source, model, batch, vertex=0):
    """Return a function that takes one step of what one writes first, on the samples of `vertex`.

    torch.optim.SGD with momentum and weight decay, the memory format that torch has by default, a batch drawn from
    memory and normalised.
    """
    data = source.load(vertex)
    torch.manual_seed(0)
    module = models.build(model, data.x.shape[1:], source.classes)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    x, y = torch.from_numpy(data.x), torch.from_numpy(data.y)

    def step():
        rows = torch.randint(len(y), (batch,))
        images = (x[rows].float() / 255 - 0.5) / 0.25
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(module(images), y[rows])
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def measure(world, graph, placement, model, batch, transport, repeats, say=lambda text: None):
    """Return {"sides": {name: figures}, "ratios": {name: {median, min, max}}, "transport": name or None}; collective.

    A step is one gradient and one update at every vertex. graph: a spec with its size; placement: of its vertices. The
    plain side is as many loops, each with a model of its own, in the process that hosts the vertices.
    """
    n, hosted = placement.n, placement.hosted
    source = random_images(model, n)

    def build():
        if batch > source.sizes[0]:
            raise UserError(f"--batch {batch} is more than the {source.sizes[0]} samples of a vertex; give at most {source.sizes[0]}.")
        return [plain(source, model, batch, vertex) for vertex in hosted]

    loops = world.agree(build)
    alone = apart(world, source, model, batch, graph)
    sides, averaging = {PLAIN: lambda: [loop() for loop in loops], ALONE: alone.step}, None
    if n > 1:
        averaging = trainer(world, source, model, batch, graph, **{"transport.name": transport})
        sides[AVERAGING] = averaging.step
    alone.step()  # a model that cannot train says so here, in words
    say(f"measuring  {', '.join(sides)} ...")
    times = timing.in_turn(sides, repeats, world, calls=CALLS)
    ratios = {"plain / no exchange": timing.ratio(times[PLAIN], times[ALONE])}
    if n > 1:
        ratios["averaging / no exchange"] = timing.ratio(times[AVERAGING], times[ALONE])
    name = averaging.exchange.name if averaging else None
    for side in filter(None, (alone, averaging)):
        side.close()
    return {"sides": {side: timing.figures(found) for side, found in times.items()}, "ratios": ratios, "transport": name}


def one_vertex(source, model, batch):
    """Return the Trainer of one vertex in this process alone, whatever the other ranks do; source: of one vertex."""
    return apart(World(), source, model, batch, "ring:1")
