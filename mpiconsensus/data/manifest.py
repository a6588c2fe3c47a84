"""What a data set is (Facts) and the manifest of a directory of shards: its fields, and their checks."""

import json
import math
from pathlib import Path
from typing import NamedTuple

from mpiconsensus.errors import UserError

FORMAT = "mpiconsensus shard"
VERSION = 3
READ = (1, 2, 3)  # versions that are read; 2: every byte is hashed once; 3: text of fixed length


def recorded(version):
    """Return the names under which `files` has the sha256 of a file: of its samples, and of the rest, in version 1 of all."""
    return "samples_sha256", "sha256" if version == 1 else "frame_sha256"


class Facts(NamedTuple):
    """What holds for a whole data set; mean and std per channel or feature, in units of x * scale."""

    dataset: str
    shape: tuple  # of a sample: (C, H, W) or (p,)
    class_names: tuple
    scale: float  # what a stored value is multiplied by: 1/255 for images of 8 bits, 1 for features
    augment: str  # what data.augment = "auto" means
    licence: str
    citation: str
    prepared_by: str  # the script to type, for example data_prep/cifar10.py; "" where there is none
    published_mean: tuple | None = None
    published_std: tuple | None = None
    mean: tuple = ()
    std: tuple = ()

    @property
    def classes(self):
        return len(self.class_names)

    def to_json(self):
        """Return a dictionary for a manifest."""
        lists = {name: [float(v) for v in getattr(self, name)] for name in _MOMENTS if getattr(self, name) is not None}
        plain = {"shape": list(self.shape), "class_names": list(self.class_names), "classes": self.classes}
        return self._asdict() | plain | lists

    @classmethod
    def from_json(cls, manifest):
        """Return the Facts of a checked manifest."""
        values = {name: manifest[name] for name in cls._fields}
        return cls(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()})


_MOMENTS = ("mean", "std", "published_mean", "published_std")
_TYPES = {
    "dataset": str, "shape": list, "class_names": list, "classes": int, "scale": float, "augment": str,
    "licence": str, "citation": str, "prepared_by": str, "mean": list, "std": list,
    "published_mean": (list, type(None)), "published_std": (list, type(None)), "shards": int, "sizes": list,
    "test_size": int, "partition": str, "seed": int, "powers": (list, type(None)), "sources": dict,
    "options": dict, "files": dict,
}  # fmt: skip


def as_recorded(recipe, facts, n):
    """Return what the manifest says of how a set was made."""
    # Through JSON, so that what is compared later is what is written.
    return json.loads(json.dumps({"dataset": facts.dataset, "shards": n, **recipe}))


def file_name(vertex, n):
    """Return the file name of the shard of `vertex` of n; -1 is the test set."""
    digits = max(4, len(str(n - 1)))
    return "test.h5" if vertex < 0 else f"shard-{vertex:0{digits}d}.h5"


def read_manifest(directory):
    """Return the checked manifest of `directory`; raise UserError where it is missing or wrong."""
    directory = Path(directory)
    path = directory / "manifest.json"
    try:
        if not directory.is_dir():
            raise UserError(
                f"{directory}: no such directory of shards; make one with data_prep/, "
                f"for example `python data_prep/cifar10.py RAW {directory} --shards 4`."
            )
        manifest = json.loads(path.read_text(encoding="utf-8"))
        json.dumps(manifest, ensure_ascii=False).encode()  # halves of characters can be written nowhere
    except FileNotFoundError:
        raise UserError(
            f"{directory} holds no manifest.json, so it is not a complete set of shards; make it again with data_prep/."
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); make the shards again with data_prep/.") from None
    check_manifest(path, manifest)
    return manifest


def check_manifest(path, manifest):
    """Raise UserError that names `path` unless `manifest` is a manifest of shards of this version."""
    problem = _problem(manifest)
    if problem:
        raise UserError(f"{path}: {problem}; make the shards again with data_prep/.")


def _problem(m):
    """Return what is wrong with the manifest `m`, or ""."""
    if not isinstance(m, dict) or m.get("format") != FORMAT:
        return f"not a manifest of shards (format is not {FORMAT!r})"
    if m.get("version") not in READ:
        return f"version {m.get('version')} of the shard format, this program reads versions {READ[0]} to {READ[-1]}"
    for name, kind in _TYPES.items():
        if name not in m:
            return f"{name} is missing"
        if not isinstance(m[name], kind) or isinstance(m[name], bool):
            return f"{name} = {str(m[name])[:60]} is of the wrong type"
    shape, n = m["shape"], m["shards"]
    if len(shape) not in (1, 3) or not all(_positive(size) for size in shape):
        return f"shape {shape} is neither [C, H, W] nor [p]"
    if n < 1 or len(m["sizes"]) != n or not all(_positive(size) for size in [*m["sizes"], m["test_size"]]):
        return f"sizes and test_size are not {n} + 1 positive numbers"
    if len(m["class_names"]) != m["classes"] or not all(isinstance(name, str) for name in m["class_names"]):
        return f"class_names are not {m['classes']} names"
    for name in _MOMENTS:
        values = m[name]
        if values is not None and (len(values) != shape[0] or not all(_number(v) for v in values)):
            return f"{name} is not {shape[0]} finite numbers"
        if values is not None and name.endswith("std") and min(values) <= 0:
            return f"{name} holds a deviation that is not positive"
    if m["powers"] is not None and (len(m["powers"]) != n or not all(_number(power) and power > 0 for power in m["powers"])):
        return f"powers are not {n} positive numbers"
    skew = m.get("skew", [0.0] * n)
    if not (isinstance(skew, list) and len(skew) == n and all(map(_number, skew))):
        return f"skew is not {n} finite numbers"
    if (m["published_mean"] is None) != (m["published_std"] is None):
        return "one of published_mean and published_std is missing"
    if not (_number(m["scale"]) and m["scale"] > 0):
        return f"scale = {m['scale']} is not positive"
    for name in [file_name(vertex, n) for vertex in [*range(n), -1]]:
        digests = m["files"].get(name)
        if not isinstance(digests, dict) or not set(recorded(m["version"])) <= set(digests):
            return f"the sha256 of {name} are missing"
    # Sets made before labels were counted have none.
    labels = m.get("labels", [[size] + [0] * (m["classes"] - 1) for size in m["sizes"]])
    if not (
        isinstance(labels, list)
        and [sum(row) for row in labels if _counts(row, m["classes"])] == m["sizes"]
    ):
        return f"labels are not {n} rows of {m['classes']} counts that sum to sizes"
    return ""


def _counts(row, classes):
    return isinstance(row, list) and len(row) == classes and all(type(c) is int and c >= 0 for c in row)


def _positive(value):
    return type(value) is int and value > 0


def _number(value):
    return type(value) in (int, float) and math.isfinite(value)
