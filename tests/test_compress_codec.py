"""Codecs of rows: what lies between the tensors is neither counted nor sent, sections compress by themselves."""

import numpy as np
import pytest
import torch

from mpiconsensus import compress
from mpiconsensus.block import Layout
from mpiconsensus.compress.codec import Codec
from mpiconsensus.errors import UserError

SPECS = ["identity", "top-k:0.2", "top-k:7+natural", "rand-k:0.2", "rand-k:5+natural", "rand-k-unbiased:9", "svd:2", "power-step:1",
         "subspace:1", "natural", "power-of-two", "terngrad", "sign", "bf16", "qsgd:4"]  # fmt: skip
SCOPES = ["vector", "tensor", "bucket:10", "bucket:1000"]


def random(seed=0):
    return np.random.default_rng(seed)


def layout(dtype=torch.float32, last=False):
    """Return the layout of a small network: 2 x 3 x 2 x 2, 2, 5 x 7, 5 elements, each behind padding."""
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 2), torch.nn.Flatten(), torch.nn.Linear(7, 5)).to(dtype)
    return Layout(model.to(memory_format=torch.channels_last) if last else model)


def tensors(of, seed=1):
    """Return a row with NaN as padding, and what its tensors hold one after the other."""
    row = np.full(of.p, np.nan, str(of.dtype).removeprefix("torch."))
    parts = []
    for entry in of.parameters:
        parts.append(random(seed + len(parts)).standard_normal(entry.shape.numel()).astype(row.dtype))
        row[entry.offset : entry.offset + len(parts[-1])] = parts[-1]
    return row, parts


def through(codec, x, seed=3):
    out = np.full(codec.count, 7, codec.dtype)
    codec.decode(codec.encode(x, random(seed)), out, random(seed))
    return out


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_are_gathered_and_scattered_without_their_padding(dtype):
    of = layout(dtype)
    row, parts = tensors(of)
    codec = Codec("top-k:0.1", of)
    assert codec.count == of.count == 66 < of.p
    assert codec.dtype == row.dtype
    for given in (row, torch.from_numpy(row)):
        np.testing.assert_array_equal(codec.gather(given), np.concatenate(parts))
    out = np.empty(66, row.dtype)
    assert codec.gather(row, out) is out
    there = np.full_like(row, -1)
    codec.scatter(out, torch.from_numpy(there))
    np.testing.assert_array_equal(there, np.where(np.isnan(row), -1, row))


def test_a_row_of_one_tensor_is_not_copied():
    of = Layout(torch.nn.Linear(16, 8, bias=False))
    row = np.arange(of.p, dtype=np.float32)
    assert np.shares_memory(Codec("sign", of).gather(torch.from_numpy(row)), row)
    of = Layout(torch.nn.Sequential(torch.nn.Linear(16, 8, bias=False), torch.nn.Linear(8, 2)))  # 128, 16 and 2: no padding between
    assert np.shares_memory(Codec("sign", of).gather(row), row)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("spec", ["top-k:0.3", "svd:1", "sign", "power-of-two"])
def test_a_section_is_compressed_as_if_alone(spec, last):
    of = layout(last=last)
    _, parts = tensors(of)
    expected = []
    for part, entry in zip(parts, of.parameters):
        alone = compress.make("identity" if spec == "svd:1" and len(entry.shape) == 1 else spec, len(part), shape=entry.shape)
        expected.append(alone(part))
    np.testing.assert_array_equal(through(Codec(spec, of, "tensor"), np.concatenate(parts)), np.concatenate(expected))
    x = np.concatenate(parts)
    pieces = [x[i : i + 20] for i in range(0, 66, 20)]
    np.testing.assert_array_equal(
        through(Codec(spec, of, "bucket:20"), x), np.concatenate([compress.make(spec, len(piece))(piece) for piece in pieces])
    )
    np.testing.assert_array_equal(through(Codec(spec, of), x), compress.make(spec, 66)(x))


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("spec", SPECS)
def test_messages_are_as_long_as_told_and_another_codec_reads_them(spec, scope):
    of = layout()
    one, other = Codec(spec, of, scope), Codec(spec, of, scope)
    for seed in range(5):
        x = random(seed).standard_normal(66).astype(np.float32)
        x = np.where(random(seed + 9).random(66) < 0.3, 0, x).astype(np.float32)
        message = one.encode(x, random(seed))
        assert message.dtype == np.uint8 and len(message) <= one.longest
        assert len(message) == one.longest or not one.fixed
        out = np.full(66, 7, np.float32)
        other.decode(message, out, random(seed))
        assert np.isfinite(out).all()
        if one.summable:
            np.testing.assert_array_equal(one.payload(message).view(np.uint8), message)
    if spec == "identity":
        np.testing.assert_array_equal(out, x)
        assert (one.bits, one.constant, one.alpha, one.scale) == (66 * 32, 1, 1, 1)


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("spec", ["rand-k:0.3", "rand-k-unbiased:2", "subspace:1", "identity"])
def test_the_mean_of_payloads_is_the_mean_of_the_decoded(spec, scope):
    of = layout(torch.float64)
    codec = Codec(spec, of, scope)
    assert codec.shared and codec.summable and not Codec("rand-k:5+natural", of, scope).summable
    xs = random(2).standard_normal((4, 66))
    messages = [codec.encode(x, random(5)) for x in xs]
    decoded = np.empty((4, 66))
    for message, out in zip(messages, decoded):
        codec.decode(message, out, random(5))
    mean = np.mean([codec.payload(message) for message in messages], axis=0)
    out = np.full(66, 7.0)
    codec.decode(mean.view(np.uint8), out, random(5))
    np.testing.assert_allclose(out, decoded.mean(0), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("spec", ["rand-k:0.3", "rand-k:4+natural", "rand-k:4+power-of-two"])
def test_a_shared_support_is_the_same_to_sender_and_receiver(spec, scope):
    x = random(1).standard_normal(66)
    out = through(Codec(spec, layout(torch.float64), scope), x)
    kept = out != 0
    assert 0 < kept.sum() < 66
    ratio = out[kept] / x[kept]  # of a power of two next to it, natural's times 8 / 9
    assert ((ratio > 0.4) & (ratio < 2)).all() and ("+" in spec or (ratio == 1).all())


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("spec", ["top-k:0.2", "rand-k:0.3", "rand-k:4+natural", "top-k:4+natural", "svd:1", "sign"])
def test_what_is_added_is_what_is_decoded(spec, scope):
    x, out, other = random(1).standard_normal((3, 66))
    codec = Codec(spec, layout(torch.float64), scope)
    decoded = through(codec, x)
    expected = out + decoded, other - 2 * decoded
    codec.add_to(codec.encode(x, random(3)), [(out, 1.0), (other, -2.0)], random(3))
    np.testing.assert_array_equal(out, expected[0])
    np.testing.assert_array_equal(other, expected[1])


def test_constants_are_those_of_the_worst_section():
    of = layout()
    top = Codec("top-k:2", of, "tensor")  # 24, 2, 35 and 5 elements, at most 2 of each
    assert (top.unbiased, top.alpha, top.constant, top.scale) == (False, 2 / 35, 2 / 35, 1)
    drawn = Codec("rand-k-unbiased:2", of, "bucket:20")  # 20, 20, 20 and 6
    assert (drawn.unbiased, drawn.constant, drawn.alpha, drawn.scale) == (True, 10, 0.1, 0.1)
    assert drawn.bits == 4 * 2 * 32
    low = Codec("svd:1", of, "tensor")  # 2 x 12, 2, 5 x 7, 5: 14 and 12 numbers of the matrices, 7 of the others
    assert low.alpha == 1 / 5 and low.bits == 32 * (14 + 2 + 12 + 5)
    assert Codec("power-step:1", of, "tensor").alpha is None
    assert Codec("svd:2", of, "tensor").bits == 32 * (24 + 2 + 24 + 5)  # 2 (2 + 12) numbers of 24: as they are


def test_what_a_vertex_keeps_is_saved_and_taken_over():
    of = layout(torch.float64)
    a, b = Codec("power-step:1", of, "tensor"), Codec("power-step:1", of, "tensor")
    assert a.state_dict() == {}
    x, y = random(1).standard_normal((2, 66))
    through(a, x)
    state = a.state_dict()
    assert {key: value.shape for key, value in state.items()} == {"0.q": (12, 1), "2.q": (7, 1)}
    b.load_state_dict(state)
    a.encode(y, random(4))
    np.testing.assert_array_equal(a.encode(x, random(5)), [b.encode(y, random(4)), b.encode(x, random(5))][1])
    a.load_state_dict({})
    assert a.state_dict() == {}


@pytest.mark.parametrize("scope", ["tensors", "bucket", "bucket:0", "bucket:-3", "bucket:2.5", "vector:4", ""])
def test_a_wrong_scope_is_named(scope):
    with pytest.raises(UserError, match=r"vector, tensor, bucket:N") as told:
        Codec("sign", layout(), scope)
    assert repr(scope) in str(told.value)


def test_half_precision_and_too_large_k_are_refused():
    with pytest.raises(UserError, match=r"float32 and float64.*training\.precision"):
        Codec("sign", layout(torch.bfloat16))
    with pytest.raises(UserError, match="67 of 66"):
        Codec("top-k:67", layout())
