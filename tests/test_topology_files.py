"""Graph files of every kind against what networkx and numpy write, and the one line that a malformed one gets."""

import json
import os

import networkx as nx
import numpy as np
import pytest

from mpiconsensus import topology
from mpiconsensus.errors import UserError
from mpiconsensus.topology import files


def graph(directed, weighted, n=9):
    """Return a networkx graph in an order of its own, with weights whose decimals need all their digits."""
    rng = np.random.default_rng(3)
    made = nx.DiGraph() if directed else nx.Graph()
    made.add_nodes_from(rng.permutation(n).tolist())
    for i in range(n):
        for j in (i + 1, i + 2 + i % 4):
            made.add_edge(i, j % n, **({"weight": float(rng.normal())} if weighted else {}))
    return made


def edge_list(made, path):
    lines = [" ".join(map(str, (i, j, *data.values()))) for i, j, data in made.edges(data=True)]
    path.write_text("\n".join(["# directed"] * made.is_directed() + lines) + "\n")


def node_link(made, path, word):
    data = nx.node_link_data(made, edges=word)
    assert word in data
    path.write_text(json.dumps(data))


def matrix(made, own=0.0):
    """Return the matrix of a graph, row = receiver; networkx's rows are senders."""
    A = nx.to_numpy_array(made, nodelist=range(len(made))).T
    return A + own * np.eye(len(A))


WRITERS = {
    "a.graphml": lambda made, path: nx.write_graphml(made, path),
    "a.txt": edge_list,
    "a.edges": edge_list,
    "a.json": lambda made, path: node_link(made, path, "edges"),
    "b.json": lambda made, path: node_link(made, path, "links"),
    "a.npy": lambda made, path: np.save(path, matrix(made)),
    "a.csv": lambda made, path: np.savetxt(path, matrix(made), delimiter=",", fmt="%.17g"),
}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("directed", [False, True])
@pytest.mark.parametrize("name", WRITERS)
def test_a_file_is_the_graph_that_was_written(tmp_path, name, directed, weighted):
    made, path = graph(directed, weighted), tmp_path / name
    WRITERS[name](made, path)
    net = files.read(path)
    expected = sorted((e if directed else (min(e[:2]), max(e[:2]), e[2])) for e in made.edges(data="weight"))
    assert (net.spec, net.n, net.directed, net.changing) == (f"file:{path}", 9, directed, None)
    assert net.edges.dtype == np.int64 and net.edges.tolist() == [[i, j] for i, j, _ in expected]
    assert (net.given.tolist() if weighted else net.given) == ([w for *_, w in expected] if weighted else None)
    own = weighted and name in ("a.npy", "a.csv")
    assert (net.given_diagonal.tolist() if own else net.given_diagonal) == ([0.0] * 9 if own else None)
    assert topology.net(f"file:{path}", 1).edges.tolist() == net.edges.tolist()
    assert topology.edges(topology.build(f" File: {path} ")).tolist() == net.edges.tolist()


@pytest.mark.parametrize("kind", [bool, np.int8, np.uint16, np.float32])
def test_a_matrix_of_any_numbers_is_an_adjacency(tmp_path, kind):
    np.save(tmp_path / "a.npy", np.array([[1, 1, 0], [0, 0, 1], [1, 0, 0]], dtype=kind))
    net = files.read(tmp_path / "a.npy")
    # Row = receiver: vertex 0 hears 1, 1 hears 2, 2 hears 0; an entry of the diagonal is no edge.
    assert net.directed and net.edges.tolist() == [[0, 2], [1, 0], [2, 1]] and net.given is None and net.given_diagonal is None


def test_a_matrix_of_weights_gives_the_diagonal_too(tmp_path):
    W = np.array([[0.5, 0.5, 0.0], [0.5, 0.25, 0.25], [0.0, 0.25, 0.75]])
    np.save(tmp_path / "w.npy", W)
    net = files.read(tmp_path / "w.npy")
    assert (net.directed, net.edges.tolist()) == (False, [[0, 1], [1, 2]])
    assert (net.given.tolist(), net.given_diagonal.tolist()) == ([0.5, 0.25], [0.5, 0.25, 0.75])
    W[0, 1] += 1e-16  # computed, symmetric but for the last bits
    np.save(tmp_path / "w.npy", W)
    assert not files.read(tmp_path / "w.npy").directed
    W[0, 1] = 0.25
    np.save(tmp_path / "w.npy", W)
    net = files.read(tmp_path / "w.npy")
    assert net.directed and dict(zip(map(tuple, net.edges.tolist()), net.given.tolist())) == {(1, 0): 0.25, (0, 1): 0.5, (2, 1): 0.25, (1, 2): 0.25}


def test_one_vertex_is_a_graph(tmp_path):
    (tmp_path / "one.csv").write_text("0\n")
    (tmp_path / "one.json").write_text('{"nodes": [{"id": 0}], "edges": []}')
    (tmp_path / "one.txt").write_text("# vertices 1\n")
    for name in ("one.csv", "one.json", "one.txt"):
        net = topology.net(f"file:{tmp_path / name}", 1)
        assert (net.n, net.edges.shape, net.directed) == (1, (0, 2), False)


def test_an_edge_list_as_people_write_it(tmp_path):
    path = tmp_path / "graph.txt"
    path.write_bytes("\ufeff# a path\r\n\r\n2 1\r\n0\t1  # an edge\r\n1 0\r\n".encode())
    assert topology.edges(topology.build(f"file:{path}")).tolist() == [[0, 1], [1, 2]]
    path.write_text("#Directed\n# vertices  5\n 0 1 1e-1\n1 0 -2\n0 1 .1\n")
    net = files.read(path)
    assert (net.n, net.directed, net.edges.tolist(), net.given.tolist()) == (5, True, [[0, 1], [1, 0]], [0.1, -2.0])


def test_a_repeated_edge_is_one(tmp_path):
    path = tmp_path / "a.json"
    edges = [{"source": "0", "target": "1"}, {"source": "1", "target": "0"}, {"source": "0", "target": "1"}]
    path.write_text(json.dumps({"multigraph": True, "nodes": [{"id": "1"}, {"id": "0"}], "links": edges}))
    assert files.read(path).edges.tolist() == [[0, 1]]
    path.write_text(json.dumps({"directed": True, "nodes": [{"id": "1"}, {"id": "0"}], "links": edges}))
    assert files.read(path).edges.tolist() == [[0, 1], [1, 0]]


def graphml(nodes="<node id='0'/><node id='1'/>", edges="<edge source='0' target='1'/>", top=""):
    key = "<key id='w' for='edge' attr.name='weight' attr.type='double'/>"
    return f"<?xml version='1.0'?>{top}<graphml xmlns='http://graphml.graphdrawing.org/xmlns'>{key}<graph edgedefault='undirected'>{nodes}{edges}</graph></graphml>"


BOMB = "<!DOCTYPE bomb [<!ENTITY a 'ha'>" + "".join(f"<!ENTITY {b} '&{a};&{a};&{a};&{a};'>" for a, b in zip("abcdefghijklmno", "bcdefghijklmnop")) + "]>"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("g.txt", "0 1\n1 1\n", ["line 2", "vertex 1 to itself"]),
        ("g.txt", "0 1\n\n# x\n1 -2\n", ["line 4", "'-2'"]),
        ("g.txt", "0 1\na b\n", ["line 2", "'a'"]),
        ("g.txt", "0 1\n1 2.0\n", ["line 2", "'2.0'"]),
        ("g.txt", "0,1\n", ["line 1", "1 columns"]),
        ("g.txt", "0 1 2 3\n", ["line 1", "4 columns"]),
        ("g.txt", "0 1 {}\n", ["line 1", "'{}'", "third column", "finite number"]),
        ("g.txt", "0 1 nan\n", ["line 1", "'nan'", "finite number"]),
        ("g.txt", "0 1 1\n1 2\n", ["line 2", "no weight", "line 1", "all edges a weight, or none"]),
        ("g.txt", "0 1 1\n1 0 2\n", ["line 2", "weight 2.0", "1.0 elsewhere"]),
        ("g.txt", "0 1\n1 3\n", ["0 to n-1", "largest is 3", "vertex 2", "# vertices 4"]),
        ("g.txt", "1 2\n", ["vertex 0"]),
        ("g.txt", "0 1\n1 99999999999\n", ["largest is 99999999999", "only 3"]),
        ("g.txt", "# vertices 2\n0 1\n1 2\n", ["line 3", "vertex 2", "0 to 1"]),
        ("g.txt", "# vertices 0\n0 1\n", ["0 vertices", "1000000"]),
        ("g.txt", "# vertices 1000001\n0 1\n", ["1000001 vertices", "1000000"]),
        ("g.txt", "0 1\n# directed\n", ["line 2", "top of the file"]),
        ("g.txt", "# nothing\n", ["no edge"]),
        ("g.txt", "0 1\n2 3\n4 5\n", ["3 components", "{0, 1}, {2, 3}, {4, 5}"]),
        ("g.txt", "# directed\n0 1\n1 0\n1 2\n", ["2 strongly connected components", "{0, 1}, {2}", "add arcs"]),
        ("g.bin", b"\x80\xff\x00", ["cannot be read as text", ".npy"]),
        ("g.graphml", "0 1\n", ["not XML", "line 1"]),
        ("g.graphml", graphml(edges="<edge source='0'"), ["not XML"]),
        ("g.graphml", graphml(top=BOMB, edges="<edge source='0' target='1'><data key='w'>&p;</data></edge>"), ["DOCTYPE", "take it out"]),
        ("g.graphml", graphml(top=BOMB).encode("utf-16"), ["DOCTYPE"]),
        ("g.graphml", graphml(top="<!DOCTYPE g SYSTEM 'file:///etc/passwd'>"), ["DOCTYPE"]),
        ("g.graphml", "<html/>", ["not GraphML", "networkx"]),
        ("g.graphml", graphml("<node id='n0'/><node id='n1'/>", "<edge source='n0' target='n1'/>"), ["'n0'", "0 to 1", "rename"]),
        ("g.graphml", graphml("<node id='1'/><node id='2'/>", "<edge source='1' target='2'/>"), ["'2'", "0 to 1"]),
        ("g.graphml", graphml("<node id='0'/><node id='00'/>", "<edge source='0' target='00'/>"), ["two nodes", "0 to 1"]),
        ("g.graphml", graphml("", ""), ["0 vertices"]),
        ("g.graphml", graphml(edges="<edge source='0' target='0'/>"), ["edge 0-0", "to itself"]),
        ("g.graphml", graphml(edges="<edge source='0' target='1'><data key='w'>x</data></edge>"), ["not GraphML", "'x'"]),
        ("g.graphml", graphml(edges="<edge source='0' target='1'><data key='w'>inf</data></edge>"), ["edge 0-1", "inf", "finite"]),
        ("g.graphml", graphml(edges=""), ["2 components"]),
        ("g.json", "{", ["not JSON", "line 1"]),
        ("g.json", b"\xff", ["not JSON"]),
        ("g.json", "[" * 100_000, ["not JSON"]),
        ("g.json", "[1]", ["node-link", "'nodes'", "'edges'"]),
        ("g.json", '{"nodes": [{"id": 0}]}', ["node-link", "'links'"]),
        ("g.json", '{"nodes": [0, 1], "edges": []}', ["node-link", "lists of objects"]),
        ("g.json", '{"nodes": [{"id": 0}], "edges": [{"source": 0}]}', ["not node-link JSON", "target"]),
        ("g.json", '{"nodes": [{"id": 0}], "edges": [{"source": 0, "target": 1}]}', ["leads to 1", "not among the nodes"]),
        ("g.json", '{"nodes": [{"id": 0}, {"id": 1.0}], "edges": []}', ["node id 1.0", "0 to 1"]),
        ("g.json", '{"nodes": [{"id": 0}, {"id": true}], "edges": []}', ["node id True"]),
        ("g.json", '{"nodes": [{"id": {}}], "edges": []}', ["not node-link JSON"]),
        ("g.json", '{"nodes": [{"id": 0}, {"id": 1}], "edges": [{"source": 0, "target": 1, "weight": true}]}', ["edge 0-1", "True"]),
        ("g.json", '{"nodes": [{"id": 0}, {"id": 1}], "edges": [{"source": 0, "target": 1, "weight": NaN}]}', ["edge 0-1", "nan"]),
        ("g.npy", b"no numpy", ["not a numpy array", "numpy.save"]),
        ("g.npy", "", ["not a numpy array"]),
        ("g.csv", "", ["shape (0, 1)", "square"]),
        ("g.csv", "0,1\n1,0\n1,1\n", ["shape (3, 2)", "square"]),
        ("g.csv", "0,1\n# x\n\n1\n", ["line 4", "1 columns", "2"]),
        ("g.csv", "a,b\n0,1\n1,0\n", ["line 1", "'a'", "number"]),
        ("g.csv", "0;1\n1;0\n", ["line 1", "'0;1'", "commas"]),
        ("g.csv", "0,nan\n1,0\n", ["[0, 1]", "nan", "finite"]),
        ("g.csv", b"\xff", ["as text"]),
        ("g.csv", "1,0\n0,1\n", ["2 components", "{0}, {1}"]),
    ],
)
def test_a_malformed_file_is_named(tmp_path, name, content, words):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as error:
        topology.net(f"file:{path}", 1)
    assert [word for word in [str(path), *words] if word not in str(error.value)] == [] and "\n" not in str(error.value)


class Trap:
    """What would run code where a file is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((2, 3)), ["shape (2, 3)", "square"]),
        (np.zeros((2, 2, 2)), ["shape (2, 2, 2)"]),
        (np.zeros((0, 0)), ["shape (0, 0)"]),
        (np.array([["a"]]), ["<U1", "real numbers"]),
        (np.zeros((2, 2), dtype=complex), ["complex128"]),
        (np.array([[0, np.inf], [1, 0]]), ["[0, 1]", "inf"]),
        (np.ones((12, 12)), ["12 vertices", "at most 11", "edge list"]),
    ],
    ids=lambda value: str(value.shape) if isinstance(value, np.ndarray) else "",
)
def test_a_wrong_matrix_is_named(tmp_path, monkeypatch, array, words):
    monkeypatch.setattr("mpiconsensus.topology.matrixfiles.DENSE_VERTICES", 11)
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(UserError) as error:
        files.read(tmp_path / "a.npy")
    assert [word for word in ["a.npy", *words] if word not in str(error.value)] == []


def test_nothing_is_unpickled(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[Trap(tmp_path / "sprung")]], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match="not a numpy array"):
        files.read(tmp_path / "a.npy")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(("suffix", "megabytes"), [(".graphml", 64), (".json", 64), (".csv", 512), (".npy", 1000), (".txt", 512)])
def test_a_huge_file_is_refused_unread(tmp_path, suffix, megabytes):
    path = tmp_path / f"g{suffix}"
    path.touch()
    os.truncate(path, megabytes * 10**6 + 10**6)  # sparse: it takes no room
    with pytest.raises(UserError, match=f"has {megabytes + 1} MB; the most is {megabytes} MB"):
        files.read(path)


def test_a_directory_is_no_graph(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        topology.net(f"file:{tmp_path}", 1)
