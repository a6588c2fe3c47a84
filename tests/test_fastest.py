"""Fastest-mixing weights: closed forms, published figures, and a certificate for every instance, checked in plain numpy.

The certificate shows optimality by itself: what it proves is worked out here from Z alone, with nothing of the solver.
"""

import math

import networkx as nx
import numpy as np
import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from test_weights import connected

from mpiconsensus import topology, weights
from mpiconsensus.errors import UserError
from mpiconsensus.weights import cache, fastest

METHODS = ["fastest", "fastest-nonnegative", "fastest-laplacian"]
GAP = 1e-6  # what is promised up to 100 vertices
GRID = 1e-9  # weights are multiples of 2^-34, 6e-11: of a row with d of them this is far above the change of an eigenvalue


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MPICONSENSUS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def graph(spec):
    """Return (n, edges) of a spec, or of "name:numbers" of networkx."""
    name, _, text = spec.partition(":")
    numbers = [int(x) for x in text.split(",")] if name in NETWORKX else []
    made = NETWORKX[name](*numbers) if name in NETWORKX else topology.build(spec)
    made = nx.convert_node_labels_to_integers(made, ordering="sorted")
    return len(made), topology.edges(made)


NETWORKX = {
    "path": nx.path_graph,
    "tree": nx.balanced_tree,
    "barbell": nx.barbell_graph,
    "lollipop": nx.lollipop_graph,
    "cube": nx.hypercube_graph,
    "bipartite": nx.complete_bipartite_graph,
}
INSTANCES = [
    "grid:5x10", "grid:2x3", "path:7", "path:40", "star:9", "complete:6", "ring:5", "ring:12", "torus:4x9", "torus:6x6", "torus:3x4x5",
    "cube:4", "tree:2,4", "tree:3,2", "barbell:6,3", "lollipop:7,4", "bipartite:3,5", "random:12,11", "random:30,60", "random:50,250",
    "regular:50,3", "regular:100,4", "circulant:50,7", "margulis:25",
]  # fmt: skip


def second_modulus(n, edges, w):
    W = np.eye(n)
    for (i, j), x in zip(edges, w, strict=True):
        W[i, j] = W[j, i] = x
        W[i, i] -= x
        W[j, j] -= x
    return np.abs(np.linalg.eigvalsh(W - 1 / n)).max(), W


def proven(n, edges, method, certificate):
    """Return the bound that (Z, q) proves, having checked that it does: see weights/certificate.py."""
    Z, q = certificate
    i, j = edges.T
    stretch = np.diag(Z)[i] + np.diag(Z)[j] - 2 * Z[i, j]
    assert np.array_equal(Z, Z.T)
    if method == "fastest-laplacian":
        assert np.linalg.eigvalsh(Z)[0] >= -1e-12 * np.trace(Z) and np.abs(Z.sum(axis=0)).max() <= 1e-12 * np.trace(Z)
        return stretch.max() / np.trace(Z)
    # What rounding leaves of a condition moves the bound by at most its size times sum |w|, some 1e-13.
    size = np.abs(np.linalg.eigvalsh(Z)).sum()
    if method == "fastest":
        assert q is None and np.abs(stretch).max() <= 1e-15 * max(size, 1)
        q = np.zeros(n)
    assert q.min() >= 0 and (stretch <= q[i] + q[j] + 1e-15 * max(size, 1)).all()
    return (np.trace(Z) - Z.sum() / n - q.sum()) / size if size else 0.0


def certified(n, edges, method, found, gap=GAP):
    """Assert that a Solution is what it says and optimal within the gap; return |lambda_2(W)|."""
    modulus, W = second_modulus(n, edges, found.weights)
    bound = proven(n, edges, method, found.certificate)
    assert found.bound == pytest.approx(bound, rel=1e-12, abs=1e-12)
    if method == "fastest-nonnegative":
        assert W.min() >= 0
    if method == "fastest-laplacian":
        assert found.weights.min() >= 0
        low, high = np.linalg.eigvalsh(np.eye(n) - W)[[1, -1]]
        assert low + high == pytest.approx(2, abs=GRID)  # scaled best
        assert found.value == pytest.approx(low / found.weights.sum(), rel=1e-12)
        assert found.value <= bound * (1 + 1e-12) <= found.value * (1 + gap)
        return modulus
    assert found.value == pytest.approx(modulus, abs=1e-13)
    assert found.value - gap <= bound <= found.value + 1e-13
    return modulus


@pytest.mark.parametrize("spec", INSTANCES)
def test_every_instance_has_its_certificate(spec):
    n, edges = graph(spec)
    values = {m: certified(n, edges, m, fastest.solution(n, edges, m)) for m in METHODS}
    for other in ("metropolis", "best-constant"):
        assert values["fastest"] <= weights.second_modulus(weights.mixing_matrix(n, edges, other)) + GAP
    assert values["fastest"] <= min(values["fastest-nonnegative"], values["fastest-laplacian"]) + GAP
    assert values["fastest-nonnegative"] <= weights.second_modulus(weights.mixing_matrix(n, edges, "metropolis")) + GAP


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("spec", ["random:120,200", "grid:10x12", "path:150", "regular:150,4"])
def test_beyond_a_hundred_vertices(spec, method):
    n, edges = graph(spec)
    certified(n, edges, method, fastest.solution(n, edges, method), gap=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_an_early_end_is_certified_too(method):
    n, edges = graph("random:60,150")
    found = fastest.solve(n, edges, method, tolerance=1e-3)
    certified(n, edges, method, found, gap=1e-3)
    assert found.steps < fastest.solve(n, edges, method).steps


def test_published_and_closed_forms():
    def value(spec, method):
        return fastest.solution(*graph(spec), method).value

    assert round(value("grid:5x10", "fastest"), 4) == 0.9563
    assert value("torus:6x6", "fastest") == pytest.approx(7 / 9, abs=GRID)
    for d in (2, 3, 4):  # Laplacian eigenvalues of the cube: 0, 2, ..., 2d
        assert value(f"cube:{d}", "fastest") == pytest.approx((d - 1) / (d + 1), abs=GRID)
    for n in (5, 12):
        assert value(f"star:{n}", "fastest") == pytest.approx((n - 1) / (n + 1), abs=GRID)
        # The centre gives away all it has: 1/(n-1) to each leaf.
        assert value(f"star:{n}", "fastest-nonnegative") == pytest.approx(1 - 1 / (n - 1), abs=GAP)
        assert value(f"star:{n}", "fastest-laplacian") == pytest.approx(1 / (n - 1), rel=GAP)
        assert value(f"complete:{n}", "fastest-laplacian") == pytest.approx(2 / (n - 1), rel=1e-12)


@pytest.mark.parametrize("n", [3, 6, 20])
def test_a_path(n):
    # Boyd, Diaconis, Sun, Xiao, "Fastest mixing Markov chain on a path", Amer. Math. Monthly 113 (2006): 1/2 on each edge.
    n, edges = graph(f"path:{n}")
    for found in (fastest.solution(n, edges, "fastest-nonnegative"), fastest.solve(n, edges, "fastest-nonnegative")):
        assert found.value == pytest.approx(math.cos(math.pi / n), abs=GAP)
    np.testing.assert_allclose(fastest.solution(n, edges, "fastest-nonnegative").weights, 0.5, rtol=0, atol=GRID)
    # lambda_2 <= 1 / sum x_i^2 of centred x with |x_i - x_j| <= 1 on edges: a line with unit steps; met by w_k ~ k (n - k).
    found = fastest.solution(n, edges, "fastest-laplacian")
    assert found.value == pytest.approx(12 / (n * (n**2 - 1)), rel=GAP)
    k = np.arange(1, n)
    np.testing.assert_allclose(found.weights / found.weights.sum(), k * (n - k) / (k * (n - k)).sum(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("spec", ["ring:7", "torus:6x6", "cube:4", "bipartite:3,4", "star:8"])
def test_edge_transitive_graphs_need_no_solver_and_the_solver_agrees(spec, monkeypatch):
    n, edges = graph(spec)
    by_steps = fastest.solve(n, edges, "fastest").value
    monkeypatch.setattr(fastest, "solve", None)
    found = fastest.solution(n, edges, "fastest")
    assert found.steps == 0 and abs(found.value - by_steps) <= GAP
    np.testing.assert_allclose(found.weights, weights.edge_weights(n, edges, "best-constant"), rtol=0, atol=0)


def test_edges_that_a_symmetry_swaps_weigh_alike():
    n, edges = graph("torus:4x9")
    found = fastest.solution(n, edges, "fastest")
    assert found.steps > 0
    along = (edges[:, 1] - edges[:, 0] == 1) | (edges[:, 1] - edges[:, 0] == 8)  # rows of 9
    assert np.ptp(found.weights[along]) < GRID and np.ptp(found.weights[~along]) < GRID
    assert abs(found.weights[along][0] - found.weights[~along][0]) > 0.1


@settings(max_examples=60, deadline=None)
@given(connected(), st.randoms(use_true_random=False))
def test_random_graphs(drawn, random):
    n, edges = drawn
    if n == 1:
        assert fastest.solution(n, edges, "fastest").value == 0
        return
    order = list(range(n))
    random.shuffle(order)
    relabelled = np.array(sorted(sorted((order[i], order[j])) for i, j in edges.tolist()))
    values = {}
    for method in METHODS:
        found = fastest.solution(n, edges, method)
        values[method] = certified(n, edges, method, found)
        other = fastest.solution(n, relabelled, method)
        certified(n, relabelled, method, other)
        assert other.value == pytest.approx(found.value, rel=GAP, abs=GAP)
        assert values[method] < 1
        W = weights.mixing_matrix(n, edges, method)
        assert np.array_equal(W, W.T) and np.abs(W.sum(axis=1) - 1).max() <= 1e-12
    assert values["fastest"] <= min(values["fastest-nonnegative"], values["fastest-laplacian"]) + GAP
    assert values["fastest"] <= weights.second_modulus(weights.mixing_matrix(n, edges, "best-constant")) + GAP
    for other in ("metropolis", "max-degree", "lazy"):
        assert values["fastest-nonnegative"] <= weights.second_modulus(weights.mixing_matrix(n, edges, other)) + GAP


def test_the_graph_with_negative_weights():
    folder = ROOT / "jobs" / "graphs"
    n, edges = graph(f"file:{folder / 'negative12.txt'}")
    W = np.loadtxt(folder / "negative12.csv", delimiter=",")
    weights.check(W, edges, symmetric=True, contracts=True)
    best, other = (fastest.solution(n, edges, m) for m in METHODS[:2])
    certified(n, edges, "fastest", best)
    certified(n, edges, "fastest-nonnegative", other)
    value = np.abs(np.linalg.eigvalsh(W - 1 / 12)).max()
    assert n == 12 and value - proven(n, edges, "fastest", best.certificate) <= 1e-5  # six digits of 21 weights
    off = W - np.diag(np.diag(W))
    assert off.min() <= -0.05 and best.weights.min() <= -0.05
    # Even what no nonnegative weights can fall below is 1 % above.
    assert value <= 0.99 * proven(n, edges, "fastest-nonnegative", other.certificate)


def test_too_many_edges_are_told():
    edges = np.array([(i, j) for i in range(120) for j in range(i + 1, 120)])[:6001]
    with pytest.raises(UserError, match="'fastest' on 6001 edges; .* up to 6000 edges: take metropolis or best-constant"):
        weights.mixing_matrix(120, edges, "fastest")


@pytest.mark.parametrize("method", METHODS)
def test_a_second_call_solves_nothing(method, monkeypatch, own_cache):
    n, edges = graph("grid:3x5")
    first = fastest.solution(n, edges, method)
    assert len(list(own_cache.iterdir())) == 1
    monkeypatch.setattr(fastest, "solve", None)
    again = fastest.solution(n, edges, method)
    assert again.weights.tobytes() == first.weights.tobytes()
    assert (again.value, again.steps) == (first.value, first.steps)
    certified(n, edges, method, again)
    with pytest.raises(TypeError):  # another graph is another question
        fastest.solution(*graph("grid:3x7"), method)


def forge(change):
    """Return a function of (path, arrays, n, edges) that writes the arrays back with `change` applied."""

    def write(path, arrays, n, edges):
        change(arrays, n, edges)
        np.savez(path, **arrays)

    return write


DAMAGES = {
    "no archive": lambda path, *_: path.write_bytes(b"nothing"),
    "empty": lambda path, *_: path.write_bytes(b""),
    "truncated": lambda path, *_: path.write_bytes(path.read_bytes()[:-200]),
    "a directory": lambda path, *_: (path.unlink(), path.mkdir()),
    "a flipped byte": lambda path, *_: path.write_bytes(path.read_bytes().replace(b"\x3f", b"\x3e")),
    "objects": forge(lambda a, n, e: a.update(weights=np.array([None] * len(e)))),
    "not finite": forge(lambda a, n, e: a["weights"].__setitem__(0, np.nan)),
    "too short": forge(lambda a, n, e: a.update(weights=a["weights"][1:])),
    "no certificate": forge(lambda a, n, e: a.pop("Z")),
    "zero certificate": forge(lambda a, n, e: a["Z"].fill(0)),
    "other weights": forge(lambda a, n, e: a.update(weights=weights.edge_weights(n, e, "metropolis"))),
    "negative weights": forge(lambda a, n, e: a.update(weights=-a["weights"])),
    "scaled": forge(lambda a, n, e: a.update(weights=a["weights"] / 2)),
}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("method", METHODS)
def test_a_damaged_answer_is_solved_again(method, damage, own_cache, monkeypatch):
    n, edges = graph("grid:3x4")
    first = fastest.solution(n, edges, method)
    (path,) = own_cache.iterdir()
    with np.load(path) as file:
        arrays = dict(file)
    DAMAGES[damage](path, arrays, n, edges)
    again = fastest.solution(n, edges, method)
    assert again.weights.tobytes() == first.weights.tobytes()
    certified(n, edges, method, again)


def test_negative_weights_are_no_answer_where_none_are_allowed(own_cache):
    n, edges = graph(f"file:{ROOT / 'jobs' / 'graphs' / 'negative12.txt'}")
    free, bound = fastest.solution(n, edges, "fastest"), fastest.solution(n, edges, "fastest-nonnegative")
    Z, q = bound.certificate
    cache.store(cache.key(n, edges, "fastest-nonnegative"), weights=free.weights, Z=Z, q=q, steps=np.int64(1))
    assert fastest.solution(n, edges, "fastest-nonnegative").weights.min() >= 0


def test_a_directory_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        monkeypatch.setenv("MPICONSENSUS_CACHE", str(place))
        assert fastest.solution(*graph("grid:2x3"), "fastest").value < 1
    monkeypatch.delenv("MPICONSENSUS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert fastest.solution(*graph("grid:2x3"), "fastest").value < 1
    assert len(list((tmp_path / "xdg" / "mpiconsensus").iterdir())) == 1
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache.folder() == tmp_path / "home" / ".cache" / "mpiconsensus"


def test_cheap_and_closed_answers_are_not_kept(own_cache):
    for method in ("metropolis", "best-constant"):
        weights.mixing_matrix(*graph("grid:3x4"), method)
    weights.mixing_matrix(*graph("torus:6x6"), "fastest")
    assert not own_cache.exists()


def test_an_edge_that_is_worth_nothing_carries_nothing():
    """The interior-point method keeps every weight above 0; an edge of weight 1e-9 would be sent over at every round."""
    n, edges = graph(f"file:{ROOT / 'jobs' / 'graphs' / 'negative12.txt'}")
    found = fastest.solution(n, edges, "fastest-nonnegative")
    w = found.weights
    # The two edges that the fastest weights use backwards, and the one beside them.
    assert {(6, 7), (7, 8)} <= {tuple(edge) for edge in edges[w == 0].tolist()}
    assert w[w > 0].min() > 1e-3
    certified(n, edges, "fastest-nonnegative", found)
