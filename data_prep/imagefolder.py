"""Divide a tree of class folders of images into HDF5 shards."""

import hashlib
import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
import common
import numpy as np
from PIL import Image

from mpiconsensus.data.manifest import Facts
from mpiconsensus.data.shards import Stream
from mpiconsensus.errors import UserError
from mpiconsensus.limits import usable_cores

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff"}
TRAIN, TEST = ("train",), ("val", "valid", "validation", "test")
ANNOTATIONS = "val_annotations.txt"  # Tiny ImageNet: file name, class, box
BLOCK = 256  # images
LARGEST = 1 << 26  # pixels of an image whose shorter side has been resized


@click.command()
@common.arguments
@click.option("--size", type=click.IntRange(min=4, max=1024), default=64, show_default=True, help="Height and width of a stored image.")
@click.option(
    "--test-fraction",
    type=common.Share(),
    help="Share drawn as test samples where RAW has no val/; 0.2 where it is not given.",
)
@click.option("--workers", type=click.IntRange(min=1), help="Threads that decode; default: the cores of this process.")
@common.reports_errors
def main(raw, plan, size, test_fraction, workers):
    """Divide the images of RAW into HDF5 shards at OUT; a class is a folder.

    RAW holds a folder a class, at any depth below it images; or train/ and val/ (valid/, test/) of that kind, such as
    ImageNet; Tiny ImageNet's val_annotations.txt is understood. The shorter side is resized to --size, the centre cut
    out, in RGB. The names and sizes of the files stand for their bytes when a second run compares.
    """
    train, test = trees(raw)
    if test and test_fraction is not None:
        raise UserError(f"{raw} has test images of its own; leave --test-fraction out.")
    facts = Facts(
        raw.resolve().name, (3, size, size), tuple(sorted(train)), 1 / 255, "crop-flip", "that of the source", "that of the source",
        "data_prep/imagefolder.py",
    )  # fmt: skip
    train, test = (listed(raw, files, facts) for files in (train, test))
    source = hashlib.sha256(repr([(str(p.relative_to(raw)), p.stat().st_size) for p, _ in train + test]).encode()).hexdigest()
    options = {"size": size} | ({} if test else {"test_fraction": test_fraction or 0.2})

    def read():
        first, second = train, test
        if not second:
            kept, held = common.split_off(len(train), test_fraction or 0.2, plan.seed)
            first, second = ([train[row] for row in rows] for rows in (kept, held))
        return common.Found(*(stream(files, size, workers or usable_cores()) for files in (first, second)), facts)

    common.prepare(plan, {f"{len(train) + len(test)} images of {raw.resolve().name}": source}, facts, read, **options)


def trees(raw):
    """Return ({class: image paths}, the same of the test images or {}) of RAW."""
    if not raw.is_dir():
        common.read_raw(raw)
        raise UserError(f"{raw} is not a folder; RAW is an unpacked tree of class folders.")
    train = next((raw / name for name in TRAIN if (raw / name).is_dir()), raw)
    test = next((raw / name for name in TEST if train != raw and (raw / name).is_dir()), None)
    found = _classes(train)
    if len(found) < 2:
        raise UserError(f"{train} holds {len(found)} class folders; two or more are needed, each with its images.")
    if test is None:
        return found, {}
    if (test / ANNOTATIONS).is_file():
        return found, _annotated(test)
    tested = _classes(test)
    if not tested:
        raise UserError(f"{test} holds no class folders; sort its images into some, named as in {train}, or move it away to have test images drawn.")
    return found, tested


def _classes(folder):
    found = {path.name: _images(path) for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(".")}
    for name, files in found.items():
        if not files:
            raise UserError(f"{folder / name} holds no image, so the class is empty; fill the folder, or remove it.")
    return found


def _images(folder):
    def refuse(error):
        raise error

    # Unlike rglob, which passes over a folder that it may not read.
    files = (Path(parent, name) for parent, _, names in os.walk(folder, onerror=refuse) for name in names)
    found = sorted(path for path in files if path.suffix.lower() in SUFFIXES)
    for path in found:
        if not path.exists():
            raise UserError(f"{path} links to {os.readlink(path)}, which is not there; put it there, or remove the link.")
    return found


def _annotated(folder):
    found = {}
    for number, line in enumerate((folder / ANNOTATIONS).read_text(errors="replace").splitlines(), start=1):
        words = line.split("\t")
        path = folder / "images" / words[0]
        if len(words) < 2 or not path.is_file():
            raise UserError(f"{folder / ANNOTATIONS}, line {number}: {line[:60]!r} names no file of images/ and its class; unpack it again.")
        found.setdefault(words[1], []).append(path)
    return found


def listed(raw, found, facts):
    """Return [(path, class number)] in the order of the classes."""
    for name in found:
        if name not in facts.class_names:
            raise UserError(f"{raw}: test images of class {name!r}, which has no training folder; remove them, or add it.")
    return [(path, label) for label, name in enumerate(facts.class_names) for path in found.get(name, [])]


def stream(files, size, workers):
    """Return the Stream of listed files."""
    return Stream(np.array([label for _, label in files], np.int64), lambda: blocks([path for path, _ in files], size, workers))


def blocks(paths, size, workers):
    """Yield uint8 (b, 3, size, size), decoded by `workers` threads, in order; two blocks are under way."""
    pool = ThreadPoolExecutor(workers)
    under_way = deque()
    try:
        for start in range(0, len(paths), BLOCK):
            under_way.append([pool.submit(decode, path, size) for path in paths[start : start + BLOCK]])
            if len(under_way) > 1:
                yield np.stack([future.result() for future in under_way.popleft()])
        for futures in under_way:
            yield np.stack([future.result() for future in futures])
    finally:
        pool.shutdown(cancel_futures=True)


def decode(path, size):
    """Return the image as uint8 (3, size, size): shorter side resized (bilinear, antialiased), centre cut out, RGB."""
    try:
        with Image.open(path) as image:
            # A decoder of JPEG may reduce by 2, 4 or 8 while it decodes.
            image.draft("RGB", (size, size))
            scale = size / min(image.size)
            width, height = (max(size, round(side * scale)) for side in image.size)
            if width * height > LARGEST:
                raise ValueError(f"{image.width} x {image.height} pixels, of which a square is cut out, become {width} x {height}")
            image = _as_rgb(image)
            if image.size != (width, height):
                image = image.resize((width, height), Image.Resampling.BILINEAR)
            left, top = (width - size) // 2, (height - size) // 2
            return np.asarray(image.crop((left, top, left + size, top + size))).transpose(2, 0, 1)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        common.read_raw(path)
        raise UserError(f"{path} is not a complete image that can be used ({error}); copy it again, or remove it.") from None


def _as_rgb(image):
    """Return an image in RGB, of 8 bits; raise ValueError where its numbers have no range that is known."""
    if image.mode.startswith("I;16"):
        # Converted by Pillow, all that is above 255 would be white.
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError(f"mode {image.mode}, numbers of 32 bits, whose black and white are not known: save it with 8 bits a channel")
    return image.convert("RGB")


if __name__ == "__main__":
    main()
