"""One vertex against a plain PyTorch loop: bit for bit with training.arithmetic = torch, within ulps a step when flat."""

import copy

import pytest
import torch
from synthetic import source

from mpiconsensus import config
from mpiconsensus.randomness import torch_seed
from mpiconsensus.runtime import World
from mpiconsensus.training import Trainer
from mpiconsensus.wiring import wire

SHAPES = {"digits-cnn": (1, 8, 8), "fashion-cnn": (1, 28, 28), "resnet20": (3, 32, 32)}
OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=1e-4),
    "adam": lambda p: torch.optim.Adam(p, lr=0.05, weight_decay=1e-4),
}


def trainer(model, **changes):
    values = {
        "topology.graph": "ring:1", "model.name": model, "training.batch_size": 8, "training.epochs": 20, "training.lr": 0.05, **changes,
    }  # fmt: skip
    job = config.Job({name: config.check(config.find(name), value) for name, value in values.items()})
    world = World()
    return Trainer(job, world, wire(job.topology, world), source(1, SHAPES[model], augment="crop-flip"))


def plain_loop(t, module, optimizer, steps):
    for k in range(steps):
        images, labels = t.loaders[0].batch(k)
        x = t.augment.train(images, 0, k)
        torch.manual_seed(torch_seed(1, "dropout", 0, k))
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(module(x), torch.from_numpy(labels)).backward()
        optimizer.step()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("memory_format", ["channels_last", "contiguous"])
@pytest.mark.parametrize("model", SHAPES)
def test_one_vertex_is_a_plain_loop_bit_for_bit(model, memory_format, optimizer):
    changes = {"training.arithmetic": "torch", "training.memory_format": memory_format, "training.optimizer": optimizer}
    t, mirror = trainer(model, **changes), trainer(model, **changes)
    module = copy.deepcopy(mirror.block.modules[0])
    for parameter in module.parameters():
        parameter.grad = None
    start = [p.detach().clone() for p in module.parameters()]
    for _ in range(6):
        t.step()
    plain_loop(mirror, module, OPTIMIZERS[optimizer](module.parameters()), 6)
    for (name, ours), theirs in zip(t.block.modules[0].state_dict().items(), module.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name
    assert all(not torch.equal(p, s) for p, s in zip(module.parameters(), start, strict=True))


# SGD rounds alike but for the ends of vector loops. Adam's eight roundings (two averages, the square, the root, the
# corrected denominator, epsilon, the quotient, the sum) are taken in another order: half an ulp each, on both sides.
@pytest.mark.parametrize("optimizer, ulps", [("sgd", 1), ("adam", 8)])
def test_a_flat_step_is_within_ulps_of_torch_optim(optimizer, ulps):
    """From the same point with the same gradient: what compounds over steps is the training, not the arithmetic."""
    changes = {"training.optimizer": optimizer}
    flat, exact = trainer("fashion-cnn", **changes), trainer("fashion-cnn", **changes, **{"training.arithmetic": "torch"})
    for k in range(4):
        state = exact.state_dict()
        row = state["vertices"][0]["row"]
        flat.block.x(0).copy_(row)
        for name in flat.optimizers.names:
            for entry, parameter in zip(flat.block.layout.parameters, exact.block.modules[0].parameters(), strict=True):
                value = exact.optimizers.optimizers[0].state.get(parameter, {}).get(name)
                if value is not None:
                    entry.view(flat.optimizers.state(0, name)).copy_(value)
        exact.concurrency.gradients([0], k)
        flat.block.gradients.copy_(exact.block.gradients)
        exact.optimizers.step(0, 0.05)
        flat.optimizers.step(0, 0.05)
        ours, theirs = flat.block.parameters(0), exact.block.parameters(0)
        # An ulp of the largest number that the update adds up: where the two cancel, the sum has a smaller one.
        scale = torch.maximum(torch.maximum(ours.abs(), row[: len(ours)].abs()), (theirs - row[: len(ours)]).abs())
        ulp = torch.nextafter(scale, torch.full_like(scale, torch.inf)) - scale
        assert ((ours - theirs).abs() <= ulps * ulp).all()
        assert not torch.equal(ours, row[: len(ours)])
