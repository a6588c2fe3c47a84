"""Figures of graphs and weights against networkx, plain matrices and counting."""

import math

import networkx as nx
import numpy as np
import pytest

from mpiconsensus import topology, weights
from mpiconsensus.errors import UserError
from mpiconsensus.survey import figures as survey
from mpiconsensus.survey import rates, sparse, tell
from mpiconsensus.survey.rates import Between
from mpiconsensus.topology.net import Net


def uniform(net):
    """Rows that sum to 1: each receiver averages itself and its in-neighbours."""
    W = np.eye(net.n)
    W[net.edges[:, 1], net.edges[:, 0]] = 1
    return W / W.sum(axis=1, keepdims=True)


def push_sum(net):
    """Columns that sum to 1: each sender divides itself among itself and its out-neighbours."""
    W = np.eye(net.n)
    W[net.edges[:, 1], net.edges[:, 0]] = 1
    return W / W.sum(axis=0)


def given(monkeypatch, build):
    """Let every method give the weights that `build` makes of a Net."""
    monkeypatch.setattr(weights, "require", lambda *_: None)

    def rows(net, edges):
        W = build(net._replace(edges=edges))
        return sparse.from_rows(net.n, edges, weights.rows(W), W[tuple(edges.T)] if np.array_equal(W, W.T) else None)

    monkeypatch.setattr(sparse, "of", lambda net, method: rows(net, net.edges))
    monkeypatch.setattr(sparse, "at", lambda net, method, k: rows(net, net.changing.at(k)))


def directed(n, arcs):
    return Net(f"file:{n}", n, np.array(sorted(arcs)), directed=True)


class Turns:
    """Lists of edges in turn."""

    def __init__(self, graphs, period=True):
        self.graphs, self.period = [np.array(g).reshape(-1, 2) for g in graphs], len(graphs) if period else None

    def at(self, k):
        return self.graphs[k % len(self.graphs)]


SPECS = ["ring:9", "torus:4x6", "grid:3x7", "star:8", "complete:6", "circulant:20,4", "margulis:16", "random:40,60", "regular:30,3", "torus:2x3x4"]


@pytest.mark.parametrize("spec", SPECS)
def test_the_figures_of_a_graph_are_networkx(spec):
    net, graph = topology.net(spec, 1), topology.build(spec)
    figures = survey.survey(net, "metropolis")
    degrees = [d for _, d in graph.degree()]
    assert (figures["vertices"], figures["edges"]) == (len(graph), graph.number_of_edges())
    assert (figures["degree_min"], figures["degree_max"]) == (min(degrees), max(degrees))
    assert figures["degree_mean"] == pytest.approx(2 * graph.number_of_edges() / len(graph))
    assert figures["diameter"] == nx.diameter(graph)
    assert figures["edge_connectivity"] == nx.edge_connectivity(graph)
    assert figures["algebraic_connectivity"] == pytest.approx(np.linalg.eigvalsh(nx.laplacian_matrix(graph).toarray())[1], rel=1e-9)
    W = weights.mixing_matrix(net.n, net.edges, "metropolis")
    assert figures["lambda_2"] == pytest.approx(weights.second_modulus(W), abs=1e-12)
    assert figures["smallest_weight"] == pytest.approx(W[W != 0].min()) and figures["mean"] == "kept" and figures["negative_edges"] == 0


@pytest.mark.parametrize("spec", [s for s in SPECS if s != "complete:6"])
def test_the_rounds_are_those_that_shrink_the_worst_disagreement(spec):
    net = topology.net(spec, 1)
    figures = survey.survey(net, "best-constant")
    W, rounds = weights.mixing_matrix(net.n, net.edges, "best-constant"), figures["rounds_to_shrink_1000"]
    after, before = (np.linalg.norm(np.linalg.matrix_power(W, r) - 1 / net.n, 2) for r in (rounds, rounds - 1))
    assert after <= 1e-3 * (1 + 1e-9) < before * (1 + 2e-9)
    assert f"{rounds:,} rounds shrink it 1000 times" in survey.words(figures)[0]


def test_one_round_averages_a_complete_graph_and_one_vertex_needs_none():
    figures = survey.survey(topology.net("complete:6", 1), "metropolis")
    assert figures["rounds_to_shrink_1000"] == 1 and figures["lambda_2"] < 1e-12 and "One round reaches the mean" in survey.words(figures)[0]
    alone = survey.survey(topology.net("complete:1", 1), "metropolis", 10, np.zeros(1, int))
    assert (alone["rounds_to_shrink_1000"], alone["lambda_2"], alone["bytes_a_round"], alone["edges_crossing"]) == (0, 0.0, 0, 0)
    assert "nobody" in survey.words(alone)[0]


def test_weights_that_never_agree_are_said_so(monkeypatch):
    given(monkeypatch, lambda net: np.array([[0.0, 1.0], [1.0, 0.0]]))
    figures = survey.survey(topology.net("complete:2", 1), "file")
    assert figures["rounds_to_shrink_1000"] is None and "do not come to agree" in survey.words(figures)[0]
    assert dict(tell.lines(figures))["rounds to shrink 1000x"].startswith("never")


def test_negative_weights_are_counted(monkeypatch):
    W = np.array([[0.6, 0.5, -0.1], [0.5, 0.1, 0.4], [-0.1, 0.4, 0.7]])
    given(monkeypatch, lambda net: W)
    figures = survey.survey(topology.net("complete:3", 1), "file")
    assert (figures["smallest_weight"], figures["smallest_edge_weight"], figures["negative_edges"]) == (-0.1, -0.1, 1)
    assert dict(tell.lines(figures))["smallest weight"] == "-0.1 (1 edge negative)"


def test_the_bytes_are_a_row_both_ways_over_every_edge():
    figures = survey.survey(topology.net("star:5", 1), "metropolis", 1000)
    assert (figures["rows_a_round"], figures["rows_a_round_vertex_max"]) == (8, 4)
    assert (figures["bytes_a_round"], figures["bytes_a_round_vertex_max"]) == (8 * 4000, 4 * 4000)
    assert "32 kB in all, at most 16 kB by a vertex" in dict(tell.lines(figures))["sent a round"]
    one_way = survey._bytes(directed(3, [(0, 1), (1, 2), (2, 0), (0, 2)]), 1000)
    assert (one_way["bytes_a_round"], one_way["bytes_a_round_vertex_max"]) == (4 * 4000, 2 * 4000)


@pytest.mark.parametrize(("spec", "nodes"), [("ring:36", 4), ("torus:6x6", 4), ("grid:5x7", 3), ("random:30,80", 7)])
def test_the_edges_between_blocks_are_counted(spec, nodes):
    net = topology.net(spec, 1)
    owner = [next(b for b in range(nodes) if v in np.array_split(np.arange(net.n), nodes)[b]) for v in range(net.n)]
    count = sum(owner[i] != owner[j] for i, j in net.edges)
    figures = survey.crossing(net, survey.on_nodes(net, nodes, "block"), 10)
    assert figures == {"nodes": nodes, "edges_crossing": count, "bytes_a_round_crossing": 2 * 40 * count}
    with pytest.raises(UserError, match=f"the graph has {net.n} vertices"):
        survey.on_nodes(net, net.n + 1, "block")


@pytest.mark.parametrize("spec", ["ring:30", "grid:4x9", "random:60,90", "random:60,59", "regular:60,3"])
def test_sweeps_bound_the_diameter(monkeypatch, spec):
    monkeypatch.setattr(survey, "MOST_DIAMETER", 10)
    net, true = topology.net(spec, 1), nx.diameter(topology.build(spec))
    found = survey.diameter(net)
    if isinstance(found, Between):
        assert found.at_least <= true <= found.at_most
    else:
        assert found == true
    assert spec != "random:60,59" or found == true  # of a tree two sweeps are exact


def test_past_its_limit_the_edge_connectivity_is_bounded(monkeypatch):
    monkeypatch.setattr(survey, "MOST_CUTS", 10)
    assert survey.edge_connectivity(topology.net("grid:4x5", 1)) == Between(1, 2)
    assert survey.edge_connectivity(topology.net("star:15", 1)) == 1
    assert survey.edge_connectivity(topology.net("torus:4x5", 1)) == 4


def test_a_directed_graph_is_told_by_arcs(monkeypatch):
    net = directed(5, [(0, 1), (1, 2), (2, 3), (3, 4), (4, 0), (0, 2), (0, 3)])
    graph = nx.DiGraph(net.edges.tolist())
    W = uniform(net)
    given(monkeypatch, uniform)
    figures = survey.survey(net, "uniform")
    assert (figures["out_degree_min"], figures["out_degree_max"], figures["in_degree_min"], figures["in_degree_max"]) == (1, 3, 1, 2)
    assert figures["diameter"] == nx.diameter(graph) and figures["edge_connectivity"] == nx.edge_connectivity(graph)
    assert figures["lambda_2"] == pytest.approx(np.sort(np.abs(np.linalg.eigvals(W)))[-2], abs=1e-9)
    spread = np.eye(5) - 1 / 5
    assert figures["single_round_factor"] == pytest.approx(np.linalg.svd(spread @ W)[1][0], abs=1e-12)
    assert figures["mean"] == "drifts" and "not kept" in survey.words(figures)[1] and "algebraic_connectivity" not in figures
    monkeypatch.setattr(survey, "MOST_DIAMETER", 2)
    bounds = survey.diameter(net)
    assert bounds.at_least <= nx.diameter(graph) <= bounds.at_most


def test_push_sum_keeps_the_sum(monkeypatch):
    net = directed(4, [(0, 1), (1, 2), (2, 3), (3, 0), (0, 2)])
    given(monkeypatch, push_sum)
    figures = survey.survey(net, "push-sum")
    assert figures["mean"] == "kept by the ratio" and "ratio" in survey.words(figures)[1]
    assert figures["lambda_2"] == pytest.approx(np.sort(np.abs(np.linalg.eigvals(push_sum(net))))[-2], abs=1e-9)
    given(monkeypatch, lambda net: np.eye(4)[[1, 2, 3, 0]] / 2 + np.eye(4) / 2)
    assert survey.survey(directed(4, [(1, 0), (2, 1), (3, 2), (0, 3)]), "uniform")["mean"] == "kept"


def test_a_graph_that_changes_and_averages_exactly(monkeypatch):
    graphs = [[(i, (i + 2**k) % 8) for i in range(8)] for k in range(3)]
    union = np.array(sorted({tuple(e) for g in graphs for e in g}))
    given(monkeypatch, uniform)
    net = Net("one-peer-exponential:8", 8, union, directed=True, changing=Turns(graphs))
    figures = survey.survey(net, "uniform", 100)
    # Assran et al. 2019: log2(n) exchanges of the one-peer exponential graph average exactly.
    assert (figures["exact_after"], figures["rounds_to_shrink_1000"], figures["lambda_2"]) == (3, 3, 0.0)
    assert figures["bytes_a_round"] == 8 * 400 and figures["bytes_a_round_vertex_max"] == 400
    assert "agree exactly after 3 exchanges" in survey.words(figures)[0]


@pytest.mark.parametrize("weights_of", [uniform, push_sum])
@pytest.mark.parametrize("period", [True, False])
def test_the_rate_of_a_graph_that_changes_is_that_of_its_product(monkeypatch, weights_of, period):
    graphs = [[(0, 1), (1, 0), (2, 3)], [(1, 2), (3, 0)], [(2, 0), (0, 2), (3, 1)]]
    given(monkeypatch, weights_of)
    net = Net("x", 4, np.array(sorted({e for g in graphs for e in g})), directed=True, changing=Turns(graphs, period))
    figures = rates.of_changing(net, "x")
    P, k = np.eye(4), figures["exchanges"]
    for e in range(k):
        P = weights_of(net._replace(edges=np.array(graphs[e % 3]))) @ P
    P = P / P.sum(axis=1, keepdims=True)
    left = np.linalg.norm((np.eye(4) - 1 / 4) @ P, 2)
    assert figures["lambda_2"] == pytest.approx(left ** (1 / k), rel=1e-6) and figures["exact_after"] is None
    assert 1e-9 < left < 1e-6 and (k % 3 == 0 or not period)  # far from rounding; whole periods


def test_a_disconnected_product_does_not_agree(monkeypatch):
    given(monkeypatch, uniform)
    net = Net("x", 4, np.array([(0, 1), (1, 2), (2, 3)]), changing=Turns([[(0, 1), (1, 0)], [(2, 3), (3, 2)]]))
    figures = rates.of_changing(net, "uniform")
    assert figures["lambda_2"] == pytest.approx(1.0) and figures["rounds_to_shrink_1000"] is None


def test_bounds_are_told_as_bounds():
    figures = survey.survey(topology.net("ring:9", 1), "metropolis") | {
        "lambda_2": Between(0.9, 0.95), "spectral_gap": Between(0.05, 0.1), "rounds_to_shrink_1000": rates._rounds_between(Between(0.0, 0.1)),
        "edge_connectivity": Between(1, 4),
    }  # fmt: skip
    lines = dict(tell.lines(figures))
    assert lines["|lambda_2|"] == "0.9 to 0.95, not known closer" and lines["edge connectivity"] == "at most 4"
    assert figures["rounds_to_shrink_1000"] == Between(math.ceil(math.log(1000) / -math.log(0.9)), math.inf)
    assert tell.plain(figures)["rounds_to_shrink_1000"] == {"at_least": 66, "at_most": None}
    assert "between 0.9 and 0.95" in survey.words(figures)[0]


def test_a_model_gives_the_length_of_a_row():
    count, samples = survey.parameters_of("logistic")
    assert count == 64 * 10 + 10 and "1x8x8" in samples


def test_vertices_out_of_reach_leave_no_diameter():
    assert survey.diameter(directed(3, [(0, 1), (1, 2)])) is None
    assert survey.diameter(Net("x", 4, np.array([[0, 1], [2, 3]]))) is None
