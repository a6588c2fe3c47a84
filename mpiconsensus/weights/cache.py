"""Answers kept on disk by what was asked, so that no programme is solved twice.

A file is arrays alone, written aside and renamed. What is read back is a proposal: whoever reads it checks it.
"""

import hashlib
import os
import tempfile
from pathlib import Path

import numpy as np

VERSION = 2  # of the solver: another one asks anew


def key(n, edges, method):
    """Return the name of the answer for (n, edges, method), a hexadecimal sha256."""
    content = hashlib.sha256(f"{VERSION} {method} {n} ".encode())
    content.update(np.ascontiguousarray(edges, dtype="<i8").tobytes())
    return content.hexdigest()


def folder():
    """Return $MPICONSENSUS_CACHE, else mpiconsensus in $XDG_CACHE_HOME or ~/.cache."""
    if own := os.environ.get("MPICONSENSUS_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "mpiconsensus"


def load(name):
    """Return the arrays of an answer as a dict, or None where there is none that can be read."""
    try:
        with np.load(folder() / f"{name}.npz", allow_pickle=False) as file:
            return {word: file[word] for word in file.files}
    except Exception:  # noqa: BLE001 - a damaged archive raises whatever zip, zlib and numpy's header parser raise
        return None


def store(name, **arrays):
    """Keep the arrays; a directory that cannot be written keeps nothing."""
    aside = None
    try:
        folder().mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder(), suffix=".tmp", delete=False) as file:
            aside = file.name
            np.savez(file, **arrays)
        os.replace(aside, folder() / f"{name}.npz")
    except OSError:
        if aside:
            Path(aside).unlink(missing_ok=True)
