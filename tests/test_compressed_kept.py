"""What methods with compressed messages conserve, EF21's Lyapunov inequality, and what is refused."""

import math

import numpy as np
import pytest
import torch
from compressed_problem import RATE, D, Problem, points, trainer

from mpiconsensus import config
from mpiconsensus.errors import TrainingError, UserError

LONG = {("ef21", "top-k:3"): 10_000, ("diana", "rand-k-unbiased:17"): 2500}


@pytest.mark.parametrize("method, operator", [*LONG, ("ef21", "rand-k:9"), ("ef21-sgdm", "sign"), ("ef21", "qsgd:2"), ("diana", "qsgd:16"), ("diana", "natural")])
@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_the_common_mean_is_that_of_the_workers(method, operator, precision):
    """After up to 10,000 rounds. One rounds the mean n times at most, and each vertex once, by half an ulp of the largest number."""
    n, rounds = 2, LONG.get((method, operator), 300) if precision == "float32" else 300
    t = trainer(method, operator, "ring:2", n=n, training__precision=precision)
    algorithm, stepper, random = t.algorithm, t.stepper, np.random.default_rng(3)
    gradients, largest = random.standard_normal((n, t.block.p)).astype(stepper.dtype), 0.0
    news = random.standard_normal((100, n, t.block.p)).astype(stepper.dtype)
    for k in range(rounds):
        gradients = 0.9 * gradients + news[k % 100]
        stepper.mean_gradients(list(torch.from_numpy(gradients.copy())), 0.1)
        stepper.k += 1
        largest = max(largest, np.abs(algorithm.known).max())
    wanted = algorithm.known.mean(axis=0, dtype=np.float64)
    assert np.abs(wanted).max() > 0.1
    assert np.abs(algorithm.mean - wanted).max() <= (n + 1) / 2 * rounds * np.finfo(stepper.dtype).eps * largest


@pytest.mark.parametrize("graph, n", [("ring:5", 5), ("star:5", 5)])
@pytest.mark.parametrize("operator", ["top-k:5", "qsgd:4", "sign"])
def test_choco_keeps_the_mean_and_agrees(graph, n, operator):
    t = trainer("choco-gossip", operator, graph, n=n, compression__gamma=0.1, training__init="independent")
    start = points(t)
    for _ in range(200):
        t.step()
        np.testing.assert_allclose(points(t).mean(axis=0), start.mean(axis=0), rtol=0, atol=1e-13)
    assert np.ptp(points(t), axis=0).max() < 0.2 * np.ptp(start, axis=0).max()


def test_choco_sgd_moves_the_mean_by_the_mean_gradient_alone():
    t = trainer("choco-sgd", "top-k:5", "star:5", compression__gamma=0.3, training__init="independent")
    gradients = Problem(5).gradients
    for _ in range(30):
        x = points(t)
        t.step()
        np.testing.assert_allclose(points(t).mean(axis=0), (x - RATE * gradients(x)).mean(axis=0), rtol=0, atol=1e-13)


@pytest.mark.parametrize("operator", ["top-k:5", "qsgd:4", "svd:1"])
def test_beers_trackers_have_the_mean_of_the_gradients_at_every_step(operator):
    t = trainer("beer", operator, "star:5", compression__gamma=0.2, training__init="independent")
    gradients = Problem(5).gradients
    for _ in range(60):
        there = gradients(points(t))
        t.step()
        np.testing.assert_allclose(t.algorithm.tracker.mean(axis=0), there.mean(axis=0), rtol=0, atol=1e-12)
    assert np.ptp(t.algorithm.tracker, axis=0).max() > 1e-6, "trackers that are all alike would show nothing"


@pytest.mark.parametrize("operator, alpha", [("top-k:10", 10 / D), ("top-k:1", 1 / D), ("svd:1", 1 / 3), ("top-k:26+power-of-two", 26 / D * 8 / 9), ("sign", 1 / D)])
def test_ef21_descends_by_its_lyapunov_function_at_every_iteration(operator, alpha):
    """Theorem 1 of Richtarik, Sokolov & Fatkhullin 2021, for compressors that contract every vector:

    f(x+) + a / (2 theta) G+ <= f(x) + a / (2 theta) G - (a / 2) |grad f(x)|^2, G = mean_i |h_i - grad f_i(x)|^2.
    """
    problem = Problem(5)
    L, L_ = problem.smoothness()
    t = trainer("ef21", operator, compression__multiple=1.0, compression__smoothness=[L, L_])
    theta = 1 - math.sqrt(1 - alpha)
    a = 1 / (L + L_ * math.sqrt((1 - alpha) / theta / theta))
    before, off = None, []
    for _ in range(100):
        x = points(t)
        assert t.rate(t.k) == pytest.approx(a, rel=1e-12)
        t.step()
        there = problem.gradients(x)
        off.append(np.square(t.algorithm.known - there).sum(axis=1).mean())
        value = problem.loss(x[0]).mean() + a / (2 * theta) * off[-1]
        if before is not None:
            assert value <= before + 1e-14
        before = value - a / 2 * np.square(there.mean(axis=0)).sum()
    assert max(off) > 1e-6, "what is known lags behind"


CASES = {
    "biased": (dict(name="diana", operator="top-k:3"), ["algorithm.name = diana", "unbiased", "top-k:3", "rand-k-unbiased", "ef21"]),
    "biased marina": (dict(name="marina", operator="sign"), ["marina", "unbiased", "sign"]),
    "biased values": (dict(name="diana", operator="rand-k-unbiased:3+power-of-two"), ["rand-k-unbiased:3+power-of-two", "power-of-two is not unbiased"]),
    "batches": (dict(name="marina", operator="natural", training__batch_size=8), ["marina", "whole shards", "training.batch_size = 28", "ef21"]),
    "directed": (dict(name="choco-sgd", graph="directed-ring:5"), ["choco-sgd", "undirected", "push-sum"]),
    "weights": (dict(name="beer", graph="star:5", topology__weights="uniform"), ["beer", "rows and columns sum to 1", "topology.weights = metropolis"]),
    "changing": (dict(name="beer", graph="matchings:ring:5"), ["beer", "that stays", "topology.graph"]),
    "init": (dict(name="ef21", training__init="independent"), ["ef21", "training.init = identical"]),
    "momentum": (dict(name="ef21", training__momentum_policy="mixed", training__momentum=0.9), ["ef21", "training.momentum_policy = local"]),
    "buffers": (dict(name="beer", model__buffers="reset", model="digits-cnn"), ["beer", "model.buffers = local"]),
    "no smoothness": (dict(name="ef21", compression__multiple=1.0), ["compression.multiple", "model.name = linear", "compression.smoothness = [L", "training.lr"]),
    "smoothness": (dict(name="ef21", compression__multiple=1.0, compression__smoothness=[1.0, 2.0, 3.0]), ["[1.0, 2.0, 3.0]", "3 numbers", "two"]),
    "no theory": (dict(name="choco-sgd", compression__multiple=2.0, compression__smoothness=[1.0, 1.0]), ["compression.multiple = 2", "choco-sgd", "training.lr"]),
    "no constant": (dict(name="ef21", operator="power-step:1", compression__multiple=2.0, compression__smoothness=[1.0, 1.0]), ["compression.multiple = 2", "power-step:1", "training.lr"]),
    "no proven step": (dict(name="choco-sgd", operator="power-step:1"), ["compression.gamma = 0", "power-step:1", "above 0"]),
    "operator": (dict(name="ef21", operator="topk:3"), ["topk", "top-k"]),
    "count": (dict(name="ef21", operator="top-k:52"), ["top-k:52", "51"]),
    "scope": (dict(name="ef21", compression__scope="bucket"), ["bucket", "vector", "tensor", "bucket:N"]),
    "powers": (dict(name="ef21", algorithm__train_every=[1, 2, 1, 1, 1]), ["ef21", "algorithm.train_every = 1", "consensus"]),
    "order": (dict(name="choco-sgd", algorithm__order="cta"), ["choco-sgd", "cta", "atc"]),
    "delay": (dict(name="beer", algorithm__delay=1), ["beer", "algorithm.delay = 0"]),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_cannot_be_is_refused_in_one_line(case):
    words, told = CASES[case]
    with pytest.raises(UserError) as error:
        trainer(**words)
    assert "\n" not in str(error.value) and all(word in str(error.value) for word in told), str(error.value)


@pytest.mark.parametrize("word, value", [("eta", 0.0), ("eta", 1.5), ("gamma", 1.1), ("gamma", -0.1), ("multiple", -1.0), ("dense_probability", 2.0), ("smoothness", 3.0)])
def test_keys_out_of_range_are_refused(word, value):
    key = config.find(f"compression.{word}")
    with pytest.raises(UserError, match=rf"compression.{word} = {value} is not allowed"):
        config.check(key, value)


@pytest.mark.parametrize("name, operator", [("ef21", "top-k:10"), ("ef21", "top-k:10+natural"), ("ef14", "natural"), ("dcgd", "bf16"), ("ef21", "rand-k:5"), ("diana", "qsgd:4"), ("beer", "top-k:10"),
                                            ("choco-sgd", "top-k:10"), ("dcgd", "svd:1"), ("ef21", "power-step:1"), ("ef14", "sign"), ("dcgd", "terngrad")])  # fmt: skip
@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_gradients_that_are_not_finite_end_the_run(name, operator, broken, monkeypatch):
    """One number of one vertex, with a loss that is finite: within three steps, whatever the compressor makes of it."""
    t = trainer(name, operator, compression__gamma=0.2)
    gradients = t.concurrency.gradients

    def damaged(indices, k):
        found = gradients(indices, k)
        if k == 2:
            t.block.gradients[1][3] = broken
        return found

    monkeypatch.setattr(t.concurrency, "gradients", damaged)
    t.step(), t.step()
    with pytest.raises(TrainingError, match="vertex .* step"):
        for _ in range(3):
            t.step()
