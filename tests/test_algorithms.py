"""Every algorithm against its few-line matrix version in float64, and the identities between them.

The model is softmax regression, whose gradient numpy computes by hand; one process hosts all vertices.
"""

import numpy as np
import pytest
import torch
from reference import matrix
from synthetic import source

from mpiconsensus import config
from mpiconsensus.errors import UserError
from mpiconsensus.randomness import generator
from mpiconsensus.runtime import World
from mpiconsensus.training import Trainer
from mpiconsensus.wiring import wire

N, CLASSES, STEPS, LR = 6, 3, 12, 0.3
BASE = {
    "topology.graph": f"ring:{N}", "model.name": "logistic", "training.precision": "float64", "training.batch_size": 8,
    "training.lr": LR, "training.momentum": 0.0, "training.weight_decay": 0.0, "training.epochs": 4,
    "training.max_steps": STEPS, "training.init": "independent",
}  # fmt: skip


def trainer(n=N, shape=(1, 3, 3), data=None, **changes):
    values = dict(BASE)
    values.update({name.replace("__", ".", 1): value for name, value in changes.items()})
    if n != N:
        values["topology.graph"] = f"ring:{n}"
    job = config.Job({name: config.check(config.find(name), value) for name, value in values.items()})
    world = World()
    return Trainer(job, world, wire(job.topology, world), data or source(n, shape, CLASSES))


def rows(t):
    """Return the (n, d) float64 parameters in the order of the reference: weights, then biases."""
    return np.stack([np.concatenate([p.detach().double().numpy().ravel() for p in m.parameters()]) for m in t.block.modules])


def gradients(t):
    """Return G(X, k): numpy's gradients at X on the batches that vertex i draws at its own count."""
    counts = np.zeros(len(t.hosted), int)

    def g(x, k):
        out = np.zeros_like(x)
        for i, v in enumerate(t.hosted):
            if t.algorithm.trains(k, v):
                images, labels = t.loaders[i].batch(int(counts[i]))
                samples = (images.reshape(len(images), -1) / 255 - 0.5) / 0.25
                out[i] = matrix.softmax_gradient(x[i], samples, labels, CLASSES)
                counts[i] += 1
        return out

    return g


def compare(reference_step, **changes):
    """Train STEPS steps and let the reference take the same ones from the same start; the largest difference is small."""
    t, mirror = trainer(**changes), trainer(**changes)
    w = matrix.weights(N, [(i, (i + 1) % N) for i in range(N)])
    x, g = rows(t), gradients(mirror)
    start = x.copy()
    for k in range(STEPS):
        t.step()
        x = reference_step(k, x, g, w)
    assert np.abs(rows(t) - x).max() < 1e-12
    assert np.abs(x - start).max() > 0.05
    return t


@pytest.mark.parametrize("order", ["atc", "cta", "dpsgd"])
@pytest.mark.parametrize("period, rounds", [(1, 1), (3, 1), (1, 3)])
def test_consensus_is_its_matrix_version(order, period, rounds):
    def step(k, x, g, w):
        return matrix.consensus(k, x, g, LR, w, period, rounds, order)

    compare(step, algorithm__order=order, algorithm__period=period, algorithm__rounds=rounds)


def damping(w):
    """The t whose recursion x_{k+1} = x_k + t (W - I) x_{k-1} forgets fastest, from the spectrum of its block matrix."""
    n, rates = len(w), {}
    for t in np.arange(1, 101) / 100:
        m = np.block([[np.eye(n), t * (w - np.eye(n))], [np.eye(n), np.zeros((n, n))]])
        moduli = np.abs(np.linalg.eigvals(m))
        rates[t] = np.sort(moduli)[-2]  # the largest is the mean's, 1
    return min(rates, key=lambda t: round(rates[t], 9))


@pytest.mark.parametrize("period", [1, 3, [1, 2, 3, 1, 2, 4]])
def test_a_delayed_mix_is_its_matrix_version(period):
    before = {}

    def step(k, x, g, w):
        periods = np.broadcast_to(period, N)
        t = damping(w) if min(periods) == 1 else 1.0
        v = (1 - t) * np.eye(N) + t * w
        y = x - LR * g(x, k)
        x = y + before.pop("mix", 0.0)
        mixes = np.array([k % q == 0 for q in periods])
        m = np.where(np.outer(mixes, mixes), v, 0.0)
        np.fill_diagonal(m, 0.0)
        m += np.diag(1 - m.sum(axis=1))
        before["mix"] = m @ y - y
        return x

    t = compare(step, algorithm__delay=1, algorithm__period=period)
    assert (period == 3) == ("damping" not in vars(t.algorithm))
    assert t.algorithm.describe().endswith("delay 1" if period == 3 else f"delay 1 (W damped by {t.algorithm.damping:g})")


def test_a_delayed_mix_keeps_the_mean_and_agrees():
    t = trainer(algorithm__delay=1, training__lr=0.0, training__epochs=100, training__max_steps=100)
    mean, spread = rows(t).mean(axis=0), np.ptp(rows(t), axis=0).max()
    for _ in range(60):
        t.step()
    assert np.abs(rows(t).mean(axis=0) - mean).max() < 1e-14
    assert np.ptp(rows(t), axis=0).max() < 1e-3 * spread


def test_a_delayed_run_continues_where_its_state_was_taken():
    whole = trainer(algorithm__delay=1, training__momentum=0.9)
    for _ in range(5):
        whole.step()
    state = whole.state_dict()
    rest = trainer(algorithm__delay=1, training__momentum=0.9)
    rest.load_state_dict(state)
    for _ in range(5):
        whole.step(), rest.step()
    assert np.array_equal(rows(whole), rows(rest))


@pytest.mark.parametrize(
    "keys, words",
    [
        (dict(algorithm__order="dpsgd"), "order atc"),
        (dict(algorithm__rounds=2), "one round"),
        (dict(algorithm__name="gossip"), "algorithm.delay = 0"),
        (dict(training__momentum_policy="mixed"), "momentum_policy = local"),
        (dict(model__buffers="mixed", model__name="digits-cnn", shape=(1, 8, 8)), "buffers = local"),
    ],
)
def test_what_cannot_be_delayed_is_refused(keys, words):
    with pytest.raises(UserError, match=words):
        trainer(algorithm__delay=1, **keys)


@pytest.mark.parametrize("mix", ["thesis", "mutual"])
def test_unequal_vertices_are_their_matrix_version(mix):
    train, period = [1, 2, 1, 3, 1, 2], [1, 2, 3, 1, 2, 4]

    def step(k, x, g, w):
        return matrix.unequal(k, x, g, LR, w, train, period, mix)

    compare(step, algorithm__train_every=train, algorithm__period=period, algorithm__mix=mix)


def test_powers_set_the_training_periods():
    t = trainer(hetero__powers=[4.0, 2.0, 1.0, 4.0, 2.0, 1.0])
    assert t.algorithm.train_every == [1, 2, 4, 1, 2, 4]


def test_gossip_is_its_matrix_version():
    edges = [(i, i + 1) for i in range(N - 1)] + [(0, N - 1)]
    edges.sort()
    drawn = [[edges[e] for e in generator(1, "gossip", step=k).integers(N, size=4)] for k in range(STEPS)]
    # Draws must repeat an edge and share a vertex somewhere, or the order of the pairs is not tested.
    assert any(len(set(pairs)) < 4 for pairs in drawn)
    compare(lambda k, x, g, w: matrix.gossip(k, x, g, LR, drawn[k]), algorithm__name="gossip", algorithm__pairs=4)


def test_local_sgd_is_its_matrix_version():
    compare(lambda k, x, g, w: matrix.local_sgd(k, x, g, LR, 4), algorithm__name="local-sgd", algorithm__tau=4)


def test_one_shot_is_its_matrix_version():
    compare(lambda k, x, g, w: matrix.one_shot(k, x, g, LR, STEPS - 1), algorithm__name="one-shot")


def test_allreduce_is_its_matrix_version():
    compare(lambda k, x, g, w: matrix.allreduce(k, x, g, LR), algorithm__name="allreduce", training__init="identical")


def test_allreduce_is_local_sgd_with_tau_1_for_momentum():
    both = dict(training__momentum=0.9, training__weight_decay=0.01, training__init="identical", training__momentum_policy="mixed")
    a, b = trainer(algorithm__name="allreduce", **both), trainer(algorithm__name="local-sgd", algorithm__tau=1, **both)
    for _ in range(STEPS):
        a.step(), b.step()
    assert np.abs(rows(a) - rows(b)).max() < 1e-12


@pytest.mark.parametrize("policy", ["local", "mixed", "reset"])
@pytest.mark.parametrize("arithmetic", ["flat", "torch"])
@pytest.mark.parametrize("order", ["atc", "cta", "dpsgd"])
def test_momentum_policies_are_their_matrix_version(policy, arithmetic, order):
    mu, decay, q = 0.8, 0.05, 2
    v = np.zeros((N, CLASSES * 9 + CLASSES))

    def step(k, x, g, w):
        m = w if k % q == 0 else np.eye(N)

        def mixed(x):
            v[:] = m @ v if policy == "mixed" else 0 * v if policy == "reset" and k % q == 0 else v
            return m @ x

        def local(x, gradient):
            v[:] = mu * v + gradient
            return x - LR * v

        if order == "cta":
            x = mixed(x)
        gradient = g(x, k) + decay * x
        if order == "dpsgd":
            return local(mixed(x), gradient)
        x = local(x, gradient)
        return mixed(x) if order == "atc" else x

    compare(
        step, training__momentum=mu, training__weight_decay=decay, training__momentum_policy=policy, algorithm__period=q,
        training__arithmetic=arithmetic, algorithm__order=order,
    )  # fmt: skip


@pytest.mark.parametrize("arithmetic", ["flat", "torch"])
def test_adam_is_its_formula(arithmetic):
    m, v = np.zeros((N, CLASSES * 10)), np.zeros((N, CLASSES * 10))

    def step(k, x, g, w):
        gradient = g(x, k)
        m[:] = 0.9 * m + 0.1 * gradient
        v[:] = 0.999 * v + 0.001 * gradient**2
        x = x - 0.01 * (m / (1 - 0.9 ** (k + 1))) / (np.sqrt(v / (1 - 0.999 ** (k + 1))) + 1e-8)
        return w @ x

    compare(step, training__optimizer="adam", training__lr=0.01, training__arithmetic=arithmetic)


def test_clipping_bounds_the_gradient():
    def step(k, x, g, w):
        gradient = g(x, k)
        gradient *= np.minimum(1, 0.3 / (np.linalg.norm(gradient, axis=1, keepdims=True) + 1e-6))
        return w @ (x - LR * gradient)

    compare(step, training__clip=0.3)


@pytest.mark.parametrize(
    "changes",
    [
        {}, {"algorithm__order": "cta"}, {"algorithm__order": "dpsgd"}, {"algorithm__period": [1, 2, 3, 1, 2, 4]},
        {"algorithm__name": "gossip", "algorithm__pairs": 5}, {"algorithm__name": "local-sgd", "algorithm__tau": 2},
    ],
)  # fmt: skip
def test_rounds_keep_the_mean(changes):
    t = trainer(training__lr=0.0, **changes)
    start = rows(t)
    for _ in range(STEPS):
        t.stepper.watch_drift()
        t.step()
    end = rows(t)
    assert np.abs(end.mean(axis=0) - start.mean(axis=0)).max() < 1e-14
    assert np.linalg.norm(end - end.mean(axis=0)) < 0.9 * np.linalg.norm(start - start.mean(axis=0))
    assert t.stepper.drift < 1e-13


def test_the_drift_of_one_sided_mixing_is_measured():
    t = trainer(training__lr=0.0, algorithm__period=[1, 2, 3, 1, 2, 4], algorithm__mix="thesis")
    for _ in range(3):
        t.step()
    before = rows(t).mean(axis=0)
    t.stepper.watch_drift()
    t.step()
    moved = np.linalg.norm(rows(t).mean(axis=0) - before)
    assert moved > 1e-3 and t.stepper.drift == pytest.approx(moved, rel=1e-12)


def test_one_vertex_is_a_plain_loop():
    t = trainer(n=1, training__arithmetic="torch", training__momentum=0.9, training__weight_decay=0.01)
    mirror = trainer(n=1)
    model, loader = mirror.block.modules[0], mirror.loaders[0]
    for p in model.parameters():
        p.grad = None
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=0.9, weight_decay=0.01)
    for k in range(STEPS):
        t.step()
        images, labels = loader.batch(k)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(mirror.augment.evaluate(images)), torch.from_numpy(labels)).backward()
        optimizer.step()
    assert np.array_equal(rows(t), rows(mirror))


def test_before_its_average_one_shot_trains_apart():
    compare(lambda k, x, g, w: x - LR * g(x, k), algorithm__name="one-shot", training__max_steps=0, training__epochs=9)


def test_state_dict_continues_exactly():
    changes = dict(training__momentum=0.9, algorithm__period=2, shape=(1, 8, 8), model__name="digits-cnn")
    whole, first = trainer(**changes), trainer(**changes)
    for _ in range(STEPS):
        whole.step()
    for _ in range(5):
        first.step()
    state = first.state_dict()
    second = trainer(**changes)
    second.load_state_dict(state)
    assert sorted(state["vertices"]) == list(range(N))
    for _ in range(STEPS - 5):
        second.step()
    for a, b in zip(whole.block.modules, second.block.modules):
        for (name, p), q in zip(a.state_dict().items(), b.state_dict().values()):
            assert torch.equal(p, q), name


def test_state_dict_continues_exactly_with_adam():
    changes = dict(training__optimizer="adam", training__lr=0.01, training__momentum_policy="mixed")
    whole, first = trainer(**changes), trainer(**changes)
    for _ in range(STEPS):
        whole.step()
    for _ in range(5):
        first.step()
    second = trainer(**changes)
    second.load_state_dict(first.state_dict())
    for _ in range(STEPS - 5):
        second.step()
    assert np.array_equal(rows(whole), rows(second))


@pytest.mark.parametrize("precision, dtype", [("float64", torch.float64), ("float32", torch.float32), ("tf32", torch.float32), ("bf16", torch.float32)])
def test_every_precision_trains_and_keeps_its_type(precision, dtype):
    t, exact = (trainer(training__precision=p, model__name="mlp") for p in (precision, "float64"))
    for _ in range(6):
        losses = t.step()[0]
        expected = exact.step()[0]
    assert t.block.storage[0].dtype == dtype
    # bf16 keeps 8 bits of a number: two or three digits of the loss.
    assert np.abs(losses - expected).max() < {"float64": 1e-15, "float32": 1e-4, "tf32": 1e-2, "bf16": 5e-2}[precision]
    assert precision != "bf16" or np.abs(losses - expected).max() > 1e-5, "autocast is at work"


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"algorithm__name": "local-sgd", "algorithm__order": "cta"}, "algorithm.order"),
        ({"algorithm__name": "gossip", "algorithm__period": [1, 2, 1, 2, 1, 2]}, "algorithm.period"),
        ({"algorithm__period": [1, 2]}, "6 vertices"),
        ({"algorithm__name": "allreduce", "algorithm__train_every": 2}, "train_every = 1"),
        ({"algorithm__train_every": [0, 1, 1, 1, 1, 1]}, "at least 1"),
        ({"transport__name": "shared"}, "mpirun"),
    ],
)
def test_what_means_nothing_is_refused(changes, words):
    with pytest.raises(UserError, match=words):
        trainer(**changes)


@pytest.mark.parametrize(
    "keys, unused",
    [
        (dict(algorithm__name="local-sgd", algorithm__period=8), ["algorithm.period = 8"]),
        (dict(algorithm__name="gossip", algorithm__rounds=2, algorithm__tau=4, algorithm__period=3), ["algorithm.rounds = 2", "algorithm.tau = 4"]),
        (dict(algorithm__name="local-sgd", algorithm__tau=4, algorithm__train_every=2), []),
        (dict(algorithm__period=8, algorithm__mix="thesis", algorithm__order="cta"), []),
    ],
)  # fmt: skip
def test_keys_that_mean_nothing_are_told(keys, unused):
    assert trainer(**keys).algorithm.unused() == unused
