"""Augmentation and normalisation against a loop over samples in numpy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mpiconsensus.data.augment import Augment
from mpiconsensus.errors import UserError
from mpiconsensus.randomness import generator

MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])


def reference(x, kind, mean, std, scale, draws):
    """Crop, flip and normalise sample by sample, float64; the numbers in the documented order."""
    batch, _, height, width = x.shape
    top = left = np.full(batch, 4)
    flip = np.zeros(batch)
    if "crop" in kind:
        top, left = draws.integers(0, 9, (2, batch))
    if "flip" in kind:
        flip = draws.integers(0, 2, batch)
    out = []
    for image, down, right, mirrored in zip(x, top, left, flip):
        canvas = np.zeros((len(image), height + 8, width + 8))
        canvas[:, 4 : 4 + height, 4 : 4 + width] = image
        cut = canvas[:, down : down + height, right : right + width]
        out.append(cut[:, :, ::-1] if mirrored else cut)
    column = (-1, 1, 1)
    return (np.stack(out) * scale - mean.astype(np.float64).reshape(column)) / std.astype(np.float64).reshape(column)


def images(batch, channels=3, height=8, width=6, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (batch, channels, height, width), dtype=np.uint8)


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(["none", "crop", "flip", "crop-flip"]),
    st.integers(1, 9),
    st.sampled_from([1, 3]),
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.sampled_from([torch.contiguous_format, torch.channels_last]),
    st.integers(0, 1000),
)
def test_a_training_batch_is_the_loop_over_samples(kind, batch, channels, size, layout, count):
    x = images(batch, channels, *size, seed=count)
    mean, std = MEAN[:channels], STD[:channels]
    made = Augment(kind, mean, std, 1 / 255, torch.float64, layout, seed=11).train(x, 5, count)
    expected = reference(x, kind, mean, std, 1 / 255, generator(11, "augment", 5, count))
    assert made.dtype == torch.float64 and made.is_contiguous(memory_format=layout)
    # Two roundings of numbers below 5 each way.
    np.testing.assert_allclose(made.numpy(), expected, rtol=0, atol=8 * 5 * np.finfo(np.float64).eps)


@pytest.mark.parametrize(
    "device", ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]
)
def test_float32_batches_of_changing_size(device):
    augment = Augment("crop-flip", MEAN, STD, 1 / 255, torch.float32, torch.channels_last, 3, device)
    for count, batch in enumerate([4, 4, 2, 7, 4]):
        x = images(batch, seed=count)
        made = augment.train(x, 1, count)
        assert made.dtype == torch.float32 and made.device.type == device
        expected = reference(x, "crop-flip", MEAN, STD, 1 / 255, generator(3, "augment", 1, count))
        np.testing.assert_allclose(made.cpu().numpy(), expected, rtol=0, atol=8 * 5 * np.finfo(np.float32).eps)


def test_every_vertex_count_and_seed_draws_its_own_numbers():
    x = images(32)

    def made(seed, vertex, count):
        return Augment("crop-flip", MEAN, STD, 1 / 255, torch.float32, seed=seed).train(x, vertex, count)

    first = made(1, 0, 0)
    assert torch.equal(first, made(1, 0, 0))
    assert not any(torch.equal(first, other) for other in (made(2, 0, 0), made(1, 1, 0), made(1, 0, 1)))


def test_all_offsets_and_both_sides_occur():
    x = np.zeros((2000, 1, 9, 9), np.uint8)
    x[:, 0, 4, 4] = 255
    x[:, 0, 4, 3] = 51
    made = Augment("crop-flip", [0.0], [1.0], 1 / 255, torch.float64, seed=1).train(x, 0, 0)
    pixels = made[:, 0].numpy()
    sample, rows, columns = np.nonzero(pixels == 1)
    assert sample.tolist() == list(range(2000)) and set(rows) == set(columns) == set(range(9))
    inner = (columns > 0) & (columns < 8)
    dim = [np.isclose(pixels[sample, rows, (columns + side) % 9], 0.2)[inner] for side in (-1, 1)]
    # Half of about 1,556: seven standard deviations are 0.09.
    assert np.all(dim[0] != dim[1]) and 0.41 < dim[0].mean() < 0.59


def test_an_evaluation_batch_is_normalised_alone():
    x = images(5)
    for kind in ("none", "crop-flip"):
        augment = Augment(kind, MEAN, STD, 1 / 255, torch.float64, torch.channels_last)
        expected = (x / 255 - MEAN.astype(np.float64).reshape(-1, 1, 1)) / STD.astype(np.float64).reshape(-1, 1, 1)
        np.testing.assert_allclose(augment.evaluate(x).numpy(), expected, rtol=0, atol=8 * 5 * np.finfo(np.float64).eps)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_features_are_normalised_and_left_alone(dtype):
    x = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    mean, std = np.float32([0, 1, 2, 3]), np.float32([1, 2, 4, 0.5])
    before = x.copy()
    augment = Augment("none", mean, std, 1.0, dtype)
    for made in (augment.train(x, 0, 0), augment.evaluate(x)):
        assert made.dtype == dtype
        np.testing.assert_allclose(
            made.numpy(), (x.astype(np.float64) - mean) / std, rtol=0, atol=64 * torch.finfo(dtype).eps
        )
        made.fill_(7)
    assert np.array_equal(x, before)


def test_a_batch_outlives_the_next():
    augment = Augment("crop-flip", MEAN, STD, 1 / 255, torch.float32, seed=2)
    first = augment.train(images(4), 0, 0)
    kept = first.clone()
    augment.train(images(4, seed=1), 0, 1)
    assert torch.equal(first, kept)


def test_an_unknown_kind_is_named():
    with pytest.raises(UserError, match="crop-flip"):
        Augment("crop-flop", MEAN, STD, 1 / 255, torch.float32)
