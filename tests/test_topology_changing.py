"""Graphs that change from exchange to exchange: pure functions of (seed, k), light enough to travel to every rank."""

import pickle
import sys

import numpy as np
import pytest
from conftest import run
from hypothesis import given, settings
from hypothesis import strategies as st

from mpiconsensus import topology
from mpiconsensus.errors import UserError
from mpiconsensus.topology.changing import greedy


@pytest.mark.parametrize("n", [1, 2, 4, 16, 64])
def test_one_peer_exponential_averages_exactly_after_log2_n_exchanges(n):
    changing = topology.net(f"one-peer-exponential:{n}", 1).changing
    product = np.eye(n)
    for k in range(3, 3 + changing.period):  # any period of them
        W = np.eye(n)
        for sender, receiver in changing.at(k):
            W[receiver] /= 2
            W[receiver, sender] += 0.5
        product = W @ product
    # Powers of 2 and their sums: no rounding.
    assert changing.period == max(1, int(np.log2(n))) and (product == np.full((n, n), 1 / n)).all()


@pytest.mark.parametrize("n", [2, 5, 6, 16])
def test_one_peer_each_way_and_the_union_is_the_exponential_graph(n):
    net = topology.net(f"one-peer-exponential:{n}", 1)
    every = [net.changing.at(k) for k in range(net.changing.period)]
    for k, arcs in enumerate(every):
        assert arcs.dtype == np.int64 and arcs.tolist() == sorted([i, (i + 2**k) % n] for i in range(n))
        assert sorted(arcs[:, 1].tolist()) == list(range(n))
        assert net.changing.at(k + 7 * net.changing.period).tolist() == arcs.tolist()
    assert np.unique(np.concatenate(every), axis=0).tolist() == net.edges.tolist()
    assert net.edges.tolist() == topology.net(f"directed-exponential:{n}", 1).edges.tolist()


def one_by_one(n, edges):
    """The pass that `greedy` makes, edge after edge."""
    free, taken = [True] * n, []
    for position, (i, j) in enumerate(edges.tolist()):
        if free[i] and free[j]:
            free[i] = free[j] = False
            taken.append(position)
    return taken


@settings(max_examples=100, deadline=None)
@given(st.integers(2, 40), st.integers(0, 10**6))
def test_greedy_takes_what_a_pass_in_order_takes(n, seed):
    edges = topology.net(f"random:{n},{min(3 * n, n * (n - 1) // 2)}", 1).edges
    edges = edges[np.random.default_rng(seed).permutation(len(edges))]
    assert sorted(greedy(n, edges).tolist()) == one_by_one(n, edges)


@pytest.mark.parametrize("spec", ["matchings:torus:6x6", "matchings:star:9", "matchings:random:40,90", "matchings:ring:2", "matchings:ring:1"])
def test_matchings_are_maximal_and_of_every_edge(spec):
    net = topology.net(spec, 1, seed=5)
    base = set(map(tuple, net.edges.tolist()))
    seen = set()
    for k in range(150):
        edges = net.changing.at(k)
        matched = set(edges.ravel().tolist())
        assert edges.dtype == np.int64 and edges.shape == (len(matched) // 2, 2)
        assert edges.tolist() == sorted(edges.tolist()) and set(map(tuple, edges.tolist())) <= base
        assert all(i in matched or j in matched for i, j in base)
        seen |= set(map(tuple, edges.tolist()))
    assert seen == base and net.edges.tolist() == topology.net(spec.partition(":")[2], 1, seed=5).edges.tolist()


def test_matchings_favour_no_edge():
    # Every maximal matching of 6 vertices, each with each, has 3 of the 15 edges: by symmetry each stands in 1 of 5.
    changing = topology.net("matchings:complete:6", 1).changing
    counts = np.zeros((6, 6))
    for k in range(2000):
        i, j = changing.at(k).T
        counts[i, j] += 1
    # Binomial, mean 400, deviation 17.9; five deviations for each of 15.
    assert (np.abs(counts[np.triu_indices(6, 1)] - 400) < 5 * 17.9).all()


def test_matchings_are_a_function_of_seed_and_exchange():
    first = topology.net("matchings:torus:6x6", 1, seed=1).changing
    again = topology.net("matchings:torus:6x6", 1, seed=1).changing
    there = [first.at(k).tolist() for k in range(20)]
    back = [again.at(k).tolist() for k in reversed(range(20))]
    other = topology.net("matchings:torus:6x6", 1, seed=2).changing
    assert there == back[::-1] and len({str(edges) for edges in there}) == 20
    assert all(other.at(k).tolist() != there[k] for k in range(20))
    assert first.period is None and first.at(3) is first.at(3)
    with pytest.raises(ValueError, match="read-only"):
        first.at(3)[0, 0] = 9


def test_a_changing_graph_travels_without_networkx(tmp_path):
    (tmp_path / "a.txt").write_text("0 1\n1 2\n")
    specs = ["matchings:random:20,40", "one-peer-exponential:6", f"sequence:{tmp_path / 'a.txt'}"]
    nets = [topology.net(spec, 1, seed=4) for spec in specs]
    nets[0].changing.at(2)
    (tmp_path / "nets").write_bytes(pickle.dumps(nets))
    done = run(
        sys.executable, "-c",
        "import pickle, sys\nnets = pickle.load(open(sys.argv[1], 'rb'))\n"
        "print([net.changing.at(7).tolist() for net in nets], 'networkx' in sys.modules)", tmp_path / "nets",
    )  # fmt: skip
    assert done.stdout.strip() == f"{[net.changing.at(7).tolist() for net in nets]} False", done.stderr


def write(folder, **texts):
    for name, text in texts.items():
        (folder / f"{name}.txt").write_text(text)
    return "sequence:" + ",".join(str(folder / f"{name}.txt") for name in texts)


def test_a_sequence_takes_its_files_in_turn(tmp_path):
    spec = write(tmp_path, a="# vertices 4\n0 1\n", b="# vertices 4\n", c="2 3 0.5\n1 2 0.25\n0 1 1\n")
    net = topology.net(spec.replace(",", " , "), 99)
    assert net.spec == spec and (net.n, net.directed, net.given, net.changing.period) == (4, False, None, 3)
    assert [net.changing.at(k).tolist() for k in (0, 1, 2, 3)] == [[[0, 1]], [], [[0, 1], [1, 2], [2, 3]], [[0, 1]]]
    assert net.edges.tolist() == [[0, 1], [1, 2], [2, 3]] and topology.build(spec).number_of_edges() == 3
    arcs = topology.net(write(tmp_path, d="# directed\n# vertices 3\n0 1\n", e="# directed\n2 0\n1 2\n"), 1)
    assert arcs.directed and arcs.edges.tolist() == [[0, 1], [1, 2], [2, 0]] and arcs.changing.at(1).tolist() == [[1, 2], [2, 0]]


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        ({"a": "0 1\n", "b": "0 1\n1 2\n"}, ["b.txt has 3 vertices", "a.txt 2", "# vertices 4"]),
        ({"a": "0 1\n", "b": "# directed\n0 1\n"}, ["b.txt is directed", "a.txt undirected"]),
        ({"a": "# vertices 4\n0 1\n", "b": "# vertices 4\n2 3\n"}, ["2 components", "{0, 1}, {2, 3}"]),
        ({"a": "# directed\n0 1\n", "b": "# directed\n0 1\n"}, ["2 strongly connected components", "{0}, {1}", "add arcs"]),
        ({"a": "0 1\n", "b": "0 x\n"}, ["b.txt, line 1", "'x'"]),
    ],
)
def test_a_wrong_sequence_is_named(tmp_path, texts, words):
    with pytest.raises(UserError) as error:
        topology.net(write(tmp_path, **texts), 1)
    assert [word for word in words if word not in str(error.value)] == [] and "\n" not in str(error.value)
