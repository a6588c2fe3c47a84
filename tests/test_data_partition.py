"""Partitions: every sample once, nobody without, as each form promises."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpiconsensus.data import partition
from mpiconsensus.errors import UserError


@given(st.integers(1, 12), st.data())
def test_a_division_gives_every_sample_once_in_proportion(n, data):
    powers = data.draw(st.none() | st.lists(st.floats(0.01, 100), min_size=n, max_size=n))
    count = data.draw(st.integers(n, 400))
    seed = data.draw(st.integers(0, 2**40))
    parts = partition.divide(count, n, seed, powers)
    assert sorted(np.concatenate(parts).tolist()) == list(range(count))
    assert all(part.dtype == np.int64 and len(part) and np.all(np.diff(part) > 0) for part in parts)
    weights = [Fraction(p) for p in powers or [1] * n]
    shares = [count * w / sum(weights) for w in weights]
    if min(shares) >= 1:
        assert all(abs(len(part) - share) < 1 for part, share in zip(parts, shares))
    if powers is None:
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize(
    ("count", "n", "powers", "expected"),
    [
        (10, 4, None, [3, 3, 2, 2]),
        (10, 3, [1, 1, 2], [3, 2, 5]),
        (7, 3, [3, 2, 2], [3, 2, 2]),
        (10, 3, [0.1, 0.1, 0.1], [4, 3, 3]),
        (10, 3, [1, 1000, 1], [1, 8, 1]),
        (3, 3, [1, 5, 1e300], [1, 1, 1]),
        (5, 1, [7], [5]),
    ],
)
def test_sizes_by_hand(count, n, powers, expected):
    assert partition.sizes(count, n, powers) == expected
    assert [len(part) for part in partition.divide(count, n, 3, powers)] == expected


def test_a_division_depends_on_the_seed_alone():
    first, again, other = (partition.divide(100, 4, seed) for seed in (5, 5, 6))
    assert all(np.array_equal(a, b) for a, b in zip(first, again))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other))
    # Random, not consecutive blocks.
    assert np.any(np.diff(first[0]) > 1)


@pytest.mark.parametrize(
    ("count", "n", "powers", "words"),
    [
        (3, 4, None, ["fewer samples than vertices", "3", "4"]),
        (9, 3, [1, 2], ["2 powers", "3 vertices"]),
        (9, 2, [1, 0], ["vertex 1", "0", "positive"]),
        (9, 2, [-2.0, 1], ["vertex 0", "-2.0"]),
        (9, 2, [1, float("nan")], ["vertex 1", "nan"]),
        (9, 2, [1, float("inf")], ["vertex 1", "inf"]),
    ],
)
def test_impossible_divisions_are_named(count, n, powers, words):
    with pytest.raises(UserError) as error:
        partition.divide(count, n, 1, powers)
    assert all(word in str(error.value) for word in words)


SPECS = st.sampled_from(["iid", "sorted", "contiguous", "by:label", "owners"]) | st.builds(
    "{}:{}".format, st.just("dirichlet"), st.floats(1e-4, 1e4)
) | st.builds("{}:{}".format, st.just("labels"), st.integers(1, 6))  # fmt: skip


@st.composite
def labelled(draw, classes=6, most=300):
    """Draw (labels with every class, vertices, powers or None, seed)."""
    n = draw(st.integers(1, 9))
    labels = draw(st.lists(st.integers(0, classes - 1), min_size=n, max_size=most))
    labels = np.array(labels + list(range(classes)) * n)
    powers = draw(st.none() | st.lists(st.floats(0.01, 100), min_size=n, max_size=n))
    return labels, n, powers, draw(st.integers(0, 2**40))


@settings(deadline=None, max_examples=60)
@given(SPECS, labelled())
def test_every_form_gives_every_sample_once_and_nobody_nothing(spec, case):
    labels, n, powers, seed = case
    ids = np.arange(len(labels)) // 3 if spec == "owners" else labels
    if (spec.startswith("labels") and int(spec[7:]) * n < 6) or len(np.unique(ids)) < n and spec in ("by:label", "owners"):
        with pytest.raises(UserError):
            partition.assign(spec, labels, n, seed, powers, ids)
        return
    parts = partition.assign(spec, labels, n, seed, powers, ids)
    assert len(parts) == n and sorted(np.concatenate(parts).tolist()) == list(range(len(labels)))
    assert all(part.dtype == np.int64 and len(part) and np.all(np.diff(part) > 0) for part in parts)
    again = partition.assign(spec, labels, n, seed, powers, ids)
    assert all(np.array_equal(a, b) for a, b in zip(parts, again))
    if spec == "iid":
        assert all(np.array_equal(a, b) for a, b in zip(parts, partition.divide(len(labels), n, seed, powers)))
    if spec in partition.EXACT:
        assert [len(part) for part in parts] == partition.sizes(len(labels), n, powers)
    if spec == "sorted":
        edges = [(labels[part].min(), labels[part].max()) for part in parts]
        assert all(before[1] <= after[0] for before, after in itertools.pairwise(edges))
    if spec in ("by:label", "owners"):
        holders = [{i for i, part in enumerate(parts) if owner in ids[part]} for owner in np.unique(ids)]
        assert all(len(vertices) == 1 for vertices in holders)
    if spec.startswith("labels"):
        held = [np.unique(labels[part]) for part in parts]
        assert all(len(classes) == int(spec[7:]) for classes in held)
        takers = np.bincount(np.concatenate(held), minlength=6)
        assert takers.max() - takers.min() <= 1 and takers.min() >= 1


@pytest.mark.parametrize(
    ("count", "n", "powers", "expected"),
    [
        (8124, 20, None, [406] * 19 + [410]),
        (8124, 20, [3.0] * 20, [406] * 19 + [410]),
        (10, 4, [], [2, 2, 2, 4]),
        (7, 1, None, [7]),
        (5, 5, None, [1] * 5),
        (10, 3, [1, 1, 2], [3, 2, 5]),
    ],
)
def test_contiguous_cuts_the_samples_in_their_order(count, n, powers, expected):
    labels = np.random.default_rng(1).integers(0, 3, count)
    parts = partition.assign("contiguous", labels, n, 1, powers)
    assert [len(part) for part in parts] == expected
    assert np.concatenate(parts).tolist() == list(range(count)) and all(part.dtype == np.int64 for part in parts)


def test_dirichlet_has_the_mean_and_the_variance_of_dirichlet():
    """q_i of Dir(a_1..a_n) has mean a_i/a and variance m(1-m)/(a+1), a their sum; 4 standard errors are allowed."""
    alpha, classes, each, powers = 0.5, 2000, 400, [1, 1, 2]
    labels = np.repeat(np.arange(classes), each)
    shares = partition.histogram(partition.assign(f"dirichlet:{alpha}", labels, 3, 1, powers), labels, classes) / each
    total = alpha * 3
    for share, mean in zip(shares, [0.25, 0.25, 0.5]):
        variance = mean * (1 - mean) / (total + 1)
        assert abs(share.mean() - mean) < 4 * np.sqrt(variance / classes)
        # The fourth central moment of a number in [0, 1] is at most its variance.
        assert abs(share.var() - variance) < 4 * np.sqrt(variance / classes)


def test_a_small_alpha_is_skewed_and_a_large_one_is_not():
    labels = np.repeat(np.arange(10), 600)
    skews = [
        partition.skew(partition.histogram(partition.assign(f"dirichlet:{alpha:g}", labels, 8, 3), labels, 10)).mean()
        for alpha in (1e-4, 0.1, 1, 100, 1e6)
    ]
    assert skews == sorted(skews, reverse=True) and skews[0] > 0.8 and skews[-1] < 0.01


def test_extreme_powers_leave_nobody_without():
    labels = np.arange(60) % 3
    for powers in ([1e308, 1e-300, 1], [1e-308, 1e-308, 1e-308]):
        for spec in ("dirichlet:0.0001", "dirichlet:1e6", "labels:2"):
            parts = partition.assign(spec, labels, 3, 1, powers)
            assert sorted(np.concatenate(parts)) == list(range(60)) and min(map(len, parts)) >= 1


def test_skew_by_hand():
    # The whole is (1/2, 1/2); (3/4, 1/4) is a quarter away from it, a pure vertex a half.
    assert partition.skew([[3, 1], [1, 3]]).tolist() == [0.25, 0.25]
    assert partition.skew([[4, 0], [0, 4]]).tolist() == [0.5, 0.5]
    assert partition.skew([[2, 4, 6], [1, 2, 3]]).tolist() == [0, 0]
    assert partition.histogram([[0, 2], [1]], np.array([1, 0, 1]), 3).tolist() == [[0, 2, 0], [1, 0, 0]]


def test_owners_go_to_the_vertex_with_the_fewest_samples_for_its_power():
    ids = np.array(["a"] * 6 + ["b"] * 4 + ["c"] * 3 + ["d"] * 1)
    parts = partition.assign("owners", np.zeros(14, int), 2, 1, None, ids)
    assert ["".join(sorted(set(ids[part]))) for part in parts] == ["ad", "bc"]
    parts = partition.assign("owners", np.zeros(14, int), 2, 1, [1, 10], ids)
    assert ["".join(sorted(set(ids[part]))) for part in parts] == ["b", "acd"]
    # As many owners as vertices: in their order, whatever the powers.
    parts = partition.assign("by:site", np.zeros(14, int), 4, 1, [1, 2, 3, 4], ids)
    assert ["".join(sorted(set(ids[part]))) for part in parts] == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("uniform", ["'uniform' is not known", "dirichlet:0.3", "labels:2"]),
        ("dirichlet", ["one word behind a colon", "for example dirichlet:0.3"]),
        ("idd", ["Did you mean 'iid'"]),
        ("iid:3", ["iid takes nothing behind it"]),
        ("dirichlet:0", ["alpha", "0.0001"]),
        ("dirichlet:-1", ["alpha"]),
        ("dirichlet:nan", ["alpha"]),
        ("dirichlet:x", ["alpha"]),
        ("labels:0", ["1 or more"]),
        ("labels:1.5", ["1 or more"]),
        ("by:", ["names no column"]),
        ("labels:4", ["3 classes", "labels:3 at most"]),
        ("labels:1", ["leave classes without", "labels:2 or more"]),
        ("labels:3", ["class 2 has 1 samples for 2 vertices"]),
        ("by:label", None),
    ],
)
def test_impossible_partitions_are_named(spec, words):
    labels = np.array([0, 0, 0, 1, 1, 1, 2])
    if words is None:
        with pytest.raises(UserError, match="3 owners for 4 vertices"):
            partition.assign(spec, labels, 4, 1, None, labels)
        return
    with pytest.raises(UserError) as error:
        partition.assign(spec, labels, 2, 1, None, labels)
    assert all(word in str(error.value) for word in words), error.value


@pytest.mark.parametrize("spec", ["iid", "sorted", "contiguous", "dirichlet:0.3", "labels:1", "by:label"])
def test_fewer_samples_than_vertices_are_named_by_every_form(spec):
    labels = np.arange(3)
    with pytest.raises(UserError, match="fewer samples than vertices: 3 samples for 4 vertices"):
        partition.assign(spec, labels, 4, 1, None, labels)
