"""Rounds as matrices: the properties that promise 2 stands on, on random connected graphs."""

import math

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mpiconsensus.mixing import Sums
from mpiconsensus.pieces import pieces
from mpiconsensus.schedule import Round, full, masked, pair_rounds
from mpiconsensus.weights import mixing_matrix, rows


@st.composite
def graphs(draw):
    """Return (n, rows of Metropolis weights, W) of a random connected graph."""
    n = draw(st.integers(2, 12))
    tree = nx.random_labeled_tree(n, seed=draw(st.integers(0, 999)))
    more = draw(st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), max_size=12))
    tree.add_edges_from((i, j) for i, j in more if i != j)
    w = mixing_matrix(n, np.array(sorted((min(e), max(e)) for e in tree.edges())), "metropolis")
    return n, rows(w), w


@settings(deadline=None, max_examples=60)
@given(graphs(), st.data())
def test_a_masked_round_is_its_definition(graph, data):
    n, every, w = graph
    mixes = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    thesis = masked(every, mixes, "thesis").matrix()
    for i in range(n):
        assert np.array_equal(thesis[i], w[i] if mixes[i] else np.eye(n)[i])
    mutual = masked(every, mixes, "mutual")
    matrix = mutual.matrix()
    assert np.abs(matrix - matrix.T).max() == 0 and np.abs(matrix.sum(axis=1) - 1).max() < 1e-12 and mutual.keeps_mean
    off = ~np.eye(n, dtype=bool)
    assert np.array_equal(matrix[off], np.where(np.outer(mixes, mixes), w, 0)[off])


@settings(deadline=None, max_examples=60)
@given(st.integers(2, 9), st.data())
def test_pairs_are_averaged_in_order(n, data):
    vertex = st.integers(0, n - 1)
    pairs = data.draw(st.lists(st.tuples(vertex, vertex).filter(lambda p: p[0] != p[1]), max_size=8))
    x = np.random.default_rng(0).standard_normal((n, 3))
    expected = x.copy()
    for i, j in pairs:
        expected[[i, j]] = expected[[i, j]].mean(axis=0)
    found = pair_rounds(n, pairs)
    for round_ in found:
        x = round_.matrix() @ x
        assert round_.keeps_mean
    assert np.abs(x - expected).max() < 1e-14
    # Neighbouring pairs share a round until one of their vertices comes again.
    assert len(found) <= len(pairs) and (len({v for p in pairs for v in p}) < 2 * len(pairs) or len(found) <= 1)


@settings(deadline=None, max_examples=40)
@given(graphs())
def test_readers_are_the_columns(graph):
    n, every, w = graph
    round_ = full(every)
    for j in range(n):
        assert round_.readers.get(j, []) == [i for i in range(n) if i != j and w[i, j] != 0]
    assert round_.out_degree.sum() == np.count_nonzero(w) - np.count_nonzero(np.diag(w))
    assert np.array_equal(round_.matrix(), w)


def test_one_sided_rows_do_not_keep_the_mean():
    every = rows(mixing_matrix(3, np.array([[0, 1], [1, 2]]), "metropolis"))
    assert not masked(every, [True, False, False], "thesis").keeps_mean


@given(st.lists(st.floats(-2, 2).filter(lambda w: w == 0 or abs(w) > 1e-3), min_size=1, max_size=7), st.integers(0, 6))
@example([-0.5, 0.5, 1.0], 0)
def test_blends_are_the_rows_of_the_matrix(weights, i):
    """Interpolations, one after the other, give the weighted sum; a row read late stands behind the vertex's own."""
    weights = [*weights, 1.0 - math.fsum(weights)]
    n, i = len(weights), i % len(weights)
    round_ = Round(n, {i: (np.arange(n), np.array(weights))})
    if not round_.rows:
        return
    values = np.linspace(1.0, 2.0, n)
    size = sum(abs(w) for w in weights)

    def follow(x, blend):
        for j, share in blend:
            x = x + share * (values[j] - x)
        return x

    (first, one), *rest = round_.blends[i]
    assert one == 1.0 and abs(follow(values[first], rest) - np.dot(weights, values)) < 1e-13 * (1 + size) ** 2
    own = 5.0
    expected = own + np.dot(weights, values) - values[i]
    assert abs(follow(own, round_.late_blends[i]) - expected) < 1e-13 * (2 + size) ** 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_vertices_that_agree_stay_as_they_are_to_the_last_bit(dtype):
    row = torch.randn(5000, dtype=dtype, generator=torch.Generator().manual_seed(0))
    round_ = full(rows(mixing_matrix(7, np.array([(i, j) for i in range(7) for j in range(i + 1, 7)]), "metropolis")))
    out = torch.zeros_like(row)
    for blend in round_.blends.values():
        assert len(blend) == 7
        Sums([(pieces(out.zero_()), [(pieces(row.clone()), share) for _, share in blend])]).run()
        assert torch.equal(out, row)
