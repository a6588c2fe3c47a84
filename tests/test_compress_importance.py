"""Importance: mirror descent against a float64 version of a few lines, the operators against their definitions."""

import numpy as np
import pytest

from mpiconsensus import compress
from mpiconsensus.block import Layout
from mpiconsensus.compress.codec import Codec
from mpiconsensus.compress.importance import Importance
from mpiconsensus.errors import UserError

BOTH = [np.float32, np.float64]


def random(seed=0):
    return np.random.default_rng(seed)


def quadratic(d, seed=0):
    """Return the gradient of f(x) = sum a_i (x_i - b_i)^2 / 2 and its smoothness."""
    a, b = random(seed).uniform(0.1, 1, d), random(seed + 1).standard_normal(d)
    return (lambda x: a * (x - b)), a.max()


@pytest.mark.parametrize("scale", ["d", "max", "unit"])
@pytest.mark.parametrize("eta", [None, 3.0])
def test_mirror_descent_is_its_few_lines(scale, eta):
    d, gamma = 9, 0.7
    f, smooth = quadratic(d)
    learned, w, x = Importance(d, scale, eta), np.full(d, 1 / d), np.zeros(d)
    for _ in range(20):
        g = f(x)
        on_scale = w * {"d": d, "max": 1 / w.max(), "unit": 1}[scale]
        np.testing.assert_allclose(learned.weights, on_scale, rtol=1e-12)
        trial = x - gamma * on_scale * g
        np.testing.assert_allclose(learned.trial(x, g, gamma), trial, rtol=1e-12)
        learned.step(g, f(trial), gamma, smooth)
        step = eta or 1 / (gamma**2 * smooth * d * np.abs(g).max() ** 2)
        w = w * np.exp(step * gamma * g * f(trial))
        w /= w.sum()
        x = x - 0.1 * gamma * g
    assert np.ptp(learned.weights) > 0.1 * learned.weights.mean()  # they moved


def test_mirror_descent_finds_the_best_weights_of_a_separable_function():
    # f = sum (x_i - b_i)^2 a_i / 2 at x = 0, gamma = 1: where all w_i > 0, w_i = (1 - m / (a_i^2 b_i^2)) / a_i, of sum d
    a, b = np.array([0.8, 0.9, 1.0, 1.1]), np.array([1.0, -1.2, 1.1, 0.9])
    g = -a * b
    squares = (a * b) ** 2
    multiplier = ((1 / a).sum() - 4) / (1 / (a * squares)).sum()
    best = (1 - multiplier / squares) / a
    assert best.min() > 0 and best.sum() == pytest.approx(4)
    learned = Importance(4, eta=0.3)
    for _ in range(2000):
        learned.step(g, a * (learned.trial(np.zeros(4), g, 1.0) - b), 1.0)
    np.testing.assert_allclose(learned.weights, best, rtol=1e-8)


def test_weights_stay_finite_above_zero_and_within_their_bounds():
    learned = Importance(3, eta=1e4, low=0.25, high=2.0)
    learned.step(np.array([1.0, 0.0, -1.0]), np.array([1.0, 1.0, 1.0]), 1.0)
    np.testing.assert_array_equal(learned.weights, [2.0, 0.25, 0.25])
    for _ in range(3):  # far down, and back again: none is 0 for good
        learned.step(np.array([1.0, 0.0, -1.0]), np.array([-1.0, 1.0, -1.0]), 1.0)
    np.testing.assert_array_equal(learned.weights, [0.25, 0.25, 2.0])
    before = learned.weights
    learned.step(np.zeros(3), np.ones(3), 1.0)
    learned.step(np.array([np.nan, 1, 1]), np.ones(3), 1.0)
    learned.step(np.ones(3), np.array([1, np.inf, 1]), 1.0)
    np.testing.assert_array_equal(learned.weights, before)


def test_a_search_that_is_begun_anew_knows_nothing_of_the_last():
    one, other = Importance(5, eta=1.0), Importance(5, eta=1.0)
    one.step(np.arange(5.0), np.ones(5), 0.3)
    assert np.abs(one.weights - 1).max() > 0.1
    one.restart()
    for each in (one, other):
        each.step(np.ones(5), np.arange(5.0), 0.2)
    np.testing.assert_array_equal(one.weights, other.weights)


def test_mistakes_are_named():
    with pytest.raises(UserError, match="'sum'.*d, max, unit"):
        Importance(3, "sum")
    with pytest.raises(UserError, match=r"from 2\.0 to 1\.0"):
        Importance(3, low=2.0, high=1.0)
    with pytest.raises(UserError, match="eta or the smoothness"):
        Importance(3).step(np.ones(3), np.ones(3), 1.0)


@pytest.mark.parametrize("dtype", BOTH)
def test_operators_choose_and_scale_as_defined(dtype):
    w = np.array([0.5, 3, 1, 2, 0.1], dtype)
    x = np.array([10, 1, -4, 1.2, 90], dtype)
    # w x = 5, 3, -4, 2.4, 9
    expected = {"importance": [10, 0, 0, 0, 90], "md-greedy": [0, 1, 0, 1.2, 0], "md-greedy-weighted": [0, 3, 0, 2.4, 0],
                "md-weighted-greedy": [5, 0, 0, 0, 9]}  # fmt: skip
    for name, values in expected.items():
        c = compress.make(f"{name}:2", 5, dtype)
        c.weights = w
        np.testing.assert_allclose(c(x), np.array(values, dtype), rtol=1e-7)
    c = compress.make("md-greedy-weighted:2", 5, dtype)
    c.weights, c.normalised = w, True
    np.testing.assert_allclose(c(x), np.array([0, 3, 0, 2.4, 0]) * 2 / 5, rtol=1e-6)
    c.weights = np.zeros(5, dtype)
    np.testing.assert_array_equal(c(x), 0)
    c = compress.make("importance:2+power-of-two", 5, dtype)
    c.weights = w
    np.testing.assert_array_equal(c(x), [8, 0, 0, 0, 64])


def test_equal_weights_are_top_k():
    x = random(1).standard_normal(50).astype(np.float32)
    top = compress.make("top-k:7", 50)
    for name in ("importance:7", "md-weighted-greedy:7"):
        np.testing.assert_array_equal(compress.make(name, 50)(x), top(x))
    assert compress.make("importance:7", 50).alpha == top.alpha


@pytest.mark.parametrize(("low", "high", "k", "d"), [(1.0, 2.0, 3, 12), (0.5, 4.0, 1, 70), (1.0, 1.5, 5, 6)])
def test_importance_contracts_by_its_constant_and_no_more_at_the_worst_vectors(low, high, k, d):
    # k elements 1 with weight b, the others b / a with weight a: all |w x| tie, and the lower indices, the small ones, win
    x = np.full(d, high / low)
    x[:k] = 1.0
    c = compress.make(f"importance:{k}", d, np.float64)
    c.weights = np.where(np.arange(d) < k, high, low)
    left = np.square(c(x) - x).sum() / (x @ x)
    assert np.count_nonzero(c(x)[:k]) == k
    assert c.alpha == pytest.approx((low / high) ** 2 * k / d)
    # exactly: k of k + (d - k) (b/a)^2, which is k / d (a/b)^2 to within a share of k / d
    assert 1 - left == pytest.approx(k / (k + (d - k) * (high / low) ** 2))
    assert c.alpha <= 1 - left <= c.alpha / (1 - k / d)
    for seed in range(50):
        c.weights, v = random(seed).uniform(low, high, d), random(seed).standard_normal(d) ** 3
        assert np.square(c(v) - v).sum() <= (1 - c.alpha) * (v @ v)


def test_stochastic_draws_by_the_weights_without_replacement():
    # by successive draws of w = 1/2, 1/4, 1/4: pairs 01 and 02 with 1/2 1/2 + 1/4 2/3 = 5/12 each, 12 with 2 1/4 1/3 = 1/6
    c = compress.make("md-stochastic:2", 3, np.float64)
    c.weights, r = np.array([2.0, 1.0, 1.0]), random()
    drawn = [tuple(np.flatnonzero(c(np.array([1.0, 2.0, 3.0]), r))) for _ in range(6000)]
    counts = np.array([drawn.count(pair) for pair in ((0, 1), (0, 2), (1, 2))])
    expected = 6000 * np.array([5 / 12, 5 / 12, 1 / 6])
    # chi-squared of 2 degrees of freedom: above 13.8 once in a thousand seeds
    assert counts.sum() == 6000 and (np.square(counts - expected) / expected).sum() < 13.8


@pytest.mark.parametrize("name", ["importance", "md-stochastic", "md-greedy", "md-greedy-weighted", "md-weighted-greedy"])
def test_a_receiver_needs_no_weights(name):
    x, w = random(1).standard_normal((2, 40)).astype(np.float32)
    one, other = compress.make(f"{name}:6", 40), compress.make(f"{name}:6", 40)
    one.weights = np.abs(w)
    out = np.empty(40, np.float32)
    other.decode(one.encode(x, random(2)), out, None)
    np.testing.assert_array_equal(out, one(x, random(2)))
    assert one.bits == compress.make("top-k:6", 40).bits
    assert (one.alpha is None) == (name != "importance")


def test_a_codec_is_reweighed_section_by_section():
    import torch

    of = Layout(torch.nn.Linear(5, 3))
    a = Codec("importance:4", of, "tensor")
    w, x = random(1).uniform(0.1, 3, 18), random(2).standard_normal(18).astype(np.float32)
    a.reweigh(w)
    out = np.empty(18, np.float32)
    a.decode(a.encode(x, None), out, None)
    for part, k in ((slice(0, 15), 4), (slice(15, 18), 3)):
        kept = np.argsort(-np.abs(w[part] * x[part]))[:k]
        np.testing.assert_array_equal(out[part], np.where(np.isin(np.arange(len(x[part])), kept), x[part], 0))
    assert a.state_dict() == {}, "weights are sought anew at each step"
    assert a.alpha == pytest.approx(min(k * (p.min() / p.max()) ** 2 / len(p) for p, k in ((w[:15], 4), (w[15:], 3))), rel=1e-6)
