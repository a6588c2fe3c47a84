"""Graphs against adjacency written out by hand, networkx, closed forms, and the errors a wrong spec gets."""

import sys

import networkx as nx
import numpy as np
import pytest
from conftest import run

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
        ("path:1", set()),
        ("path:4", {(0, 1), (1, 2), (2, 3)}),
        ("hypercube:0", set()),
        ("hypercube:2", {(0, 1), (0, 2), (1, 3), (2, 3)}),
        ("tree:2,2", {(0, 1), (0, 2), (1, 3), (1, 4), (2, 5), (2, 6)}),
        ("tree:1,3", {(0, 1), (1, 2), (2, 3)}),
        ("tree:3,0", set()),
        ("chords:3,0", {(0, 1), (1, 2), (0, 2)}),
        ("exponential:1", set()),
        ("exponential:7", pairs((i, (i + d) % 7) for i in range(7) for d in (1, 2, 4))),
        ("exponential:9", pairs((i, (i + d) % 9) for i in range(9) for d in (1, 2, 4, 8))),
        ("gnp:5,1", edge_set("complete:5")),
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
        ("gnp:20,.50", "gnp:20,0.5"),
        ("gnp:9,1e0", "gnp:9,1"),
        ("Small-World:20,4,1", "small-world:20,4,1"),
        ("matchings: Ring:6", "matchings:ring:6"),
        ("one-peer-exponential: 8", "one-peer-exponential:8"),
    ],
)
def test_the_graph_carries_its_canonical_spec(written, canonical):
    graph = topology.build(written)
    assert graph.graph["spec"] == canonical
    assert topology.build(canonical).edges == graph.edges


@pytest.mark.parametrize(
    ("spec", "theirs"),
    [
        ("torus:4x5x3", nx.grid_graph([3, 5, 4], periodic=True)),
        ("grid:4x1x3", nx.grid_graph([3, 1, 4])),
        ("hypercube:4", nx.hypercube_graph(4)),
        ("tree:3,3", nx.balanced_tree(3, 3)),
        ("circulant:30,4,9,15", nx.circulant_graph(30, [1, 4, 9, 15])),
        ("complete:12", nx.complete_graph(12)),
        ("star:7", nx.star_graph(6)),
        ("margulis:49", nx.margulis_gabber_galil_graph(7)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_edges_are_those_of_networkx(spec, theirs):
    assert edge_set(spec) == pairs(nx.convert_node_labels_to_integers(theirs, ordering="sorted").edges())


@pytest.mark.parametrize(
    ("spec", "arcs"),
    [
        ("directed-ring:1", set()),
        ("directed-ring:2", {(0, 1), (1, 0)}),
        ("directed-ring:4", {(0, 1), (1, 2), (2, 3), (3, 0)}),
        ("directed-exponential:2", {(0, 1), (1, 0)}),
        ("directed-exponential:8", {(i, (i + d) % 8) for i in range(8) for d in (1, 2, 4)}),
        ("directed-exponential:9", {(i, (i + d) % 9) for i in range(9) for d in (1, 2, 4, 8)}),
    ],
)
def test_arcs_are_those_of_the_definition(spec, arcs):
    graph = topology.build(spec)
    assert graph.is_directed() and set(graph.edges) == arcs and nx.is_strongly_connected(graph)
    net = topology.net(spec, 1)
    assert net.directed and net.edges.tolist() == sorted(map(list, arcs)) == topology.edges(graph).tolist()


def algebraic_connectivity(n, lengths):
    A = np.zeros((n, n))
    for i in range(n):
        for d in lengths:
            A[i, (i + d) % n] = A[(i + d) % n, i] = 1
    return np.linalg.eigvalsh(np.diag(A.sum(0)) - A)[1]


@pytest.mark.parametrize("n", [4, 11, 16, 24, 50])
def test_each_further_chord_is_the_best_one(n):
    # The thesis' figure draws a cycle of 50 with 0, 1, 2, ... chords from each vertex.
    lengths = [1]
    for k in range(min(9, n // 2 - 1)):
        assert edge_set(f"chords:{n},{k}") == pairs((i, (i + d) % n) for i in range(n) for d in lengths)
        more = edge_set(f"chords:{n},{k + 1}")
        assert more > edge_set(f"chords:{n},{k}")
        (added,) = {min(j - i, n - j + i) for i, j in more} - set(lengths)
        values = {d: algebraic_connectivity(n, [*lengths, d]) for d in range(2, n // 2 + 1) if d not in lengths}
        # eigvalsh is good to n times the rounding of the largest eigenvalue, 2 times the degree.
        near = n * 4 * (k + 3) * np.finfo(float).eps
        assert added == min(d for d, value in values.items() if value > max(values.values()) - near)
        lengths.append(added)
    assert edge_set(f"chords:{n},{n // 2 - 1}") == edge_set(f"complete:{n}")


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("rnig:4", ["'rnig:4'", "Did you mean 'ring'", *(form.example for form in topology.FORMS.values())]),
        ("", ["not known", "ring:4"]),
        ("auto:4", ["auto takes no size"]),
        ("ring", ["ring:4"]),
        ("ring:4,4", ["'ring:4,4'", "one number", "ring:4"]),
        ("ring:0", ["0 vertices", "1 to 1000000"]),
        ("ring:1000001", ["1000001", "1 to 1000000"]),
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
        ("regular:5,3", ["even", "regular:5,2", "regular:6,3"]),
        ("regular:4,4", ["degree 4", "up to 3"]),
        ("regular:6,1", ["degree 1", "2 or more"]),
        ("circulant:50", ["two numbers or more", "circulant:50,7,12"]),
        ("circulant:50,26", ["26", "2 to 25"]),
        ("circulant:50,1", ["length 1", "2 to 25"]),
        ("circulant:3,2", ["4 vertices", "ring:3"]),
        ("margulis:26", ["26", "margulis:25", "margulis:36"]),
        ("hypercube:20", ["1048576 vertices", "1 to 1000000", "hypercube:5"]),
        ("hypercube:999999999999", ["more than 10^12 vertices"]),
        ("tree:2", ["two numbers", "tree:2,4"]),
        ("tree:10,6", ["1111111 vertices"]),
        ("tree:999999999999,999999999999", ["more than 10^12 vertices"]),
        ("tree:0,2", ["branching of 0", "tree:2,4"]),
        ("chords:50,25", ["25 chords", "0 to 24"]),
        ("chords:3,1", ["1 chords", "0 to 0"]),
        ("chords:100000,5", ["too long", "circulant:100000,316"]),
        ("complete:20000", ["199990000 edges", "50000000"]),
        ("regular:100000,2000", ["100000000 edges", "50000000"]),
        ("random:1000000,60000000", ["60000000 edges"]),
        ("gnp:50,0", ["'0'", "above 0 and at most 1", "gnp:50,0.1"]),
        ("gnp:50,1.5", ["'1.5'", "at most 1"]),
        ("gnp:50,1/2", ["'1/2'", "probability"]),
        ("gnp:50,nan", ["'nan'", "probability"]),
        ("gnp:0.5,0.5", ["'0.5'", "whole number"]),
        ("gnp:200,0.001", ["no draw", "gnp:200,0.053", "random:200,400"]),
        ("small-world:50,4", ["three numbers", "small-world:50,4,0.1"]),
        ("small-world:50,3,0.1", ["3 neighbours", "even, 2 to 48"]),
        ("small-world:50,50,0.1", ["50 neighbours", "2 to 48"]),
        ("small-world:2,2,0.1", ["3 vertices or more"]),
        ("directed-ring:0", ["0 vertices", "directed-ring:4"]),
        ("matchings:", ["an undirected graph", "matchings:torus:6x6"]),
        ("matchings:torus", ["torus:6x6"]),
        ("matchings:directed-ring:4", ["directed-ring:4 is directed", "matchings:torus:6x6"]),
        ("matchings:matchings:ring:4", ["matchings:ring:4 changes"]),
        ("sequence:", ["paths", "file:graph.txt"]),
        ("sequence:a.txt,", ["paths separated by ','"]),
        ("sequence:/no/such.txt", ["/no/such.txt", "No such file"]),
        ("file:", ["path", "file:graph.txt"]),
        ("file:/no/such/graph.txt", ["/no/such/graph.txt", "No such file"]),
    ],
)
def test_a_wrong_spec_is_named(spec, words):
    with pytest.raises(UserError) as error:
        topology.build(spec)
    assert [word for word in words if word not in str(error.value)] == []
    assert "\n" not in str(error.value)


def test_edges_are_sorted_pairs():
    array = topology.edges(topology.build("random:40,200"))
    assert array.dtype == np.int64
    assert array.shape == (200, 2)
    assert (array[:, 0] < array[:, 1]).all()
    assert array.tolist() == sorted(array.tolist())
    assert topology.edges(topology.build("ring:1")).shape == (0, 2)
    assert topology.edges(nx.Graph([(3, 2), (0, 3), (1, 0)])).tolist() == [[0, 1], [0, 3], [2, 3]]


def test_a_matrix_is_for_so_many_vertices_only():
    assert topology.DENSE_VERTICES == 10_000
    topology.require_dense(topology.net("ring:10000", 1))
    with pytest.raises(UserError, match="ring:10001.* has 10001 vertices.* at most 10000"):
        topology.require_dense(topology.net("ring:10001", 1))


@pytest.mark.parametrize(("spec", "m"), [("torus:250x400", 200_000), ("grid:250x400", 199_350), ("circulant:100001,5,77", 300_003)])
def test_a_large_graph_has_the_edges_of_its_formula(spec, m):
    net = topology.net(spec, 1)
    assert net.edges.shape == (m, 2) and (net.edges[:, 0] < net.edges[:, 1]).all()
    assert (np.diff(net.edges[:, 0] * net.n + net.edges[:, 1]) > 0).all()
    degrees = np.bincount(net.edges.ravel(), minlength=net.n)
    assert (degrees.min(), degrees.max()) == ((2, 4) if spec.startswith("grid") else (degrees[0], degrees[0]))


@pytest.mark.parametrize("name", topology.FORMS)
def test_every_form_is_what_its_flags_say(name, tmp_path, monkeypatch):
    form = topology.FORMS[name]
    monkeypatch.chdir(tmp_path)
    for file in ("PATH", "a.txt", "b.txt"):
        (tmp_path / file).write_text("0 1\n1 2\n")
    net = topology.net(form.example, 1, seed=3)
    assert net.spec == form.example and net.directed == form.directed == topology.build(form.example, 3).is_directed()
    assert (net.changing is not None) == form.changing
    told = lambda seed: [(made := topology.net(form.example, 1, seed)).edges.tolist(), made.changing and made.changing.at(0).tolist()]
    assert (told(1) != told(2)) == form.seeded
    assert form.meaning and form.takes and form.parameters.isupper() == (form.separator == ",")
    assert net.edges.dtype == np.int64 and net.edges.tolist() == topology.edges(topology.build(form.example, 3)).tolist()


def test_a_graph_of_a_formula_needs_no_networkx():
    done = run(
        sys.executable, "-c",
        "import sys\nfrom mpiconsensus import topology\n"
        "for spec in ('ring', 'torus', 'hypercube', 'exponential', 'margulis', 'matchings:torus', 'gnp', 'one-peer-exponential'):\n"
        "    topology.net(spec, 64 if spec == 'hypercube' else 36)\n"
        "print([name for name in ('networkx', 'scipy', 'torch') if name in sys.modules])",
    )  # fmt: skip
    assert done.stdout.strip() == "[]", done.stderr
