"""Mixing matrices against closed-form spectra, an entry-by-entry reference, and what every one must satisfy."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpiconsensus import topology, weights
from mpiconsensus.errors import UserError

# alpha of best-constant is rounded to 12 significant digits: by at most 5e-12 of itself, and alpha lambda_1 < 2.
ROUNDED = 1e-11
EXACT = 1e-13
SYMMETRIC = ["lazy", "max-degree", "metropolis", "best-constant", "fastest", "fastest-nonnegative", "fastest-laplacian"]
METHODS = ["metropolis", "best-constant", "fastest", "fastest-nonnegative", "fastest-laplacian", "max-degree"]


@pytest.fixture(autouse=True, scope="module")
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPICONSENSUS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def second(spec, method):
    graph = topology.build(spec)
    return weights.second_modulus(weights.mixing_matrix(len(graph), topology.edges(graph), method))


@st.composite
def connected(draw):
    """(n, edges) of a random connected graph: a random tree and some chords."""
    n = draw(st.integers(1, 14))
    edges = {(draw(st.integers(0, j - 1)), j) for j in range(1, n)}
    if n > 1:
        some = draw(st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), max_size=2 * n))
        edges |= {(min(e), max(e)) for e in some if e[0] != e[1]}
    return n, np.array(sorted(edges), dtype=np.int64).reshape(-1, 2)


def laplacian(n, edges):
    L = np.zeros((n, n))
    for i, j in edges:
        L[i, i] += 1
        L[j, j] += 1
        L[i, j] = L[j, i] = -1
    return L


@pytest.mark.parametrize("n", [3, 4, 5, 8, 25])
def test_ring(n):
    # Eigenvalues of the ring's Laplacian: 2 - 2 cos(2 pi k / n).
    spectrum = [2 - 2 * math.cos(2 * math.pi * k / n) for k in range(1, n)]
    assert second(f"ring:{n}", "metropolis") == pytest.approx(max(abs(1 - v / 3) for v in spectrum), abs=EXACT)
    high, low = max(spectrum), min(spectrum)
    assert second(f"ring:{n}", "best-constant") == pytest.approx((high - low) / (high + low), abs=ROUNDED)


@pytest.mark.parametrize("n", [2, 3, 5, 36])
def test_star(n):
    # Eigenvalues of the star's Laplacian: 0, 1 (n - 2 times), n.
    assert second(f"star:{n}", "metropolis") == pytest.approx(1 - 1 / n if n > 2 else 0, abs=EXACT)
    assert second(f"star:{n}", "best-constant") == pytest.approx((n - 1) / (n + 1) if n > 2 else 0, abs=ROUNDED)


@pytest.mark.parametrize("n", [1, 2, 5, 36])
@pytest.mark.parametrize("method", METHODS)
def test_complete_averages_in_one_round(n, method):
    assert second(f"complete:{n}", method) == pytest.approx(0, abs=ROUNDED)


def test_torus_and_grid():
    assert second("torus:6x6", "best-constant") == pytest.approx(7 / 9, abs=ROUNDED)
    assert second("torus:6x6", "metropolis") == pytest.approx(1 - 1 / 5, abs=EXACT)
    assert round(second("grid:5x10", "metropolis"), 4) == 0.9785
    assert round(second("grid:5x10", "best-constant"), 4) == 0.9743


@pytest.mark.parametrize("method", METHODS)
def test_one_vertex_and_two(method):
    assert weights.mixing_matrix(1, np.empty((0, 2), np.int64), method).tolist() == [[1.0]]
    assert weights.mixing_matrix(2, np.array([[0, 1]]), method).tolist() == [[0.5, 0.5], [0.5, 0.5]]


def test_metropolis_entry_by_entry():
    # A triangle with a tail: degrees 2, 2, 3, 1.
    W = weights.mixing_matrix(4, [[0, 1], [0, 2], [1, 2], [2, 3]], "metropolis")
    expected = [
        [1 - 1 / 3 - 1 / 4, 1 / 3, 1 / 4, 0],
        [1 / 3, 1 - 1 / 3 - 1 / 4, 1 / 4, 0],
        [1 / 4, 1 / 4, 1 / 4, 1 / 4],
        [0, 0, 1 / 4, 3 / 4],
    ]
    np.testing.assert_allclose(W, expected, rtol=0, atol=1e-15)


@settings(max_examples=150, deadline=None)
@given(connected(), st.sampled_from(SYMMETRIC))
def test_every_mixing_matrix(graph, method):
    n, edges = graph
    W = weights.mixing_matrix(n, edges, method)
    assert W.shape == (n, n)
    assert W.dtype == np.float64
    assert (W.T == W).all()
    np.testing.assert_allclose(W.sum(axis=1), 1, rtol=0, atol=1e-12)
    np.testing.assert_allclose(W.sum(axis=0), 1, rtol=0, atol=1e-12)
    support = set(zip(*np.nonzero(np.triu(W, 1)), strict=True))
    assert support <= set(map(tuple, edges.tolist()))
    assert support == set(map(tuple, edges.tolist())) or method.startswith("fastest")  # the best weight can be 0
    assert weights.second_modulus(W) < 1
    weights.check(W, edges, symmetric=True, contracts=True)


@settings(max_examples=60, deadline=None)
@given(connected(), st.floats(0.3, 3))
def test_no_other_constant_is_better(graph, factor):
    n, edges = graph
    W = weights.mixing_matrix(n, edges, "best-constant")
    if n == 1:
        return
    alpha = W[tuple(edges[0])]
    L = laplacian(n, edges)
    np.testing.assert_allclose(W, np.eye(n) - alpha * L, rtol=0, atol=1e-14)
    other = np.abs(np.linalg.eigvalsh(np.eye(n) - factor * alpha * L - 1 / n)).max()
    assert weights.second_modulus(W) <= other + ROUNDED


def test_the_last_bits_of_the_eigenvalue_solver_do_not_matter(monkeypatch):
    edges = topology.edges(topology.build("grid:5x10"))
    before = weights.mixing_matrix(50, edges, "best-constant")
    solve = np.linalg.eigvalsh
    monkeypatch.setattr(np.linalg, "eigvalsh", lambda L: solve(L) * (1 + 4e-16))
    assert weights.mixing_matrix(50, edges, "best-constant").tobytes() == before.tobytes()


def test_second_modulus_is_a_modulus_and_takes_any_row_stochastic_matrix():
    assert weights.second_modulus([[0, 1], [1, 0]]) == pytest.approx(1, abs=EXACT)
    assert weights.second_modulus([[1, 0], [0, 1]]) == pytest.approx(1, abs=EXACT)
    # Eigenvalues 1 and 1/4; not symmetric.
    assert weights.second_modulus([[0.5, 0.5], [0.25, 0.75]]) == pytest.approx(0.25, abs=EXACT)
    # A directed cycle: the cube roots of 1.
    assert weights.second_modulus([[0, 1, 0], [0, 0, 1], [1, 0, 0]]) == pytest.approx(1, abs=EXACT)


@pytest.mark.parametrize(
    ("W", "words"),
    [
        ([[0.5, 0.5, 0.0]], ["(1, 3)", "square"]),
        ([[1.0, 0.0, 0.0], [0.5, 0.25, 0.25], [0.0, 0.5, 0.4]], ["row 2", "0.9"]),
        ([[0.5, 0.0, 0.5], [0.0, 1.0, 0.0], [0.5, 0.0, 0.5]], ["W[0,2]", "0.5", "off the edges"]),
        ([[1.0, 0.0, 0.0], [0.0, float("nan"), 0.0], [0.0, 0.0, 1.0]], ["W[1,1]", "nan"]),
    ],
)
def test_check_names_the_entry(W, words):
    with pytest.raises(UserError) as error:
        weights.check(np.array(W), [[0, 1], [1, 2]])
    assert [word for word in words if word not in str(error.value)] == []


def test_check_without_edges_takes_any_support():
    weights.check(np.full((3, 3), 1 / 3))


def test_rows_hold_the_nonzero_entries_and_the_vertex_itself():
    W = np.array([[0.0, 0.5, 0.5], [0.5, 0.5, 0.0], [0.5, 0.0, 0.5]])
    rows = weights.rows(W)
    assert [i.tolist() for i, _ in rows] == [[0, 1, 2], [0, 1], [0, 2]]
    assert [w.tolist() for _, w in rows] == [[0.0, 0.5, 0.5], [0.5, 0.5], [0.5, 0.5]]
    assert {(i.dtype, w.dtype) for i, w in rows} == {(np.dtype("int64"), np.dtype("float64"))}


def test_an_unknown_method_is_named():
    with pytest.raises(UserError, match="topology.weights = 'metropolish'.*best-constant.*Did you mean 'metropolis'"):
        weights.mixing_matrix(2, [[0, 1]], "metropolish")


@given(connected())
def test_damping_contracts_every_delayed_mix_and_no_other_hundredth_more(graph):
    """Against the spectrum of the block matrix of x_{k+1} = x_k + t (W - I) x_{k-1}."""
    n, edges = graph
    w = weights.mixing_matrix(n, edges, "metropolis")

    def slowest(t):
        m = np.block([[np.eye(n), t * (w - np.eye(n))], [np.eye(n), np.zeros((n, n))]])
        return np.sort(np.abs(np.linalg.eigvals(m)))[-2]  # the largest is the mean's

    chosen = weights.damping(w)
    if n == 1:
        assert chosen == 1.0
        return
    rates = [slowest(t) for t in np.arange(1, 101) / 100]
    # A double root of the polynomial is found to the square root of the rounding.
    assert slowest(chosen) < 1 and slowest(chosen) <= min(rates) + 1e-7


def test_a_ring_undamped_would_diverge():
    w = weights.mixing_matrix(4, topology.edges(topology.build("ring:4")), "metropolis")
    # Modes 1/3 and -1/3 have |z| = (1 + sqrt(1 - 8t/3)) / 2, falling, and sqrt(4t/3), rising: equal between 0.33 and 0.34,
    # at 0.6732 and 0.6733. Undamped the second has 1.15.
    assert weights.damping(w) == 0.33
