"""Weights for every kind of graph: definitions entry by entry, files, what is refused and in which words."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_weights import connected

from mpiconsensus import config, topology, weights
from mpiconsensus.errors import UserError
from mpiconsensus.topology.net import Net
from mpiconsensus.weights import fastest
from mpiconsensus.weights import given as from_files

TAIL = np.array([[0, 1], [0, 2], [1, 2], [2, 3]])  # a triangle with a tail: degrees 2, 2, 3, 1
ARCS = np.array([[0, 1], [1, 2], [2, 0], [0, 2]])  # sender, receiver


def test_degree_weights_entry_by_entry():
    np.testing.assert_array_equal(weights.edge_weights(4, TAIL, "lazy"), [1 / 4, 1 / 6, 1 / 6, 1 / 6])
    np.testing.assert_array_equal(weights.edge_weights(4, TAIL, "max-degree"), [1 / 4] * 4)
    # A path of 3 has the eigenvalues 0, 1, 3.
    assert weights.edge_weights(3, [[0, 1], [1, 2]], "best-constant").tolist() == [0.5, 0.5]
    assert weights.edge_weights(3, [[0, 1], [1, 2]], "best-constant", extremes=(1.5, 3.5)).tolist() == [0.4, 0.4]
    W = weights.mixing_matrix(4, TAIL, "uniform")
    expected = [[1 / 3, 1 / 3, 1 / 3, 0], [1 / 3, 1 / 3, 1 / 3, 0], [1 / 4] * 4, [0, 0, 1 / 2, 1 / 2]]
    np.testing.assert_array_equal(W, expected)
    np.testing.assert_array_equal(weights.mixing_matrix(4, TAIL, "push-sum"), np.transpose(expected))


def test_arcs_stand_in_the_row_of_the_receiver():
    net = Net("arcs", 3, ARCS, directed=True)
    np.testing.assert_array_equal(weights.matrix(net, "uniform"), [[1 / 2, 0, 1 / 2], [1 / 2, 1 / 2, 0], [1 / 3, 1 / 3, 1 / 3]])
    np.testing.assert_array_equal(weights.matrix(net, "push-sum"), [[1 / 3, 0, 1 / 2], [1 / 3, 1 / 2, 0], [1 / 3, 1 / 2, 1 / 2]])


@settings(max_examples=60, deadline=None)
@given(connected(), st.sampled_from(["uniform", "lazy", "max-degree", "metropolis", "push-sum"]), st.booleans())
def test_sparse_rows_are_those_of_the_matrix(graph, method, directed):
    n, edges = graph
    if directed and method not in ("uniform", "push-sum"):
        return
    rows = weights.sparse_rows(n, edges, method, directed)
    W = weights.matrix(Net("any", n, edges, directed), method)
    for i, ((indices, values), row) in enumerate(zip(rows, W, strict=True)):
        assert indices.dtype == np.int64 and i in indices and (np.diff(indices) > 0).all()
        np.testing.assert_array_equal(row[indices], values)
        assert np.count_nonzero(row) == np.count_nonzero(values)
    weights.check(W, edges, directed=directed, columns=method == "push-sum")
    np.testing.assert_allclose(W.sum(axis=0 if method == "push-sum" else 1), 1, rtol=0, atol=1e-12)


def test_an_instant_need_not_be_connected():
    rows = weights.sparse_rows(4, [[1, 3]], "metropolis")
    assert [(i.tolist(), w.tolist()) for i, w in rows] == [([0], [1.0]), ([1, 3], [0.5, 0.5]), ([2], [1.0]), ([1, 3], [0.5, 0.5])]
    assert [i.tolist() for i, _ in weights.sparse_rows(3, np.empty((0, 2)), "max-degree")] == [[0], [1], [2]]


def test_a_hundred_thousand_vertices_need_no_dense_matrix():
    n = 100_000
    edges = np.stack([np.arange(n - 1), np.arange(1, n)], axis=1)
    assert weights.edge_weights(n, edges, "metropolis")[[0, 1]].tolist() == [1 / 3, 1 / 3]
    assert set(weights.edge_weights(n, edges, "best-constant", extremes=(1e-9, 4.0))) == {0.499999999875}
    with pytest.raises(UserError, match="100000 vertices.*at most 10000"):
        weights.matrix(Net("path:100000", n, edges), "metropolis")
    with pytest.raises(UserError, match="99999 edges.*6000 edges.*metropolis or best-constant"):
        fastest.solution(n, edges, "fastest")


@pytest.mark.parametrize(
    ("net", "method", "words"),
    [
        (Net("arcs", 3, ARCS, directed=True), "metropolis", ["'metropolis'", "directed graph (arcs)", "uniform, push-sum, file"]),
        (Net("turns", 4, TAIL, changing=object()), "fastest", ["changing graph (turns)", "uniform, lazy, max-degree, metropolis, push-sum"]),
        (Net("turns", 3, ARCS, True, changing=object()), "file", ["changing directed graph", "choose one of uniform, push-sum."]),
        (Net("turns", 4, TAIL, changing=object()), "metropolis", ["'turns'", "changes", "no one mixing matrix"]),
        (Net("ring:4", 4, TAIL), "fastet", ["'fastet'", "Did you mean 'fastest'"]),
        (Net("ring:4", 4, TAIL), "metropolis:x", ["'metropolis:x'", "choose one of"]),
        (Net("ring:4", 4, TAIL), "file:", ["'file:'", "choose one of"]),
        (Net("ring:4", 4, TAIL), "file", ["'ring:4'", "third column", "file:PATH"]),
    ],
)
def test_what_a_graph_does_not_allow(net, method, words):
    with pytest.raises(UserError) as error:
        weights.matrix(net, method)
    assert [word for word in words if word not in str(error.value)] == []


def test_weights_of_the_graphs_file():
    path = np.array([[0, 1], [1, 2]])
    W = weights.matrix(Net("file:p", 3, path, given=np.array([0.4, 0.2])), "file")
    np.testing.assert_allclose(W, [[0.6, 0.4, 0], [0.4, 0.4, 0.2], [0, 0.2, 0.8]], rtol=0, atol=2e-16)
    own = np.array([0.6, 0.4, 0.8])
    W = weights.matrix(Net("file:p", 3, path, given=np.array([0.4, 0.2]), given_diagonal=own), "file")
    np.testing.assert_array_equal(W.diagonal(), own)
    W = weights.matrix(Net("file:a", 3, ARCS, True, np.array([0.5, 0.25, 0.75, 0.125])), "file")
    np.testing.assert_array_equal(W, [[0.25, 0, 0.75], [0.5, 0.5, 0], [0.125, 0.25, 0.625]])
    columns = Net("file:a", 3, ARCS, True, np.array([0.5, 0.5, 0.5, 0.25]), np.array([0.25, 0.5, 0.5]))
    np.testing.assert_array_equal(weights.matrix(columns, "file").sum(axis=0), 1)


@pytest.mark.parametrize(
    ("net", "words"),
    [
        (Net("file:x", 3, np.array([[0, 1], [1, 2]]), given=np.ones(2) / 2, given_diagonal=np.ones(3) / 2), ["row 1 sums to 1.5"]),
        (Net("file:x", 3, np.array([[0, 1], [1, 2]]), given=np.array([0.5, 0.0])), ["|lambda_2| = 1;", "below 1"]),
        (Net("file:x", 2, np.array([[0, 1]]), given=np.ones(1)), ["|lambda_2| = 1;", "keep a part"]),
        (Net("file:x", 2, np.array([[0, 1]]), given=np.array([np.nan])), ["W[0,0]", "nan", "finite"]),
        (Net("file:x", 3, ARCS, True, np.array([1.25, 0.5, 0.5, -0.5]), np.array([0.25, 0.5, 0.5])), ["W[2,0] = -0.5", "at least 0"]),
        (Net("file:x", 3, ARCS, True, np.array([1.0, 0.5, 0.5, 0.0]), np.array([0.0, 0.5, 0.5])), ["W[0,0] = 0.0", "keep a part"]),
    ],
)
def test_wrong_weights_of_a_file_are_named(net, words):
    with pytest.raises(UserError) as error:
        weights.matrix(net, "file")
    assert [word for word in ["'file:x'", *words] if word not in str(error.value)] == []


def matrix_net(W):
    """Return the Net of a matrix file: an arc for each entry, edges where it is symmetric."""
    W = np.array(W)
    symmetric = np.array_equal(W, W.T)
    receiver, sender = np.nonzero((np.triu(W) if symmetric else W) * (1 - np.eye(len(W))))
    edges = np.stack([receiver, sender] if symmetric else [sender, receiver], axis=1)
    return Net("file:w.csv", len(W), edges, not symmetric, W[receiver, sender], W.diagonal())


@pytest.mark.parametrize(
    ("W", "words"),
    [
        ([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25], [0.25, 0.25, 0.5]], ["W[0,2] = 0.25 off the edges", "set it to 0"]),
        ([[0.5, 0.5, 0.0], [0.25, 0.5, 0.25], [0.0, 0.5, 0.5]], ["W[0,1] = 0.5", "W[1,0] = 0.25", "must be equal"]),
        ([[0.5, 0.5], [0.5, 0.5]], ["2 vertices", "path:3 has 3"]),
    ],
)
def test_a_matrix_beside_the_graph(monkeypatch, W, words):
    net = Net("path:3", 3, np.array([[0, 1], [1, 2]]))
    right = [[0.5, 0.5, 0.0], [0.5, 0.25, 0.25], [0.0, 0.25, 0.75]]
    monkeypatch.setattr(from_files, "read_graph", lambda path: matrix_net(right))
    np.testing.assert_array_equal(weights.matrix(net, "file:w.csv"), right)
    monkeypatch.setattr(from_files, "read_graph", lambda path: matrix_net(W))
    with pytest.raises(UserError) as error:
        weights.matrix(net, "file:w.csv")
    assert [word for word in ["'w.csv'", *words] if word not in str(error.value)] == []


def test_files_of_weights_are_read(tmp_path):
    net = Net("path:3", 3, np.array([[0, 1], [1, 2]]))
    (tmp_path / "w.csv").write_text("0.5,0.5,0\n0.5,0.25,0.25\n0,0.25,0.75\n")
    (tmp_path / "w.txt").write_text("0 1 0.5\n1 2 0.25\n")
    (tmp_path / "bare.txt").write_text("0 1\n1 2\n")
    expected = [[0.5, 0.5, 0.0], [0.5, 0.25, 0.25], [0.0, 0.25, 0.75]]
    np.save(tmp_path / "w.npy", expected)
    for name in ("w.csv", "w.txt", "w.npy"):
        np.testing.assert_array_equal(weights.matrix(net, f"file:{tmp_path / name}"), expected)
    with pytest.raises(UserError, match="bare.txt.*third column"):
        weights.matrix(net, f"file:{tmp_path / 'bare.txt'}")


def test_check_of_columns_symmetry_and_contraction():
    weights.check([[0.5, 0.25], [0.5, 0.75]], columns=True)
    for wrong, options, words in (
        ([[0.5, 0.25], [0.5, 0.5]], {"columns": True}, "column 1 sums to 0.75"),
        ([[0.5, 0.5], [0.25, 0.75]], {"symmetric": True}, r"W\[0,1\] = 0.5 and W\[1,0\] = 0.25"),
        ([[1.0, 0.0], [0.0, 1.0]], {"contracts": True}, r"\|lambda_2\| = 1;"),
        ([[0.5, 0.5], [0.5, 0.5]], {"edges": [[0, 1]], "directed": True}, r"W\[0,1\] = 0.5 off the edges"),
    ):
        with pytest.raises(UserError, match=words):
            weights.check(np.array(wrong), **options)


def test_the_key_takes_every_method_and_a_path():
    key = config.find("topology.weights")
    assert key.choices == ("auto", *weights.METHODS, "file:PATH")
    assert [config.check(key, name) for name in (*weights.METHODS, "file:w.csv")][-1] == "file:w.csv"
    for wrong in ("file:", "files:w.csv", "fastest:w"):
        with pytest.raises(UserError, match="topology.weights"):
            config.check(key, wrong)


def test_one_vertex_has_one_entry():
    for method in set(weights.METHODS) - {"file"}:
        assert weights.matrix(Net("ring:1", 1, topology.edges(topology.build("ring:1"))), method).tolist() == [[1.0]]
