"""Sources and loader: a job's data over its vertices, and batches of a shard."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_data import FEATURES, IMAGES, job_data, same, write

from mpiconsensus.data import partition, source
from mpiconsensus.data.loader import Loader, split
from mpiconsensus.data.shards import Shard
from mpiconsensus.data.source import open_source, open_test
from mpiconsensus.errors import UserError


def test_a_source_of_shards_says_what_it_holds(tmp_path):
    facts = IMAGES._replace(published_mean=(0.1, 0.2, 0.3), published_std=(1.0, 2.0, 3.0))
    train, test = write(tmp_path / "set", facts)
    found = {
        key: open_source(job_data(shards=str(tmp_path / "set"), normalize=key), 3, [], 1)
        for key in ("published", "computed", "none")
    }
    one = found["published"]
    assert (one.name, one.shape, one.classes, one.class_names) == ("pictures", (3, 5, 4), 3, ("cat", "dog", "ship"))
    assert (one.sizes, one.scale, one.augment, one.licence, one.citation) == (
        [8, 8, 7],
        1 / 255,
        "crop-flip",
        "free",
        "nobody",
    )
    assert one.mean.dtype == one.std.dtype == np.float32
    assert one.mean.tolist() == np.float32([0.1, 0.2, 0.3]).tolist() and one.std.tolist() == [1, 2, 3]
    np.testing.assert_allclose(found["computed"].mean, (train.x / 255).mean(axis=(0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(found["computed"].std, (train.x / 255).std(axis=(0, 2, 3)), rtol=1e-6)
    assert found["none"].mean.tolist() == [0, 0, 0] and found["none"].std.tolist() == [1, 1, 1]
    assert same(one.load_test(), test)


def test_published_constants_give_way_to_computed_where_there_are_none(tmp_path):
    train, _ = write(tmp_path / "set", FEATURES)
    one = open_source(job_data(shards=str(tmp_path / "set")), 3, [], 1)
    np.testing.assert_allclose(one.mean, train.x.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(one.std, train.x.std(axis=0), rtol=1e-5)
    assert one.augment == "none"


def test_another_number_of_shards_than_vertices_is_named(tmp_path):
    write(tmp_path / "set")
    with pytest.raises(UserError) as error:
        open_source(job_data(shards=str(tmp_path / "set")), 5, [], 1)
    for words in ("3 shards", "5 vertices", "python data_prep/cifar10.py RAW OUT --shards 5", "topology.graph=ring:3"):
        assert words in str(error.value)


def test_shards_must_be_in_proportion_to_the_powers_asked_for(tmp_path):
    write(tmp_path / "set", n=3, powers=[1, 2, 1])
    data = job_data(shards=str(tmp_path / "set"))
    assert open_source(data, 3, [2, 4, 2], 1).sizes == open_source(data, 3, [], 1).sizes
    with pytest.raises(UserError, match=r"--shards 3 --powers 1,2,3`"):
        open_source(data, 3, [1, 2, 3], 1)


def test_the_test_samples_are_there_whatever_the_number_of_shards(tmp_path):
    _, test = write(tmp_path / "set", n=3, powers=[1, 2, 1])
    one, found = open_test(job_data(shards=str(tmp_path / "set")))
    assert one.name == "pictures" and same(found, test)
    one, found = open_test(job_data(dataset="mushrooms"))
    assert one.classes == 2 and found.x.shape == (1625, 112)


def test_the_key_augment_overrules_and_needs_images(tmp_path):
    assert open_source(job_data(augment="crop"), 2, [], 1).augment == "crop"
    assert open_source(job_data(), 2, [], 1).augment == "none"
    with pytest.raises(UserError, match="mushrooms has 112 features"):
        open_source(job_data(dataset="mushrooms", augment="flip"), 2, [], 1)
    with pytest.raises(UserError, match="Did you mean 'digits'"):
        open_source(job_data(dataset="digit"), 2, [], 1)


def whole(name):
    one = open_source(job_data(dataset=name), 1, [], 1)
    train, test = one.load(0), one.load_test()
    order = np.argsort(np.concatenate([train.id, test.id]))
    return one, train, Shard(*(np.concatenate([train[field], test[field]])[order] for field in range(3)))


def test_the_embedded_digits_are_the_digits():
    one, train, everything = whole("digits")
    assert everything.id.tolist() == list(range(1797)) and len(train.y) == 1437
    assert np.bincount(everything.y).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert everything.x.dtype == np.uint8 and everything.x.shape == (1797, 1, 8, 8) == (1797, *one.shape)
    assert everything.x.min() == 0 and everything.x.max() == 16 and one.scale == 1 / 16
    # The first image of the data set, a zero, as its table prints it.
    assert everything.y[0] == 0 and everything.x[0, 0, 0].tolist() == [0, 0, 5, 13, 9, 1, 0, 0]
    scaled = train.x.astype(np.float64) / 16
    np.testing.assert_allclose([one.mean[0], one.std[0]], [scaled.mean(), scaled.std()], rtol=1e-6)
    assert one.classes == 10 and "CC BY" in one.licence and "Alpaydin" in one.citation


def test_the_embedded_mushrooms_are_the_mushrooms():
    one, train, everything = whole("mushrooms")
    assert everything.id.tolist() == list(range(8124)) and len(train.y) == 6499
    counts = dict(zip(one.class_names, np.bincount(everything.y).tolist(), strict=True))
    assert counts == {"poisonous": 3916, "edible": 4208}
    assert everything.x.dtype == np.float32 and everything.x.shape == (8124, 112) == (8124, *one.shape)
    # 22 attributes, one of which is missing for some rows, each as indicators; 21 ones a row.
    assert set(np.unique(everything.x)) == {0, 1} and set(everything.x.sum(axis=1)) == {21}
    # The first row of the published file.
    ones = [6, 8, 15, 21, 29, 33, 34, 37, 42, 50, 53, 57, 67, 76, 78, 81, 84, 86, 93, 103, 111]
    assert (np.flatnonzero(everything.x[0]) + 1).tolist() == ones and everything.y[0] == 0
    np.testing.assert_allclose(one.mean, train.x.mean(axis=0, dtype=np.float64), rtol=1e-6)
    assert "CC BY" in one.licence and "Schlimmer" in one.citation and one.scale == 1


def test_the_embedded_files_are_small():
    assert sum(path.stat().st_size for path in (Path(source.__file__).parent / "embedded").glob("*.h5")) < 300_000


def test_embedded_data_are_divided_in_proportion():
    powers = [1, 2, 1, 4]
    one = open_source(job_data(), 4, powers, 7)
    loaded = [one.load(vertex) for vertex in range(4)]
    everything = open_source(job_data(), 1, [], 1).load(0)
    assert [len(shard.y) for shard in loaded] == one.sizes == partition.sizes(1437, 4, powers)
    ids = np.concatenate([shard.id for shard in loaded])
    assert sorted(ids) == everything.id.tolist()
    by_id = dict(zip(everything.id.tolist(), zip(everything.x, everything.y)))
    for shard in loaded:
        assert all(
            np.array_equal(by_id[i][0], x) and by_id[i][1] == y for x, y, i in zip(shard.x, shard.y, shard.id.tolist())
        )
    assert not np.array_equal(one.load(0).id, open_source(job_data(), 4, powers, 8).load(0).id)
    with pytest.raises(UserError, match="fewer samples than vertices"):
        open_source(job_data(), 1438, [], 1)


def test_sources_are_light():
    code = (
        "import sys, mpiconsensus.data.source, mpiconsensus.data.loader\n"
        "print({'torch', 'mpi4py', 'scipy', 'networkx'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def shard_of(count):
    return Shard(
        np.arange(count, dtype=np.uint8).reshape(-1, 1, 1, 1) * np.ones((1, 1, 2, 2), np.uint8),
        np.arange(count),
        np.arange(count),
    )


@given(st.integers(1, 40), st.integers(1, 50), st.integers(0, 2**40), st.integers(0, 100), st.integers(0, 5))
def test_a_pass_draws_no_sample_twice(count, batch_size, seed, vertex, number):
    loader = Loader(shard_of(count), batch_size, seed, vertex)
    assert loader.batch_size == min(batch_size, count) and loader.batches_per_pass == count // loader.batch_size
    drawn = []
    for k in range(loader.batches_per_pass):
        x, y = loader.batch(number * loader.batches_per_pass + k)
        assert x.shape == (loader.batch_size, 1, 2, 2) and x.dtype == np.uint8 and y.dtype == np.int64
        assert np.array_equal(x[:, 0, 1, 1], y)
        drawn += y.tolist()
    assert len(drawn) == len(set(drawn)) == count - count % loader.batch_size


@given(st.lists(st.integers(0, 60), min_size=1, max_size=30))
def test_a_batch_is_a_function_of_its_count(counts):
    shard = shard_of(23)
    straight = Loader(shard, 4, 9, 2)
    expected = [straight.batch(count)[1].copy() for count in range(61)]
    loader = Loader(shard, 4, 9, 2)
    for count in counts:
        assert loader.batch(count)[1].tolist() == expected[count].tolist()


def test_every_pass_and_vertex_and_seed_has_its_own_order():
    def order(seed, vertex, number):
        loader = Loader(shard_of(20), 19, seed, vertex)
        return tuple(loader.batch(number)[1].tolist())

    assert len({order(1, 0, 0), order(1, 0, 1), order(1, 1, 0), order(2, 0, 0)}) == 4
    # Those that a pass leaves out come in others.
    loader = Loader(shard_of(7), 4, 1, 0)
    assert {int(y) for count in range(20) for y in loader.batch(count)[1]} == set(range(7))


def test_a_batch_that_is_the_shard_is_in_its_order():
    loader = Loader(shard_of(7), 9, 1, 0)
    for count in (0, 5):
        assert loader.batch(count)[1].tolist() == list(range(7))
        ids, number = loader.shown()
        assert ids.tolist() == list(range(7)) and number == count


def test_a_batch_is_overwritten_by_the_next_and_the_shard_is_not():
    shard = shard_of(12)
    loader = Loader(shard, 3, 1, 0)
    x, y = loader.batch(0)
    again = loader.batch(1)
    assert again[0] is x and again[1] is y
    x[:] = 99
    assert same(shard, shard_of(12))


@given(st.integers(1, 60), st.floats(0, 0.9))
def test_a_held_out_part_and_the_rest_are_the_shard(count, fraction):
    shard = shard_of(count)
    train, held = split(shard, fraction, 3, 1)
    assert sorted([*train.id, *held.id]) == list(range(count)) and len(train.y) >= 1
    expected = 0 if fraction == 0 or count == 1 else max(1, round(fraction * count))
    assert len(held.y) == min(expected, count - 1)
    for part in (train, held):
        assert np.array_equal(part.x[:, 0, 0, 0], part.y) and np.array_equal(part.y, part.id)
        assert np.all(np.diff(part.id) > 0)
    assert same(split(shard, fraction, 3, 1)[1], held)


def test_held_out_parts_are_random_and_cost_nothing_where_nothing_is_held_out():
    shard = shard_of(40)
    held = [tuple(split(shard, 0.5, seed, vertex)[1].id.tolist()) for seed, vertex in [(1, 0), (1, 1), (2, 0)]]
    assert len(set(held)) == 3
    assert split(shard, 0.0, 1, 0)[0] is shard
