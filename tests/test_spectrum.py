"""Ends of spectra: closed forms, the inverse and Lanczos against dense eigenvalues of networkx's Laplacians."""

import sys

import networkx as nx
import numpy as np
import pytest

from mpiconsensus import topology, weights
from mpiconsensus.errors import UserError
from mpiconsensus.survey import sparse, spectrum
from mpiconsensus.topology.net import Net


def net_of(graph, spec="file:x"):
    return Net(spec, len(graph), topology.edges(nx.convert_node_labels_to_integers(graph, ordering="sorted")))


def reference(net, w=None):
    """The smallest positive and the largest Laplacian eigenvalue, dense."""
    graph = nx.Graph()
    graph.add_nodes_from(range(net.n))
    graph.add_weighted_edges_from((*map(int, e), x) for e, x in zip(net.edges, np.ones(len(net.edges)) if w is None else w, strict=True))
    values = np.linalg.eigvalsh(nx.laplacian_matrix(graph).toarray())
    return values[1], values[-1]


NAMED = {
    "ring:9": nx.cycle_graph(9), "ring:10": nx.cycle_graph(10), "path:7": nx.path_graph(7), "complete:6": nx.complete_graph(6),
    "star:8": nx.star_graph(7), "hypercube:4": nx.hypercube_graph(4), "torus:4x5": nx.grid_graph((5, 4), periodic=True),
    "torus:2x3x5": nx.grid_graph((5, 3, 2), periodic=True), "grid:4x7": nx.grid_graph((7, 4)), "grid:2x3x4": nx.grid_graph((4, 3, 2)),
    "circulant:12,3,5": nx.circulant_graph(12, [1, 3, 5]), "circulant:12,4,6": nx.circulant_graph(12, [1, 4, 6]),
}  # fmt: skip


@pytest.mark.parametrize("spec", NAMED)
def test_a_closed_form_is_the_spectrum(spec):
    net = net_of(NAMED[spec], spec)
    assert spectrum.closed_form(net) == pytest.approx(reference(net), rel=1e-12)


def test_a_closed_form_is_only_given_for_its_own_graph():
    assert spectrum.closed_form(net_of(nx.path_graph(9), "ring:9")) is None
    assert spectrum.closed_form(net_of(nx.cycle_graph(9), "file:9")) is None
    assert spectrum.closed_form(net_of(nx.cycle_graph(9), "random:9,9")) is None


def weighted(net):
    return np.random.default_rng(5).uniform(0.05, 0.4, len(net.edges))


GRAPHS = {
    "expander": nx.random_regular_graph(4, 400, seed=1),
    "connected G(n, m)": nx.compose(nx.gnm_random_graph(500, 1500, seed=2), nx.path_graph(500)),
    "small world": nx.connected_watts_strogatz_graph(400, 4, 0.2, seed=3),
    "grid": nx.grid_graph((40, 12)),
    "tree": nx.balanced_tree(2, 8),
    "ring": nx.cycle_graph(501),
    "star": nx.star_graph(300),
    "lollipop": nx.lollipop_graph(30, 200),
}


@pytest.mark.parametrize("with_weights", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("kind", GRAPHS)
@pytest.mark.parametrize("inverse", [True, False], ids=["any way", "Lanczos alone"])
def test_the_sparse_ends_are_the_dense_ones(monkeypatch, kind, with_weights, inverse):
    monkeypatch.setattr(spectrum, "DENSE", 10)
    if not inverse:
        monkeypatch.setattr(spectrum, "_inverse", lambda L, m: None)
    net = net_of(GRAPHS[kind])
    w = weighted(net) if with_weights else np.ones(len(net.edges))
    for found, true in zip(spectrum.ends(net.n, net.edges, w), reference(net, w), strict=True):
        # An interval holds the value, up to the rounding of the dense solver, eps times the norm; a number is one of its width.
        rounding = 1e-13 * 2 * net.n
        assert found.low - rounding <= true <= found.high + rounding
        assert found.narrow or not inverse
        if found.narrow:
            assert found.value == pytest.approx(true, rel=spectrum.NARROW, abs=rounding)


@pytest.mark.parametrize("steps", [3, 8, 20, 50])
@pytest.mark.parametrize("kind", ["small world", "ring", "lollipop"])
def test_what_is_not_found_is_bounded_and_said_so(monkeypatch, kind, steps):
    monkeypatch.setattr(spectrum, "DENSE", 10)
    monkeypatch.setattr(spectrum, "MOST_STEPS", steps)
    monkeypatch.setattr(spectrum, "_inverse", lambda L, m: None)
    net = net_of(GRAPHS[kind])
    low, high = spectrum.ends(net.n, net.edges, np.ones(len(net.edges)))
    assert not low.narrow and low.value is None
    for found, true in zip((low, high), reference(net), strict=True):
        assert found.low - 1e-11 <= true <= found.high + 1e-11


def test_ill_conditioned_graphs_keep_their_digits():
    n = 20_000
    order = np.random.default_rng(0).permutation(n)
    ring = np.sort(np.stack([order, np.roll(order, -1)], axis=1), axis=1)
    low, _ = spectrum.laplacian(Net("file:ring", n, ring))
    # Textbook: 4 sin^2(pi / n); the interval is to hold it, and a number has NARROW.
    assert low.narrow and low.value == pytest.approx(4 * np.sin(np.pi / n) ** 2, rel=spectrum.NARROW)


@pytest.mark.parametrize("method", ["metropolis", "best-constant"])
@pytest.mark.parametrize("spec", ["grid:5x10", "torus:6x6", "random:50,150", "star:9", "complete:7", "circulant:10,3,5"])
def test_the_gap_is_that_of_W(monkeypatch, spec, method):
    net = topology.net(spec, 1)
    W = weights.mixing_matrix(net.n, net.edges, method)
    for most in (spectrum.DENSE, 5):
        monkeypatch.setattr(spectrum, "DENSE", most)
        monkeypatch.setattr(sparse, "DENSE", most)
        gap = spectrum.gap(net, sparse.of(net, method))
        assert gap.value == pytest.approx(1 - weights.second_modulus(W), abs=1e-6)


def test_a_large_graph_needs_no_matrix():
    net = topology.net("regular:4000,6", 1)
    mixing = sparse.of(net, "metropolis")
    # 6-regular, so W = I - L/7; the Alon-Boppana bound and Friedman's theorem put lambda_2 of L near 6 - 2 sqrt(5).
    gap = spectrum.gap(net, mixing)
    assert gap.narrow and abs(7 * gap.value - (6 - 2 * np.sqrt(5))) < 0.1
    x = np.random.default_rng(1).normal(size=(net.n, 2))
    i, j = net.edges.T
    expected = x.copy()
    np.add.at(expected, i, (x[j] - x[i]) / 7)
    np.add.at(expected, j, (x[i] - x[j]) / 7)
    assert np.abs(mixing.apply(x) - expected).max() < 1e-13
    assert np.abs(mixing.apply(x[:, 0]) - expected[:, 0]).max() < 1e-13


def test_without_scipy_a_large_graph_is_refused(monkeypatch):
    monkeypatch.setattr(spectrum, "DENSE", 10)
    monkeypatch.setitem(sys.modules, "scipy", None)
    monkeypatch.setitem(sys.modules, "scipy.linalg", None)
    with pytest.raises(UserError, match="40 vertices.*pip install scipy"):
        spectrum.laplacian(net_of(nx.random_regular_graph(4, 40, seed=1)))
    assert spectrum.laplacian(net_of(nx.cycle_graph(40), "ring:40"))[0].how == "closed form"
