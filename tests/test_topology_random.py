"""Random graphs: what was asked for, the distribution, the seed, and the arrays they are drawn with."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpiconsensus import topology
from mpiconsensus.errors import UserError
from mpiconsensus.topology.connected import components
from mpiconsensus.topology.draws import sample, tree


def edge_set(spec, seed=0):
    return set(map(tuple, topology.edges(topology.build(spec, seed)).tolist()))


def as_set(edges):
    return frozenset(map(tuple, edges.tolist()))


def require_distribution(counts, expected):
    """Hold counts against expected ones by chi-square, five deviations above its mean: one draw in a million."""
    freedom = len(expected) - 1
    assert set(counts) <= set(expected)
    assert sum((counts[key] - mean) ** 2 / mean for key, mean in expected.items()) <= freedom + 5 * (2 * freedom) ** 0.5


@pytest.mark.parametrize(
    "spec", ["random:50,150", "random:50,60", "random:50,49", "random:300,330", "regular:50,4", "regular:50,45", "random:12000,24000"]
)
def test_random_graphs_have_what_was_asked_for_and_follow_the_seed(spec):
    n, number = map(int, spec.split(":")[1].split(","))
    graph = topology.build(spec, seed=3)
    assert list(graph.nodes) == list(range(n))
    assert nx.is_connected(graph)
    if spec.startswith("random"):
        assert graph.number_of_edges() == number
    else:
        assert {degree for _, degree in graph.degree()} == {number}
    assert edge_set(spec, 3) == set(graph.edges)
    assert edge_set(spec, 4) != set(graph.edges)


@pytest.mark.parametrize(("spec", "kinds"), [("random:4,3", 16), ("random:4,4", 15), ("random:5,5", 222)])
def test_random_graphs_are_uniform_among_the_connected(spec, kinds):
    # 16 trees on 4 vertices (Cayley), all 15 graphs with 4 edges; 222 connected of the 252 graphs with 5 edges on 5.
    draws = 20 * kinds
    counts = Counter(frozenset(edge_set(spec, seed)) for seed in range(draws))
    chi_square = sum((c - 20) ** 2 / 20 for c in counts.values()) + 20 * (kinds - len(counts))
    # Mean kinds - 1, variance 2 (kinds - 1): five deviations above is one draw in a million.
    assert len(counts) <= kinds
    assert chi_square < kinds - 1 + 5 * (2 * (kinds - 1)) ** 0.5


def test_random_graphs_do_not_depend_on_the_process():
    code = """
from mpiconsensus import topology
for spec in ("random:30,60", "regular:30,4"):
    print(topology.edges(topology.build(spec, 5)).tolist())
"""
    out = [
        subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60,
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(Path(topology.__file__).parents[1])},
        ).stdout
        for hash_seed in ("1", "2")
    ]
    here = [str(topology.edges(topology.build(s, 5)).tolist()) for s in ("random:30,60", "regular:30,4")]
    assert out == ["\n".join(here) + "\n"] * 2


def test_gnp_has_the_distribution_of_its_definition():
    # The connected graphs on 3 vertices: a path has chance p^2 (1 - p), the triangle p^3; p = 1/4 makes that 3 to 1.
    paths = [frozenset({a, b}) for a, b in (((0, 1), (0, 2)), ((0, 1), (1, 2)), ((0, 2), (1, 2)))]
    counts = Counter(frozenset(edge_set("gnp:3,0.25", seed)) for seed in range(500))
    require_distribution(counts, {**dict.fromkeys(paths, 150.0), frozenset({(0, 1), (0, 2), (1, 2)}): 50.0})


def test_a_small_world_rewires_as_many_edges_as_it_is_told():
    lattice = edge_set("circulant:100,2")
    assert edge_set("small-world:100,4,1e-12") == lattice
    moved = [len(edge_set("small-world:100,4,0.2", seed) - lattice) for seed in range(20)]
    # 4,000 edges, each rewired with chance 0.2, to a lattice edge again in at most 4 of 97 cases; five deviations.
    assert 0.2 * 4000 * (1 - 4 / 97) - 5 * 25.3 < sum(moved) < 0.2 * 4000 + 5 * 25.3
    assert {len(edge_set("small-world:100,4,0.2", seed)) for seed in range(5)} == {200}


def test_a_small_world_that_stays_apart_is_refused(monkeypatch):
    # Each draw is connected with a fair chance: hundreds of them fail too seldom to wait for.
    def fail(*_, **__):
        raise nx.NetworkXError

    monkeypatch.setattr(nx, "connected_watts_strogatz_graph", fail)
    with pytest.raises(UserError, match="'small-world:40,2,0.5': no draw was connected; give more neighbours"):
        topology.build("small-world:40,2,0.5")


@pytest.mark.parametrize(("n", "kinds"), [(1, 1), (2, 1), (4, 16), (5, 125)])
def test_trees_are_uniform(n, kinds):
    rng = np.random.default_rng(7)
    counts = Counter(as_set(tree(n, rng)) for _ in range(40 * kinds))
    assert len(counts) == kinds and all(nx.is_tree(nx.Graph([*edges]) if edges else nx.empty_graph(1)) for edges in counts)
    require_distribution(counts, dict.fromkeys(counts, 40.0))


@pytest.mark.parametrize("n", [2, 5, 6, 9, 10])
def test_a_sample_of_all_pairs_is_all_pairs(n):
    pairs = set(nx.complete_graph(n).edges)
    rng = np.random.default_rng(1)
    assert as_set(sample(n, len(pairs), rng)) == pairs
    skeleton = tree(n, rng)
    assert as_set(sample(n, len(pairs) - n + 1, rng, without=skeleton)) == pairs - as_set(skeleton)


def test_a_sample_is_uniform():
    rng = np.random.default_rng(2)
    kinds = [frozenset({a, b}) for i, a in enumerate([*nx.complete_graph(4).edges]) for b in [*nx.complete_graph(4).edges][:i]]
    require_distribution(Counter(as_set(sample(4, 2, rng)) for _ in range(40 * len(kinds))), dict.fromkeys(kinds, 40.0))
    without = np.array([(0, 2), (1, 2), (1, 3)])
    left = {frozenset({e}): 200.0 for e in ((0, 1), (0, 3), (2, 3))}
    require_distribution(Counter(as_set(sample(4, 1, rng, without=without)) for _ in range(600)), left)


def test_a_graph_too_sparse_to_be_drawn_connected_is_a_tree_and_more():
    # Average degree 6 leaves e^-6 of 20,000 vertices without an edge.
    net = topology.net("random:20000,60000", 1, seed=1)
    assert net.edges.shape == (60_000, 2)
    graph = nx.Graph(net.edges.tolist())
    assert len(graph) == 20_000 and graph.number_of_edges() == 60_000 and nx.is_connected(graph)
    assert (topology.net("random:20000,60000", 1, seed=1).edges == net.edges).all()
    # Each vertex has an edge; beyond it the degrees are those of a uniform draw: mean 6, variance near 5, as a tree's
    # degree is 1 and Poisson's with mean 1, the rest's Poisson's with mean 4. The fourth central moment is near
    # 80: the sample's variance deviates by sqrt((80 - 25) / 20,000).
    assert abs(np.bincount(net.edges.ravel()).var() - 5) < 5 * (55 / 20_000) ** 0.5


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 25), st.lists(st.tuples(st.integers(0, 24), st.integers(0, 24)), max_size=30))
def test_components_are_named_by_their_smallest_vertex(n, pairs):
    edges = np.array([(i % n, j % n) for i, j in pairs], dtype=np.int64).reshape(-1, 2)
    graph = nx.empty_graph(n)
    graph.add_edges_from(edges.tolist())
    expected = {v: min(part) for part in nx.connected_components(graph) for v in part}
    assert components(n, edges).tolist() == [expected[v] for v in range(n)]
