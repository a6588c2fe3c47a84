"""Methods with compressed messages: each against its paper in numpy, step sizes, and what they are where nothing is left out."""

import numpy as np
import pytest
from compressed_problem import RATE, SEED, D, Problem, points, trainer
from reference import compressed as reference
from reference import matrix

from mpiconsensus.randomness import generator

STEPS = 30
# Some 10^4 roundings of 1e-16 a step in sums of numbers near 1; one element chosen otherwise makes 1e-4.
CLOSE = {"rtol": 0, "atol": 1e-11}


def support(k, count):
    return generator(SEED, "support", 0, k).choice(D, count, replace=False, shuffle=False)


def own_support(k, count, vertex):
    return generator(SEED, "compress", vertex, k).choice(D, count, replace=False, shuffle=False)


def uniform(k, vertex):
    return generator(SEED, "compress", vertex, k).random(D)


# name: (spec, C(v, k, vertex), zeta where it is unbiased)
OPERATORS = {
    "top": ("top-k:10", lambda v, k, i: reference.top(v, 10), None),
    "sign": ("sign", lambda v, k, i: reference.sign(v), None),
    "svd": ("svd:1", lambda v, k, i: reference.best_rank(v, 3, 1), None),
    "rand": ("rand-k:0.4", lambda v, k, i: reference.at(v, support(k, 20)), None),
    "unbiased": ("rand-k-unbiased:17", lambda v, k, i: reference.at(v, support(k, 17), 3.0), 3.0),
    "qsgd": ("qsgd:4", lambda v, k, i: reference.dither(v, 4, uniform(k, i)), 1 + min(D / 16, np.sqrt(D) / 4)),
}
# where each vertex draws its own
INDEPENDENT = {"unbiased": ("rand-k-unbiased:17", lambda v, k, i: reference.at(v, own_support(k, 17, i), 3.0), 3.0), "qsgd": OPERATORS["qsgd"]}


def compress(name, contractive=False, operators=OPERATORS):
    """Return c(k, V) of the reference; contractive: divided by zeta where it is unbiased."""
    _, function, zeta = operators[name]
    scale = 1 / zeta if contractive and zeta else 1.0
    return lambda k, v: np.array([scale * function(row, k, i) for i, row in enumerate(v)])


def assert_follows(t, expected):
    for k, wanted in enumerate(expected):
        t.step()
        np.testing.assert_allclose(points(t), wanted, err_msg=f"step {k}", **CLOSE)
    t.close()


def coin(k):
    return generator(SEED, "marina", 0, k).random() < 0.25


AMONG_ALL = [
    *(("dcgd", name, False, reference.dcgd, {}, {}) for name in OPERATORS),
    *(("ef14", name, True, reference.ef14, {}, {}) for name in OPERATORS),
    *(("ef21", name, True, reference.ef21, {}, {}) for name in OPERATORS),
    *(("ef21-sgdm", name, True, reference.ef21, {"eta": 0.3}, {"compression__eta": 0.3}) for name in ("top", "qsgd")),
    *(("diana", name, False, reference.diana, {"zeta": OPERATORS[name][2]}, {}) for name in INDEPENDENT),
    ("diana", "unbiased", False, reference.diana, {"zeta": 3.0}, {"compression__supports": "shared"}),
    ("ef21", "unbiased", True, reference.ef21, {}, {"compression__supports": "own"}),
    *(("marina", name, False, reference.marina, {"coin": coin}, {"compression__dense_probability": 0.25}) for name in INDEPENDENT),
]


@pytest.mark.parametrize("method, operator, contractive, function, words, keys", AMONG_ALL, ids=lambda v: v if isinstance(v, str) else "")
def test_methods_among_all_are_those_of_their_papers(method, operator, contractive, function, words, keys):
    t = trainer(method, OPERATORS[operator][0], **keys)
    alike = keys.get("compression__supports", "own" if method in ("diana", "marina") else "shared") == "shared"
    c = compress(operator, contractive, OPERATORS if alike or operator not in INDEPENDENT else INDEPENDENT)
    assert_follows(t, function(points(t), Problem(5).gradients, RATE, c, STEPS, **words))


@pytest.mark.parametrize("method", ["diana", "marina"])
@pytest.mark.parametrize("supports, independent", [("auto", 5), ("own", 5), ("shared", 1)])
def test_errors_that_all_draw_alike_do_not_average_out(method, supports, independent):
    keys = {"compression__supports": supports, "compression__smoothness": [2.0, 3.0], "compression__dense_probability": 0.25}
    t = trainer(method, "rand-k-unbiased:17", compression__multiple=1.0, **keys)
    assert t.rate(0) == pytest.approx(THEORY[method](2.0, 3.0, 3.0, independent), rel=1e-12)


@pytest.mark.parametrize("method, operator", [("ef14", "top"), ("ef21", "top"), ("ef21-sgdm", "sign"), ("diana", "qsgd")])
def test_momentum_and_decay_of_the_optimizer_act_on_what_all_agreed_on(method, operator):
    """x <- x - a m, m <- 0.5 m + (direction + 0.1 x): the direction of EF14 is what it would subtract, divided by the rate."""
    t = trainer(method, OPERATORS[operator][0], training__momentum=0.5, training__weight_decay=0.1, compression__eta=0.3)
    x, gradients, c = points(t)[0], Problem(5).gradients, compress(operator, method != "diana")
    error = h = m = 0.0
    v = None
    for k in range(STEPS):
        g = gradients(np.tile(x, (5, 1)))
        v = 0.7 * v + 0.3 * g if method == "ef21-sgdm" and k else g
        if method == "ef14":
            wanted = error + RATE * g
            told = c(k, wanted)
            error, direction = wanted - told, told.mean(axis=0) / RATE
        elif method == "diana":
            told = c(k, g - h)
            direction = (h + told).mean(axis=0)
            h = h + told / OPERATORS[operator][2]
        else:
            h = h + c(k, v - h) if k else v
            direction = h.mean(axis=0)
        m = 0.5 * m + direction + 0.1 * x
        x = x - RATE * m
        t.step()
        np.testing.assert_allclose(points(t), np.tile(x, (5, 1)), **CLOSE)


@pytest.mark.parametrize("graph, n", [("ring:5", 5), ("tree:2,2", 7)])
@pytest.mark.parametrize("method", ["choco-sgd", "choco-gossip", "beer"])
@pytest.mark.parametrize("operator", ["top", "rand", "qsgd"])
def test_methods_on_a_graph_are_those_of_their_papers(method, operator, graph, n):
    t = trainer(method, OPERATORS[operator][0], graph, n=n, compression__gamma=0.4, training__init="independent")
    w = matrix.weights(n, t.wiring.edges)
    function = reference.beer if method == "beer" else reference.choco
    rate = 0 if method == "choco-gossip" else RATE
    c = compress(operator, contractive=True)
    assert_follows(t, function(points(t), Problem(n).gradients, rate, c, STEPS, w=w, gamma=0.4))


def test_gossip_takes_the_step_that_is_proven_where_none_is_given():
    """Theorem 2 of Koloskova, Stich & Jaggi 2019 on the ring of 5: eigenvalues (1 + 2 cos(2 pi j / 5)) / 3, delta = k / d."""
    values = sorted((1 + 2 * np.cos(2 * np.pi * j / 5)) / 3 for j in range(5))
    rho, beta, delta = 1 - values[-2], 1 - values[0], 10 / D
    wanted = rho**2 * delta / (16 * rho + rho**2 + 4 * beta**2 + 2 * rho * beta**2 - 8 * rho * delta)
    for method in ("choco-sgd", "choco-gossip", "beer"):
        assert trainer(method, "top-k:10").algorithm.gamma == pytest.approx(wanted, rel=1e-12)


THEORY = {  # step size by (L, L', alpha or zeta, n), of the papers
    "dcgd": lambda L, L_, zeta, n: 1 / L,
    "ef14": lambda L, L_, zeta, n: 1 / (L + L_ * np.sqrt((1 - 1 / zeta) / (1 - np.sqrt(1 - 1 / zeta)) ** 2)),
    "ef21": lambda L, L_, zeta, n: 1 / (L + L_ * np.sqrt((1 - 1 / zeta) / (1 - np.sqrt(1 - 1 / zeta)) ** 2)),
    "diana": lambda L, L_, zeta, n: 1 / (L * (1 + 6 * (zeta - 1) / n)),
    "marina": lambda L, L_, zeta, n: 1 / (L + L_ * np.sqrt(0.75 * (zeta - 1) / (0.25 * n))),
}


@pytest.mark.parametrize("method", THEORY)
def test_step_sizes_are_those_of_theory_times_the_multiple(method):
    t = trainer(method, "qsgd:4", compression__multiple=1.5, compression__smoothness=[2.0, 3.0], compression__dense_probability=0.25)
    assert t.rate(0) == pytest.approx(1.5 * THEORY[method](2.0, 3.0, OPERATORS["qsgd"][2], 5), rel=1e-12)


NOTHING = ["identity", "top-k:1.0", "rand-k:51", "rand-k-unbiased:51", "svd:3"]


@pytest.mark.parametrize("operator", NOTHING)
@pytest.mark.parametrize("method", ["dcgd", "ef14", "ef21", "ef21-sgdm", "diana", "marina"])
def test_where_nothing_is_left_out_it_is_allreduce(method, operator):
    """eta = 1. DIANA and MARINA take what is unbiased."""
    if method in ("diana", "marina") and operator not in ("identity", "rand-k-unbiased:51"):
        return
    t, plain = trainer(method, operator, compression__eta=1.0, training__momentum=0.9), trainer("allreduce", training__momentum=0.9)
    for _ in range(STEPS):
        t.step(), plain.step()
    np.testing.assert_allclose(points(t), points(plain), **CLOSE)


@pytest.mark.parametrize("operator", NOTHING)
def test_choco_without_compression_and_gamma_1_is_consensus(operator):
    ways = {"training__init": "independent", "training__momentum": 0.9}
    t, plain = trainer("choco-sgd", operator, compression__gamma=1.0, **ways), trainer("consensus", **ways)
    for _ in range(STEPS):
        t.step(), plain.step()
    np.testing.assert_allclose(points(t), points(plain), **CLOSE)


@pytest.mark.parametrize("operator", ["top-k:10", "qsgd:4", "sign"])
def test_with_all_of_the_new_gradient_sgdm_is_ef21_bit_for_bit(operator):
    one, other = trainer("ef21-sgdm", operator, compression__eta=1.0), trainer("ef21", operator)
    for _ in range(STEPS):
        one.step(), other.step()
    np.testing.assert_array_equal(points(one), points(other))
