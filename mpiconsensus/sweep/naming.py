"""The name of a run of a sweep: `tau=4-seed=2`, from the keys that vary and their values alone.

It depends neither on the other runs nor on the order of the file, so that a run keeps its directory when values are added.
"""

import functools
import hashlib
import re

from mpiconsensus import config

LONGEST_VALUE, LONGEST = 32, 120  # characters; file systems take names of 255
LAST = "training.seed"  # repeats stand side by side
# The word of a key, where several tables have it: the first in config.KEYS is called by it, but for these.
CALLED = {"training.seed": "seed"}
PLAIN = re.compile(r"[A-Za-z0-9._+:,-]+")


def name(values, label=""):
    """Return the name of the run with `values`, {key: value} of the keys that vary; `label` stands in front."""
    keys = sorted(values, key=lambda key: (key == LAST, key))
    text = "-".join([label] * bool(label) + [f"{word(key)}={value_text(values[key])}" for key in keys])
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 9]}-{_hash(text)}"


@functools.cache
def word(key):
    """Return what a key is called in names: tau for algorithm.tau, model for model.name, topology.seed where that is not alone."""
    table, _, last = key.partition(".")
    if last == "name":
        return table
    if key in CALLED:
        return CALLED[key]
    first = next(k.name for k in config.KEYS if k.name.partition(".")[2] == last)
    return last if first == key and last not in CALLED.values() else key


def value_text(value):
    """Return a value as part of a file's name; what would be unsafe or long ends with eight digits of its hash."""
    if isinstance(value, list):
        text = "_".join(map(_scalar, value)) + "_" * (len(value) < 2)  # [4] is not 4
    else:
        text = _scalar(value)
    if text and PLAIN.fullmatch(text) and len(text) <= LONGEST_VALUE:
        return text.translate(str.maketrans(":,", "-_"))
    readable = re.sub(r"[^A-Za-z0-9._+-]+", "-", text)[-(LONGEST_VALUE - 9) :].strip("-.")
    return f"{readable}-{_hash(config.toml_value(value))}".lstrip("-")


def _scalar(value):
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)


def _hash(text):
    return hashlib.sha256(text.encode()).hexdigest()[:8]
