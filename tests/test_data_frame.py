"""The file that HDF5 lays out once for many shards, and the sha256 of samples."""

import hashlib
import io

import h5py
import numpy as np
import pytest
from test_data import FEATURES, IMAGES, recipe, write

from mpiconsensus.data.frame import Frame, _Extents
from mpiconsensus.data.shardfile import sha256
from mpiconsensus.data.shards import Shard, open_shards

WIDE = FEATURES._replace(shape=(10_000,))


def test_the_sha256_of_samples_is_that_of_their_bytes_in_a_row():
    x = np.frombuffer(b"1234xxxx", np.uint8).reshape(2, 1, 2, 2).transpose(1, 0, 2, 3)[:, :1].reshape(1, 1, 2, 2)
    strided = np.stack([np.frombuffer(b"1234", np.uint8), np.zeros(4, np.uint8)], axis=1)[:, 0].reshape(1, 1, 2, 2)
    rest = np.frombuffer(b"56789", np.uint8), np.empty(0, np.int64)
    assert not strided.flags.c_contiguous
    assert sha256(Shard(x, *rest)) == sha256(Shard(strided, *rest)) == hashlib.sha256(b"123456789").hexdigest()


def made(frame, vertex, facts, count, digest):
    """Return the bytes of the file of `vertex`, with x of zeros."""
    y, ids = np.full(count, vertex), np.arange(count) + 7 * vertex
    mean, std = np.full(facts.shape[0], 0.25 + vertex), np.full(facts.shape[0], 2.0 + vertex)
    return frame.head + bytes(frame.bytes_of_x) + frame.tail(vertex, digest, y, ids, mean, std)


def test_what_is_written_last_lies_above():
    memory = _Extents()
    for at, content in ((2, b"aaaa"), (4, b"bbbb"), (2, b"cccc"), (9, b"d")):
        memory.seek(at)
        memory.write(content)
    assert memory.bytes(0, memory.size) == b"\0\0ccccbb\0d"


@pytest.mark.parametrize("facts", [IMAGES, FEATURES, WIDE], ids=["images", "features", "wide"])
def test_a_file_is_the_same_whatever_was_laid_out_before_it(facts):
    many, alone = Frame(5, "train", 9, facts, recipe()), Frame(5, "train", 9, facts, recipe())
    files = {vertex: made(many, vertex, facts, 5, f"{vertex:064x}") for vertex in (0, 8, 3, 8, 3)}
    again = made(alone, 3, facts, 5, f"{3:064x}")
    assert len(again) == many.size == alone.size and files[3] == again
    many.close()
    alone.close()
    # Once closed, HDF5 has nothing more to say than what was taken while the file was open.
    assert alone._memory.bytes(0, len(alone.head)) == alone.head and alone._memory.size == alone.size
    for vertex, content in files.items():
        with h5py.File(io.BytesIO(content), "r") as file:
            assert file.attrs["vertex"] == vertex and file.attrs["sha256"] == b"%064x" % vertex and file.attrs["of"] == 9
            assert np.all(file.attrs["mean"] == 0.25 + vertex) and np.all(file.attrs["std"] == 2 + vertex)
            assert np.all(file["y"][()] == vertex) and np.array_equal(file["id"][()], np.arange(5) + 7 * vertex)
            assert file["x"].shape == (5, *facts.shape) and not file["x"][()].any()


def test_shards_of_unequal_sizes_have_frames_of_their_own(tmp_path):
    train, _ = write(tmp_path / "set", IMAGES, count=10, n=3)
    found = open_shards(tmp_path / "set")
    assert len(set(found.sizes)) == 2
    for vertex in range(3):
        shard = found.load(vertex)
        assert np.array_equal(train.x[np.searchsorted(train.id, shard.id)], shard.x) and found.is_whole(vertex)


def test_no_bit_of_a_file_may_change(tmp_path):
    write(tmp_path / "set", FEATURES, n=2)
    path, found, random = tmp_path / "set" / "shard-0001.h5", open_shards(tmp_path / "set"), np.random.default_rng(0)
    content = path.read_bytes()
    assert found.is_whole(1)
    for place in range(0, len(content), 11):
        changed = bytearray(content)
        changed[place] ^= 1 << int(random.integers(8))
        path.write_bytes(changed)
        assert not found.is_whole(1), place
    for length in (0, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        assert not found.is_whole(1), length
    path.write_bytes(content + b"\0")
    assert not found.is_whole(1)
