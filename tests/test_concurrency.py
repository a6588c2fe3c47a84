"""Ways to compute the gradients of the vertices of a rank: batched and streams against one vertex after the other."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT, mpirun
from synthetic import source
from torch import nn

from mpiconsensus import config
from mpiconsensus.concurrency.stacked import Stacked
from mpiconsensus.errors import TrainingError, UserError
from mpiconsensus.randomness import torch_seed
from mpiconsensus.runtime import World
from mpiconsensus.training import Trainer
from mpiconsensus.wiring import wire

N = 5
BATCHED = {"training__concurrency": "batched"}
UNEQUAL = {"algorithm__train_every": [1, 2, 1, 3, 1]}


def trainer(model="digits-cnn", shape=(1, 8, 8), each=24, **changes):
    values = {
        "topology.graph": f"ring:{N}", "model.name": model, "training.precision": "float64", "training.batch_size": 8,
        "training.lr": 0.05, "training.init": "independent", **{name.replace("__", ".", 1): v for name, v in changes.items()},
    }  # fmt: skip
    job = config.Job({name: config.check(config.find(name), value) for name, value in values.items()})
    world = World()
    return Trainer(job, world, wire(job.topology, world), source(N, shape, each=each))


def state(t):
    """Return every parameter and buffer of every vertex as one float64 vector."""
    return torch.cat([tensor.double().flatten() for module in t.block.modules for tensor in module.state_dict().values()])


def compare(steps=20, model="digits-cnn", **changes):
    """Train serial and batched: the same losses at every step and the same replicas at the end, to rounding."""
    serial, batched = trainer(model, **changes), trainer(model, **changes, **BATCHED)
    start = state(serial)
    assert torch.equal(start, state(batched))
    for _ in range(steps):
        np.testing.assert_allclose(batched.step()[0], serial.step()[0], rtol=0, atol=1e-10)
    assert (state(batched) - state(serial)).abs().max() < 1e-10
    assert (state(serial) - start).abs().max() > 1e-2
    assert batched.batches_drawn == serial.batches_drawn
    return batched


class Spy:
    """Records what Stacked.losses and its parts are made of."""

    def __init__(self, monkeypatch):
        self.groups, self.copied = [], []
        losses, part = Stacked.losses, Stacked._part

        def seen(stacked, indices, *args):
            self.groups.append(list(indices))
            return losses(stacked, indices, *args)

        def made(stacked, indices):
            found = part(stacked, indices)
            self.copied.append(found.copied)
            return found

        monkeypatch.setattr(Stacked, "losses", seen)
        monkeypatch.setattr(Stacked, "_part", made)


MODELS = {"logistic": (1, 8, 8), "mlp": (1, 8, 8), "digits-cnn": (1, 8, 8), "fashion-cnn": (1, 12, 12), "resnet20": (3, 8, 8)}


@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize("model", MODELS)
def test_gradients_are_those_of_a_plain_loop(model, norm):
    """Dropout included: each vertex draws the masks that it draws alone."""
    t = trainer(model, MODELS[model], model__norm=norm, **BATCHED)
    modules = [copy.deepcopy(module) for module in t.block.modules]
    found = t.concurrency.gradients(list(range(N)), 3)
    for i, module in enumerate(modules):
        images, labels = t.loaders[i].batch(0)
        x = t.augment.train(images, i, 0)
        torch.manual_seed(torch_seed(1, "dropout", i, 3))
        loss = F.cross_entropy(module(x), torch.from_numpy(labels))
        gradients = torch.autograd.grad(loss, list(module.parameters()))
        assert abs(found[i][0] - loss.item()) < 1e-13
        for entry, gradient in zip(t.block.layout.parameters, gradients, strict=True):
            assert (entry.view(t.block.gradients[i]) - gradient).norm() <= 1e-12 * (1 + gradient.norm()), entry.name
        for (name, ours), theirs in zip(t.block.modules[i].named_buffers(), module.buffers(), strict=True):
            assert (ours - theirs).double().norm() <= 1e-13 * (1 + theirs.double().norm()), name
    assert not torch.equal(t.block.gradients[0], t.block.gradients[1])


RUNS = {
    "consensus": {},
    "gossip": {"algorithm__name": "gossip", "algorithm__pairs": 2},
    "allreduce": {"algorithm__name": "allreduce", "training__clip": 0.5},
    "clip": {"training__clip": 0.5, "training__optimizer": "adam", "training__lr": 0.01},
    "overlap": {"algorithm__order": "dpsgd", "training__momentum_policy": "mixed"},
    "torch": {"training__arithmetic": "torch", "algorithm__order": "cta"},
    "mixed": {"model__buffers": "mixed"},
    "mixed gossip": {"model__buffers": "mixed", "algorithm__name": "gossip", "algorithm__order": "cta"},
    "reset": {"model__buffers": "reset", "algorithm__period": [3, 4, 3, 5, 3]},
    "unequal": UNEQUAL,
    "unequal mixed": {**UNEQUAL, "model__buffers": "mixed", "algorithm__name": "gossip"},
    "unequal reset": {**UNEQUAL, "model__buffers": "reset", "algorithm__name": "gossip"},
    "uneven": {"each": 6},
    "contiguous": {"training__memory_format": "contiguous"},
}


@pytest.mark.parametrize("run", RUNS)
def test_a_batched_run_is_a_serial_run_to_rounding(run):
    compare(**RUNS[run])


@pytest.mark.parametrize("model, shape", [("mlp", (1, 8, 8)), ("resnet20", (3, 8, 8))])
@pytest.mark.parametrize("run", ["consensus", "gossip"])
def test_other_models_run_alike(model, shape, run):
    compare(model=model, shape=shape, **RUNS[run])


def test_vertices_are_grouped_by_their_batches_and_who_rests_is_left_out(monkeypatch):
    spy = Spy(monkeypatch)
    t = trainer(each=6, **UNEQUAL, **BATCHED)
    spy.groups.clear()
    t.step()
    assert spy.groups == [[0, 2, 4], [1, 3]]  # batches of 6 and of 8
    rows, buffers = t.block.gradients.clone(), [copy.deepcopy(dict(m.named_buffers())) for m in t.block.modules]
    t.step()
    assert spy.groups[2:] == [[0, 2, 4]]  # vertices 1 and 3 rest
    for i, module in enumerate(t.block.modules):
        rested = i in (1, 3)
        assert torch.equal(t.block.gradients[i], rows[i]) == rested
        assert all(torch.equal(b, buffers[i][name]) == rested for name, b in module.named_buffers())


def test_parameters_are_read_where_they_lie(monkeypatch):
    spy = Spy(monkeypatch)
    t = trainer(**BATCHED)
    spy.copied.clear()
    for side in (0, 1, 0):
        assert t.block.current == [side] * N
        t.step()
    assert spy.copied == [False] * 3
    part = t.concurrency.stacked._part([0, 1, 2, 3, 4])
    for entry in t.block.layout.parameters:
        assert part.leaves[entry.name].data_ptr() == t.block.storage[1].data_ptr() + 8 * entry.offset
    t.block.flip(3)
    assert t.concurrency.stacked._part([0, 1, 2, 3, 4]).copied and not t.concurrency.stacked._part([0, 2, 4]).copied


def test_one_vertex_needs_no_batching(monkeypatch):
    spy = Spy(monkeypatch)
    values = {"topology.graph": "ring:1", "training.concurrency": "batched", "model.name": "digits-cnn"}
    t = Trainer(config.Job(values), World(), wire(config.Job(values).topology, World()), source(1))
    assert np.isfinite(t.step()[0]).all() and spy.groups == []


def test_a_batched_state_continues_exactly():
    t, other = (trainer(model__buffers="reset", algorithm__period=4, **BATCHED) for _ in range(2))
    for _ in range(6):
        t.step()
    other.load_state_dict(copy.deepcopy(t.state_dict()))
    for _ in range(4):
        t.step(), other.step()
    assert torch.equal(state(t), state(other))


def test_bf16_rounds_as_serial_does():
    exact, serial, batched = (trainer("mlp", training__precision=p, **how) for p, how in (("float32", {}), ("bf16", {}), ("bf16", BATCHED)))
    exact, serial, batched = (torch.tensor(t.step()[0]) for t in (exact, serial, batched))
    half_ulp = 2.0**-9 * serial.abs()  # of bfloat16, which the loss is rounded to
    assert ((batched - serial).abs() <= 2 * half_ulp).all() and ((batched - exact).abs() > 1e-6).any()


class Custom(nn.Module):
    """features -> relu -> logits, and what a test puts between."""

    def __init__(self, between, **buffers):
        super().__init__()
        self.first, self.last, self.between = nn.Linear(64, 12), nn.Linear(12, 10), between
        for name, value in buffers.items():
            self.register_buffer(name, value)

    def forward(self, x):
        return self.last(self.between(self, F.relu(self.first(x.flatten(1)))))


def depth(module, h):
    """Stochastic depth as torchvision has it: a Bernoulli draw in place, of which the returned tensor is used."""
    noise = torch.empty((len(h), 1), dtype=h.dtype, device=h.device)
    noise = noise.bernoulli_(0.7)
    noise.div_(0.7)
    return h * noise


def branch(module, h):
    return h if h.sum() > 0 else -h


def replaced(module, h):
    module.mean = 0.5 * module.mean + 0.5 * h.detach().mean(0)
    return h - module.mean


def counted(module, h):
    module.count.add_(1)
    module.mean.mul_(0.5).add_(0.5 * h.detach().mean(0))
    return h - module.mean


def hidden(module, h):
    return h * module.secret


def dropped(module, h):
    h = F.dropout(1.0 * h, 0.3, module.training, inplace=True)
    return F.dropout2d(h.view(-1, 3, 2, 2), 0.4).flatten(1) + F.dropout(h, 0.0) + F.dropout(h, 1.0)


def noisy(module, h):
    return h + torch.randn_like(h)


def plain(module, h):
    return h


def with_depth(shape, classes):
    return Custom(depth)


def with_branch(shape, classes):
    return Custom(branch)


def with_replaced(shape, classes):
    return Custom(replaced, mean=torch.zeros(12))


def with_counted(shape, classes):
    return Custom(counted, mean=torch.zeros(12), count=torch.tensor(0))


def with_hidden(shape, classes):
    module = Custom(hidden)
    module.secret = torch.rand(12)
    return module


def with_dropped(shape, classes):
    return Custom(dropped)


def with_noisy(shape, classes):
    return Custom(noisy)


def with_frozen(shape, classes):
    module = Custom(plain)
    module.first.requires_grad_(False)
    return module


def with_tied(shape, classes):
    module = Custom(lambda module, h: module.third(F.relu(module.second(h))) - module.tied(h))
    module.second, module.tied = nn.Linear(12, 12), nn.Linear(12, 12)
    module.third, module.tied.weight = module.second, module.second.weight
    return module


@pytest.mark.parametrize("builder", [with_depth, with_counted, with_dropped, with_frozen, with_tied], ids=lambda b: b.__name__)
@pytest.mark.parametrize("run", ["consensus", "unequal"])
def test_a_model_of_one_s_own_runs_alike(builder, run):
    batched = compare(model=f"test_concurrency:{builder.__name__}", **RUNS[run])
    if builder is with_counted:
        drawn = [count + 1 for count in batched.batches_drawn]  # one forward when the model was built
        assert [int(m.count) for m in batched.block.modules] == drawn


def test_noise_of_another_kind_differs_by_vertex_and_step_and_repeats():
    runs = [trainer("test_concurrency:with_noisy", training__init="identical", training__lr=0.0, **BATCHED) for _ in range(2)]
    for t in runs:
        for loader in t.loaders:
            loader.batch = lambda count, first=t.loaders[0].batch: [a.copy() for a in first(0)]
    first, again = (np.stack([t.step()[0] for _ in range(2)]) for t in runs)
    assert np.array_equal(first, again)
    assert len(np.unique(first)) == 2 * N


REFUSED = {"with_branch": "control flow", "with_replaced": "buffer mean is not", "with_hidden": "gradients are not|losses are not"}


@pytest.mark.parametrize("builder", REFUSED)
def test_a_model_that_cannot_be_batched_is_refused_ahead_of_training(builder, tmp_path):
    with pytest.raises(UserError, match=f"(?s)test_concurrency:{builder}.*({REFUSED[builder]}).*concurrency=serial") as caught:
        trainer(f"test_concurrency:{builder}", **BATCHED)
    assert "\n" not in str(caught.value)
    trainer(f"test_concurrency:{builder}").step()


def test_a_refusal_ends_every_rank_before_there_is_a_run(tmp_path):
    where = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    words = ["-m", "mpiconsensus", "train", "--set", "model.name=test_concurrency:with_branch", "--set", "training.concurrency=batched"]
    done = mpirun(2, *words, "--set", "topology.graph=ring:5", cwd=tmp_path, **where)
    assert done.returncode == 2 and done.stderr.count("concurrency=serial") == 1 and "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("bad, named", [([3], 3), ([3, 2], 2), ([1, 4], 1)])
def test_a_loss_that_is_not_finite_names_the_lowest_vertex(bad, named):
    errors = []
    for how in ({}, BATCHED):
        t = trainer(each=6, **how)
        t.step()
        for i in bad:
            t.block.x(i).fill_(torch.nan)
        with pytest.raises(TrainingError, match=f"loss at vertex {named} is nan at step 1 ") as caught:
            t.step()
        errors.append(str(caught.value))
    assert errors[0] == errors[1]


def test_a_batch_of_one_names_vertices_and_step():
    t = trainer("test_concurrency:with_norm", training__batch_size=1, **BATCHED)
    with pytest.raises(TrainingError, match="vertices 0, 1, 2, 3, 4 together, step 0, on a batch of shape .5, 1, 1, 8, 8.*model.norm = group"):
        t.step()


def with_norm(shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.BatchNorm1d(12), nn.Linear(12, classes))
