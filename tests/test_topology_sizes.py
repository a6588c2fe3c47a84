"""Specs without their size: what they become for n vertices, and what is told where none fits."""

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpiconsensus import topology
from mpiconsensus.errors import UserError


def test_auto_is_a_ring_then_an_expander():
    assert [topology.auto(n) for n in (1, 2, 8)] == ["ring:1", "ring:2", "ring:8"]
    assert [topology.auto(n) for n in (9, 36, 10, 50)] == ["margulis:9", "margulis:36", "regular:10,4", "regular:50,4"]


@pytest.mark.parametrize(
    ("spec", "n", "canonical"),
    [
        ("auto", 4, "ring:4"),
        ("Ring", 5, "ring:5"),
        ("complete", 36, "complete:36"),
        ("star", 3, "star:3"),
        ("torus", 36, "torus:6x6"),
        ("torus", 50, "torus:5x10"),
        ("torus", 1, "torus:1x1"),
        ("grid", 12, "grid:3x4"),
        ("random", 50, "random:50,100"),
        ("random", 3, "random:3,3"),
        ("random", 1000, "random:1000,3454"),
        ("regular", 50, "regular:50,4"),
        ("regular", 3, "regular:3,2"),
        ("margulis", 25, "margulis:25"),
        ("circulant", 50, "circulant:50,7"),
        ("circulant", 4, "circulant:4,2"),
        ("torus:6x6", 4, "torus:6x6"),
        ("path", 5, "path:5"),
        ("hypercube", 1, "hypercube:0"),
        ("hypercube", 16, "hypercube:4"),
        ("tree", 1, "tree:2,0"),
        ("tree", 3, "tree:2,1"),
        ("tree", 15, "tree:2,3"),
        ("tree", 13, "tree:3,2"),
        ("chords", 50, "chords:50,1"),
        ("chords", 3, "chords:3,0"),
        ("gnp", 1, "gnp:1,1"),
        ("gnp", 50, "gnp:50,0.156"),
        ("small-world", 50, "small-world:50,4,0.1"),
        ("small-world", 4, "small-world:4,2,0.1"),
        ("exponential", 10, "exponential:10"),
        ("directed-ring", 3, "directed-ring:3"),
        ("directed-exponential", 6, "directed-exponential:6"),
        ("one-peer-exponential", 6, "one-peer-exponential:6"),
        ("matchings", 36, "matchings:margulis:36"),
        ("matchings:torus", 36, "matchings:torus:6x6"),
        ("Matchings: Torus:3x3", 36, "matchings:torus:3x3"),
    ],
)
def test_a_spec_without_its_size_takes_the_given_one(spec, n, canonical):
    assert topology.net(spec, n).spec == canonical


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["auto", "ring", "path", "complete", "star", "random", "regular", "gnp", "exponential", "chords"]), st.integers(1, 120), st.integers(0, 9)
)
def test_every_size_gives_a_connected_graph(spec, n, seed):
    graph = topology.build(topology.expand(spec, n), seed)
    assert list(graph.nodes) == list(range(n))
    assert nx.is_connected(graph)
    assert nx.number_of_selfloops(graph) == 0


@pytest.mark.parametrize(
    ("spec", "n", "words"),
    [
        ("torus", 53, ["53", "52 (torus:4x13)", "54 (torus:6x9)"]),
        ("grid", 7, ["7", "6 (grid:2x3)", "8 (grid:2x4)"]),
        ("grid", 2, ["1 (grid:1x1)", "4 (grid:2x2)"]),
        ("torus", 3, ["3 vertices", "1 (torus:1x1)", "4 (torus:2x2)"]),
        ("margulis", 50, ["margulis:49", "margulis:64"]),
        ("circulant", 3, ["ring:3"]),
        ("ringg", 3, ["Did you mean 'ring'"]),
        ("file", 3, ["path"]),
        ("sequence", 3, ["paths"]),
        ("matchings:file", 3, ["path"]),
        ("matchings:torus", 7, ["7 vertices", "torus:2x3", "torus:2x4"]),
        ("hypercube", 36, ["36 vertices", "32 (hypercube:5)", "64 (hypercube:6)"]),
        ("tree", 36, ["36 vertices", "31 (tree:2,4)", "40 (tree:3,3)"]),
        ("tree", 2, ["1 (tree:2,0)", "3 (tree:2,1)"]),
        ("small-world", 2, ["3 vertices or more"]),
    ],
)
def test_a_size_that_does_not_fit_is_named(spec, n, words):
    with pytest.raises(UserError) as error:
        topology.net(spec, n)
    assert [word for word in words if word not in str(error.value)] == []


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(["directed-ring", "directed-exponential", "one-peer-exponential", "matchings"]), st.integers(1, 60), st.integers(0, 9))
def test_every_size_gives_a_connected_union(spec, n, seed):
    net = topology.net(spec, n, seed)
    graph = topology.build(topology.expand(spec, n), seed)
    assert net.n == n and net.spec == graph.graph["spec"]
    assert nx.is_strongly_connected(graph) if net.directed else nx.is_connected(graph)
