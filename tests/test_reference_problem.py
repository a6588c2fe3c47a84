"""The logistic regression that papers on compression take: mushrooms, its division, its start, its regulariser, its numbers."""

import shutil

import numpy as np
import pytest
from test_data import job_data
from test_data_prep import run
from test_data_prep_sources import libsvm

from mpiconsensus.data.source import open_source

N = 20


def mushrooms(n=N, **changes):
    return open_source(job_data(**{"dataset": "mushrooms-all", "normalize": "none", "partition": "contiguous"} | changes), n, [], 1)


@pytest.fixture(scope="module")
def table():
    """The features (8124, 112) and classes (8124,) in the order of the file."""
    parts = [source.load(0) for source in (mushrooms(1, dataset="mushrooms"),)] + [mushrooms(1, dataset="mushrooms").load_test()]
    order = np.argsort(np.concatenate([part.id for part in parts]))
    return np.concatenate([part.x for part in parts])[order].astype(float), np.concatenate([part.y for part in parts])[order]


def test_all_mushrooms_train_in_the_order_of_the_file(table):
    source = mushrooms()
    shards = [source.load(vertex) for vertex in range(N)]
    assert source.sizes == [406] * 19 + [410] and source.shape == (112,)
    assert np.concatenate([shard.id for shard in shards]).tolist() == list(range(8124))
    assert np.array_equal(np.concatenate([shard.x for shard in shards]), table[0]) and shards[0].x.dtype == np.float32
    assert np.array_equal(np.concatenate([shard.y for shard in shards]), table[1])
    # UCI: 3916 poisonous, 4208 edible; 22 attributes, a feature a value; the attribute that has the same value everywhere has no feature.
    assert np.bincount(table[1]).tolist() == [3916, 4208] and source.class_names == ("poisonous", "edible")
    assert set(np.unique(table[0])) == {0, 1} and set(table[0].sum(axis=1)) == {21}
    assert source.mean.tolist() == [0] * 112 and source.std.tolist() == [1] * 112
    computed = mushrooms(normalize="computed")
    np.testing.assert_allclose(computed.mean, table[0].mean(axis=0), rtol=1e-6)
    # The fifth that tests is that of `mushrooms`.
    assert np.array_equal(source.load_test().id, mushrooms(dataset="mushrooms").load_test().id) and len(source.load_test().id) == 1625


def test_libsvm_makes_the_same_shards(tmp_path, table):
    lines = (f"{y + 1:.0f} " + " ".join(f"{j}:1" for j in np.flatnonzero(x) + 1) for x, y in zip(*table))
    (tmp_path / "mushrooms").write_text("\n".join(lines) + "\n")
    shutil.copy(tmp_path / "mushrooms", tmp_path / "mushrooms.t")
    words = ["--shards", N, "--partition", "contiguous", "--test", tmp_path / "mushrooms.t"]
    assert run(libsvm, tmp_path / "mushrooms", tmp_path / "out", *words).exit_code == 0
    made, embedded = mushrooms(shards=str(tmp_path / "out")), mushrooms()
    assert made.sizes == embedded.sizes and made.class_names == ("1", "2")
    for vertex in range(N):
        assert all(map(np.array_equal, made.load(vertex), embedded.load(vertex))), vertex
    assert len(made.load_test().y) == 8124
