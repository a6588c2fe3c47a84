"""Graphs against adjacency written out by hand, closed forms, and the errors a wrong spec gets."""

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


def edge_set(spec, seed=0):
    return set(map(tuple, topology.edges(topology.build(spec, seed)).tolist()))


def pairs(items):
    return {(min(e), max(e)) for e in items if e[0] != e[1]}


def torus(*sides):
    cells = list(np.ndindex(*sides))
    number = {cell: k for k, cell in enumerate(cells)}
    step = lambda c, axis: tuple((x + (a == axis)) % sides[a] for a, x in enumerate(c))
    return pairs((number[c], number[step(c, axis)]) for c in cells for axis in range(len(sides)))


def margulis(s):
    near = lambda x, y: ((x + 2 * y, y), (x + 2 * y + 1, y), (x, y + 2 * x), (x, y + 2 * x + 1))
    return pairs((x * s + y, a % s * s + b % s) for x in range(s) for y in range(s) for a, b in near(x, y))


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("ring:1", set()),
        ("ring:2", {(0, 1)}),
        ("ring:4", {(0, 1), (1, 2), (2, 3), (0, 3)}),
        ("grid:2x3", {(0, 1), (1, 2), (3, 4), (4, 5), (0, 3), (1, 4), (2, 5)}),
        ("torus:2x2", {(0, 1), (2, 3), (0, 2), (1, 3)}),
        ("torus:1x4", {(0, 1), (1, 2), (2, 3), (0, 3)}),
        ("torus:3x5", torus(3, 5)),
        ("torus:2x3x4", torus(2, 3, 4)),
        ("complete:1", set()),
        ("complete:4", {(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)}),
        ("star:1", set()),
        ("star:5", {(0, 1), (0, 2), (0, 3), (0, 4)}),
        ("circulant:6,2", pairs((i, (i + d) % 6) for i in range(6) for d in (1, 2))),
        ("circulant:7,3,2,3", pairs((i, (i + d) % 7) for i in range(7) for d in (1, 2, 3))),
        ("margulis:1", set()),
        ("margulis:25", margulis(5)),
        ("margulis:36", margulis(6)),
        ("random:1,0", set()),
        ("regular:1,0", set()),
        ("regular:6,5", edge_set("complete:6")),
    ],
)
def test_edges_are_those_of_the_definition(spec, expected):
    assert edge_set(spec) == expected


def test_margulis_25_has_70_edges():
    assert len(edge_set("margulis:25")) == 70


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        (" Torus: 06 X 6 ", "torus:6x6"),
        ("random:50, 150", "random:50,150"),
        ("circulant:50,12,7,12", "circulant:50,7,12"),
    ],
)
def test_the_graph_carries_its_canonical_spec(written, canonical):
    graph = topology.build(written)
    assert graph.graph["spec"] == canonical
    assert topology.build(canonical).edges == graph.edges


@pytest.mark.parametrize("spec", ["random:50,150", "random:50,60", "random:50,49", "regular:50,4", "regular:50,45"])
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


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("rnig:4", ["'rnig:4'", "Did you mean 'ring'", *(form.example for form in topology.FORMS.values())]),
        ("", ["not known", "ring:4"]),
        ("auto:4", ["auto takes no size"]),
        ("ring", ["ring:4"]),
        ("ring:4,4", ["'ring:4,4'", "one number", "ring:4"]),
        ("ring:0", ["0 vertices", "1 to 10000"]),
        ("ring:10001", ["10001", "1 to 10000"]),
        ("ring:" + "9" * 5000, ["12 digits", "ring:4"]),
        ("ring:four", ["'four'", "whole number", "ring:4"]),
        ("ring:-4", ["'-4'", "whole number"]),
        ("torus:36", ["'x'", "torus:6x6"]),
        ("torus:6,6", ["'x'", "torus:6x6"]),
        ("torus:2x2x2x2", ["2 or 3", "torus:6x6"]),
        ("grid:5x0", ["0 vertices"]),
        ("random:50", ["two numbers", "random:50,150"]),
        ("random:50,48", ["48 edges", "49 to 1225"]),
        ("random:50,1226", ["1226 edges", "49 to 1225"]),
        ("random:300,330", ["330", "random:300,856"]),
        ("regular:5,3", ["even", "regular:5,2", "regular:6,3"]),
        ("regular:4,4", ["degree 4", "up to 3"]),
        ("regular:6,1", ["degree 1", "2 or more"]),
        ("circulant:50", ["two numbers or more", "circulant:50,7,12"]),
        ("circulant:50,26", ["26", "2 to 25"]),
        ("circulant:50,1", ["length 1", "2 to 25"]),
        ("circulant:3,2", ["4 vertices", "ring:3"]),
        ("margulis:26", ["26", "margulis:25", "margulis:36"]),
        ("file:", ["path", "file:graph.txt"]),
        ("file:/no/such/graph.txt", ["/no/such/graph.txt", "No such file"]),
    ],
)
def test_a_wrong_spec_is_named(spec, words):
    with pytest.raises(UserError) as error:
        topology.build(spec)
    assert [word for word in words if word not in str(error.value)] == []
    assert "\n" not in str(error.value)


def test_an_edge_list_is_read(tmp_path):
    path = tmp_path / "graph.txt"
    path.write_bytes("\ufeff# a path\r\n\r\n2 1 0.5\r\n0\t1  # an edge\r\n1 0\r\n".encode())
    graph = topology.build(f"file:{path}")
    assert topology.edges(graph).tolist() == [[0, 1], [1, 2]]
    assert graph.graph["spec"] == f"file:{path}"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0 1\n1 1\n", ["line 2", "vertex 1 to itself"]),
        ("0 1\n\n# x\n1 -2\n", ["line 4", "'-2'"]),
        ("0 1\na b\n", ["line 2", "'a'"]),
        ("0 1\n1 2.0\n", ["line 2", "'2.0'"]),
        ("0,1\n", ["line 1", "1 columns"]),
        ("0 1 2 3\n", ["line 1", "4 columns"]),
        ("0 1 {}\n", ["line 1", "'{}'", "third column"]),
        ("0 1\n1 3\n", ["0 to n-1", "largest is 3", "vertex 2"]),
        ("1 2\n", ["vertex 0"]),
        ("0 1\n1 99999999999\n", ["largest is 99999999999", "only 3"]),
        ("# nothing\n", ["no edge"]),
        ("0 1\n2 3\n4 5\n", ["3 components", "{0, 1}, {2, 3}, {4, 5}"]),
        ("\n".join(f"{i} {i + 1}" for i in range(10_000)), ["10001 vertices", "10000"]),
    ],
)
def test_a_wrong_edge_list_is_named_with_its_line(tmp_path, text, words):
    path = tmp_path / "graph.txt"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        topology.build(f"file:{path}")
    assert [word for word in [str(path), *words] if word not in str(error.value)] == []


def test_a_binary_file_is_no_edge_list(tmp_path):
    (tmp_path / "graph.bin").write_bytes(b"\x80\xff\x00")
    with pytest.raises(UserError, match="cannot be read as text"):
        topology.build(f"file:{tmp_path / 'graph.bin'}")


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
    ],
)
def test_a_spec_without_its_size_takes_the_given_one(spec, n, canonical):
    assert topology.resolve(spec, n).graph["spec"] == canonical


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["auto", "ring", "complete", "star", "random", "regular"]), st.integers(1, 120), st.integers(0, 9)
)
def test_every_size_gives_a_connected_graph(spec, n, seed):
    graph = topology.resolve(spec, n, seed)
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
    ],
)
def test_a_size_that_does_not_fit_is_named(spec, n, words):
    with pytest.raises(UserError) as error:
        topology.resolve(spec, n)
    assert [word for word in words if word not in str(error.value)] == []


def test_edges_are_sorted_pairs():
    array = topology.edges(topology.build("random:40,200"))
    assert array.dtype == np.int64
    assert array.shape == (200, 2)
    assert (array[:, 0] < array[:, 1]).all()
    assert array.tolist() == sorted(array.tolist())
    assert topology.edges(topology.build("ring:1")).shape == (0, 2)
    assert topology.edges(nx.Graph([(3, 2), (0, 3), (1, 0)])).tolist() == [[0, 1], [0, 3], [2, 3]]


def test_describe():
    keys = ("vertices", "edges", "min_degree", "max_degree", "connected", "diameter")
    figures = lambda graph: tuple(topology.describe(graph)[key] for key in keys)
    assert figures(topology.build("torus:6x6")) == (36, 72, 4, 4, True, 6)
    assert figures(topology.build("grid:5x10")) == (50, 85, 2, 4, True, 13)
    assert figures(topology.build("ring:1")) == (1, 0, 0, 0, True, 0)
    assert figures(nx.Graph([(0, 1), (2, 3)])) == (4, 2, 1, 1, False, None)
    assert figures(topology.build("star:2001")) == (2001, 2000, 1, 2000, True, None)
