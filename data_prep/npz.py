"""Divide the arrays of an .npz file into HDF5 shards."""

import zipfile
import zlib
from pathlib import Path

import click
import common
import numpy as np

from mpiconsensus.data.manifest import Facts
from mpiconsensus.data.shards import Stream
from mpiconsensus.data.writer import file_sha256
from mpiconsensus.errors import UserError

NAMES = {"x": ("x", "x_train"), "y": ("y", "y_train"), "x test": ("x_test",), "y test": ("y_test",)}
BLOCK = 1 << 24  # bytes read at a time
CHANNELS = 4  # at most, where an axis is taken for the channels: gray, with alpha, RGB, RGBA
CLASSES = 10**6  # at most: every shard counts the samples of each
DAMAGE = (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError)


@click.command()
@common.arguments
@click.option("--classes", type=click.IntRange(2, CLASSES), help="Number of classes, where some have no sample; else the largest label + 1.")
@click.option(
    "--test-fraction",
    type=common.Share(),
    help="Share drawn as test samples where the file has no x_test and y_test; 0.2 where it is not given.",
)
@common.reports_errors
def main(raw, plan, classes, test_fraction):
    """Divide the arrays x and y of RAW.npz into HDF5 shards at OUT.

    x (or x_train) holds uint8 images (N, H, W), (N, C, H, W) or (N, H, W, C), or numbers (N, p); y (or y_train) whole
    numbers from 0; x_test and y_test the test samples, else a part is drawn. x is never in memory as a whole. Pickled
    arrays are refused. Columns: label, and every other array of shape (N,).
    """
    file = Arrays(raw)
    facts = Facts(raw.stem, (), (), 1.0, "none", "that of the source", "that of the source", "data_prep/npz.py")
    options = {"classes": classes, "test_fraction": test_fraction}
    common.prepare(plan, {raw.name: file_sha256(raw)}, facts, lambda: read(file, facts, classes, test_fraction, plan.seed), **options)


def read(file, facts, classes, fraction, seed):
    """Return the Found of an Arrays."""
    x, y = file.name_of("x"), file.labels(file.name_of("y"))
    shape, kind = file.sample_shape(x)
    tested = [file.name_of(name, required=False) for name in ("x test", "y test")]
    if any(tested) and fraction is not None:
        raise UserError(f"{file.path} has test samples of its own; leave --test-fraction out.")
    if any(tested) and not all(tested):
        raise UserError(f"{file.path} holds one of x_test and y_test; give both, or none.")
    file.same_length(x, len(y))
    labels = np.concatenate([y, file.labels(tested[1])]) if all(tested) else y
    given = classes
    classes = classes or max(2, int(y.max()) + 1)
    if labels.max() >= classes:
        raise UserError(
            f"{file.path} holds label {labels.max()}, labels are 0 to {classes - 1}; "
            f"{'give a larger --classes' if given else 'a test label has no training sample'}, or mend the labels."
        )
    missing = np.flatnonzero(np.bincount(y, minlength=classes) == 0)
    if len(missing) and not given:
        raise UserError(
            f"{file.path}: class {missing[0]} is empty, labels go up to {y.max()}; number the classes without gaps, or say --classes {classes}."
        )
    scale = 1.0 if len(shape) == 1 else 1 / 255
    facts = facts._replace(shape=shape, class_names=tuple(str(label) for label in range(classes)), scale=scale)
    columns = {name: file.load(name) for name, (lengths, _) in file.arrays.items() if lengths == y.shape and name not in (x, *NAMES["y"])}
    if all(tested):
        if file.sample_shape(tested[0]) != (shape, kind):
            raise UserError(f"{file.path}: {tested[0]} has samples {file.sample_shape(tested[0])[0]}, {x} {shape}; they must be alike.")
        test_y = labels[len(y) :]
        file.same_length(tested[0], len(test_y))
        return common.Found(Stream(y, lambda: file.blocks(x)), Stream(test_y, lambda: file.blocks(tested[0])), facts, columns)
    kept, held = common.split_off(len(y), 0.2 if fraction is None else fraction, seed)
    parts = [Stream(y[rows], lambda rows=rows: file.blocks(x, rows)) for rows in (kept, held)]
    return common.Found(*parts, facts, {name: values[kept] for name, values in columns.items()})


class Arrays:
    """The arrays of an .npz file; large ones are read in blocks. `arrays`: name -> (shape, dtype)."""

    def __init__(self, path):
        self.path, self.arrays = Path(path), {}
        with self._told(), open(self.path, "rb") as file:
            common.check_head(self.path, file.read(512))
        with self._told(), zipfile.ZipFile(self.path) as archive:
            for name in archive.namelist():
                if name.endswith(".npy"):
                    with archive.open(name) as member:
                        shape, fortran, dtype = _header(member)
                    if dtype.hasobject:
                        raise UserError(f"{self.path}: {name} is pickled, reading it could run code; save numbers or text with numpy.savez.")
                    if fortran and len(shape) > 1:
                        raise UserError(f"{self.path}: {name} is in Fortran order; save numpy.ascontiguousarray of it.")
                    self.arrays[name.removesuffix(".npy")] = shape, dtype

    def _told(self):
        return _Told(self.path)

    def name_of(self, what, required=True):
        """Return the name of the array for `what`; raise UserError, or return None, where there is none."""
        for name in NAMES[what]:
            if name in self.arrays:
                return name
        if required:
            raise UserError(f"{self.path} holds {', '.join(self.arrays) or 'no array'}; it needs {' or '.join(NAMES[what])}.")
        return None

    def load(self, name):
        """Return a small array as a whole."""
        with self._told(), np.load(self.path, allow_pickle=False) as file:
            return file[name]

    def labels(self, name):
        """Return labels int64 (N,); raise UserError unless they are whole numbers from 0."""
        y = self.load(name)
        if y.ndim != 1 or len(y) == 0 or y.dtype.kind not in "iub":
            raise UserError(f"{self.path}: {name} is {y.dtype} {y.shape}, expected whole numbers (N,); save y.astype('int64').")
        if y.min() < 0:
            raise UserError(f"{self.path}: {name} holds label {y.min()} at sample {int(np.argmin(y))}; labels are 0, 1, ...")
        if y.max() >= CLASSES:
            raise UserError(
                f"{self.path}: {name} holds label {y.max()} at sample {int(np.argmax(y))}, labels are 0 to {CLASSES - 1} at most; "
                f"number the classes 0, 1, ..., as numpy.unique(y, return_inverse=True)[1] does."
            )
        return y.astype(np.int64)

    def same_length(self, name, count):
        if self.arrays[name][0][0] != count:
            raise UserError(f"{self.path}: {name} holds {self.arrays[name][0][0]} samples, its labels are {count}; give one label a sample.")

    def sample_shape(self, name):
        """Return the shape of a sample as shards hold it, and how it lies in the file: gray, first, last or features."""
        shape, dtype = self.arrays[name]
        if len(shape) == 2 and min(shape) > 0 and dtype.kind in "iubf":
            return shape[1:], "features"
        if len(shape) in (3, 4) and min(shape) > 0 and dtype == np.uint8:
            if len(shape) == 3:
                return (1, *shape[1:]), "gray"
            if shape[3] <= CHANNELS < shape[1]:
                return (shape[3], *shape[1:3]), "last"
            return shape[1:], "first"
        raise UserError(
            f"{self.path}: {name} is {dtype} {shape}; expected numbers (N, p) or uint8 images (N, H, W), (N, C, H, W) or (N, H, W, C)."
        )

    def blocks(self, name, rows=None):
        """Yield blocks of the array, of all samples or of the ascending `rows`, uint8 images or float32 features."""
        shape, dtype = self.arrays[name]
        kind = self.sample_shape(name)[1]
        size = int(np.prod(shape[1:])) * dtype.itemsize
        with self._told(), zipfile.ZipFile(self.path) as archive, archive.open(f"{name}.npy") as member:
            _header(member)
            for start in range(0, shape[0], max(1, BLOCK // size)):
                count = min(max(1, BLOCK // size), shape[0] - start)
                content = member.read(count * size)
                if len(content) != count * size:
                    raise EOFError(f"{name} ends behind sample {start + len(content) // size}")
                block = np.frombuffer(content, dtype).reshape(count, *shape[1:])
                numbers = np.arange(start, start + count)
                if rows is not None:
                    low, high = np.searchsorted(rows, [start, start + count])
                    numbers = rows[low:high]
                    block = block[numbers - start]
                yield self._as_stored(block, kind, name, numbers)

    def _as_stored(self, block, kind, name, numbers):
        if kind == "features":
            with np.errstate(over="ignore"):
                values = block.astype(np.float32)
            if not np.isfinite(values).all():
                number = numbers[np.argmin(np.isfinite(values).all(axis=1))]
                raise UserError(f"{self.path}: {name} of sample {number} holds NaN or a number beyond float32; mend it, or leave the sample out.")
            return values
        return {"gray": lambda: block[:, None], "first": lambda: block, "last": lambda: block.transpose(0, 3, 1, 2)}[kind]()


class _Told:
    """Turn what a damaged file raises into a UserError that names it."""

    def __init__(self, path):
        self.path = path

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if isinstance(error, FileNotFoundError):
            raise UserError(f"{self.path} is missing; RAW is an .npz file of numpy.savez.") from None
        if isinstance(error, DAMAGE):
            raise UserError(f"{self.path} is not a complete .npz file ({error}); copy or save it again.") from None


def _header(member):
    """Return (shape, fortran order, dtype) and leave `member` at the first byte of the array."""
    version = np.lib.format.read_magic(member)
    reader = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if reader is None:
        raise ValueError(f"version {version} of the .npy format")
    return reader(member)


if __name__ == "__main__":
    main()
