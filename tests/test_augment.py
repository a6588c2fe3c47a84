"""Augmentation and normalisation against a loop over samples in numpy."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mpiconsensus import config
from mpiconsensus.data.augment import KINDS, Augment, sides
from mpiconsensus.data.loader import Loader
from mpiconsensus.data.shards import Shard
from mpiconsensus.errors import UserError
from mpiconsensus.randomness import generator

MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])


def mirrored_by_id(seed, ids, number):
    """Return which samples pass `number` mirrors with flipalt, in whole numbers of any length."""
    key = int(generator(seed, "sides").integers(0, 2**64, dtype=np.uint64))
    found = []
    for z in ids:
        z = (int(z) + key) % 2**64
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
        found.append(((z ^ z >> 31) + number) % 2 == 0)
    return np.array(found)


def reference(x, kind, mean, std, scale, draws, mirrored=None):
    """Crop, flip, normalise and cut out sample by sample, float64; the numbers in the documented order."""
    batch, _, height, width = x.shape
    top = left = np.full(batch, 4)
    flip = np.zeros(batch) if mirrored is None else mirrored
    rows = columns = np.full(batch, -(10**6))
    words = kind.split("-")
    if "crop" in words:
        top, left = draws.integers(0, 9, (2, batch))
    if "flip" in words:
        flip = draws.integers(0, 2, batch)
    if "cutout" in words:
        rows, columns = draws.integers(0, height, batch), draws.integers(0, width, batch)
    out, column = [], (-1, 1, 1)
    for image, down, right, mirror, row, col in zip(x, top, left, flip, rows, columns):
        canvas = np.zeros((len(image), height + 8, width + 8))
        canvas[:, 4 : 4 + height, 4 : 4 + width] = image
        cut = canvas[:, down : down + height, right : right + width]
        cut = (cut[:, :, ::-1] if mirror else cut) * scale - mean.astype(np.float64).reshape(column)
        tall, wide = max(1, height // 4), max(1, width // 4)
        cut[:, max(0, row - tall) : max(0, row + tall), max(0, col - wide) : max(0, col + wide)] = 0
        out.append(cut / std.astype(np.float64).reshape(column))
    return np.stack(out)


def shown_by(count, batch):
    """Return a stand-in for the loader that drew a batch: ids, and the pass count % 3."""
    return SimpleNamespace(shown=lambda: (np.random.default_rng(count).integers(0, 2**62, batch), count % 3))


def images(batch, channels=3, height=8, width=6, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (batch, channels, height, width), dtype=np.uint8)


@settings(deadline=None, max_examples=100)
@given(
    st.sampled_from(KINDS),
    st.integers(1, 9),
    st.sampled_from([1, 3]),
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.sampled_from([torch.contiguous_format, torch.channels_last]),
    st.integers(0, 1000),
)
def test_a_training_batch_is_the_loop_over_samples(kind, batch, channels, size, layout, count):
    x = images(batch, channels, *size, seed=count)
    mean, std = MEAN[:channels], STD[:channels]
    loader = shown_by(count, batch + 2)
    made = Augment(kind, mean, std, 1 / 255, torch.float64, layout, seed=11).train(x, 5, count, loader)
    mirrored = mirrored_by_id(11, loader.shown()[0], count % 3) if "flipalt" in kind else None
    expected = reference(x, kind, mean, std, 1 / 255, generator(11, "augment", 5, count), mirrored)
    assert made.dtype == torch.float64 and made.is_contiguous(memory_format=layout)
    # Two roundings of numbers below 5 each way.
    np.testing.assert_allclose(made.numpy(), expected, rtol=0, atol=8 * 5 * np.finfo(np.float64).eps)


@pytest.mark.parametrize(
    "device", ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]
)
def test_float32_batches_of_changing_size(device):
    augment = Augment("crop-flip", MEAN, STD, 1 / 255, torch.float32, torch.channels_last, 3, device)
    cutout = Augment("crop-flip-cutout", MEAN, STD, 1 / 255, torch.float32, torch.channels_last, 3, device)
    for count, batch in enumerate([4, 4, 2, 7, 4]):
        x = images(batch, seed=count)
        made = augment.train(x, 1, count)
        assert made.dtype == torch.float32 and made.device.type == device
        expected = reference(x, "crop-flip", MEAN, STD, 1 / 255, generator(3, "augment", 1, count))
        assert torch.equal((cutout.train(x, 1, count) == made) | (cutout.train(x, 1, count) == 0), torch.ones_like(made).bool())
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


def test_the_kinds_are_every_combination_and_those_of_the_job_key():
    combined = {"-".join(filter(None, (a, b, c))) or "none" for a in ("", "crop") for b in ("", "flip", "flipalt") for c in ("", "cutout")}
    assert set(KINDS) == combined and len(KINDS) == 12
    assert set(config.find("data.augment").choices) == combined | {"auto"}
    for wrong in ("cutout-crop", "flip-flipalt", "crop-"):
        with pytest.raises(UserError, match="choose one of none, crop, flip, flipalt, cutout"):
            Augment(wrong, MEAN, STD, 1 / 255, torch.float32)


def test_flipalt_shows_every_image_from_one_side_and_then_from_the_other():
    shard = Shard(images(64, 1), np.zeros(64, np.int64), np.arange(64) * 7)
    loader = Loader(shard, 8, 1, 0)
    augment = Augment("flipalt", [0.0], [1.0], 1.0, torch.float64, seed=5)
    by_id = dict(zip(shard.id.tolist(), shard.x))
    seen = []
    for number in range(3):
        found = {}
        for count in range(number * 8, number * 8 + 8):
            x, _ = loader.batch(count)
            made = augment.train(x, 0, count, loader)
            for name, image in zip(loader.shown()[0].tolist(), made.numpy()):
                original = by_id[name].astype(np.float64)
                assert np.array_equal(image, original) != np.array_equal(image, original[:, :, ::-1])
                found[name] = np.array_equal(image, original)
        seen.append([found[name] for name in by_id])
    assert seen[0] == seen[2] == [not side for side in seen[1]]
    # Fair coins: 5 standard deviations of 10,000 are 250.
    many = sides(1, np.arange(10_000), 0)
    assert abs(many.sum() - 5000) < 250 and abs((many == sides(2, np.arange(10_000), 0)).sum() - 5000) < 250


def test_cutout_covers_every_pixel_at_times_and_at_most_a_quarter_of_an_image():
    x = np.full((4000, 1, 32, 32), 255, np.uint8)
    gone = (Augment("cutout", [0.0], [1.0], 1 / 255, torch.float32, seed=1).train(x, 0, 0) == 0)[:, 0]
    assert gone.flatten(1).sum(1).max() == 16 * 16 and gone.flatten(1).sum(1).min() == 8 * 8
    # A pixel in the middle lies in 16 x 16 of 32 x 32 squares, the corner pixels in 8 x 8 and 9 x 9: 5 standard deviations.
    for pixel, squares in (((16, 16), 256), ((0, 0), 81), ((31, 31), 64)):
        share = squares / 1024
        assert abs(gone[:, pixel[0], pixel[1]].float().mean() - share) < 5 * np.sqrt(share * (1 - share) / 4000)
