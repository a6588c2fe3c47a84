"""Adjacency and weight matrices from .npy and .csv: A[i, j], row = receiver."""

import io
import warnings

import numpy as np

from mpiconsensus.errors import UserError
from mpiconsensus.topology.forms import DENSE_VERTICES, MAX_EDGES
from mpiconsensus.topology.net import Net

SHAPE = "a graph's matrix is square, a row and a column a vertex"


def read_npy(path, data):
    """Return the array of an .npy file, never unpickling."""
    try:
        made = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    except Exception as error:  # noqa: BLE001 - whatever numpy raises over a foreign header
        told = " ".join(str(error).split())[:200]
        raise UserError(f"graph file {path} is not a numpy array of numbers ({told}); write it with numpy.save.") from None
    if made.dtype.kind not in "biuf":
        raise UserError(f"graph file {path} holds {made.dtype}; a graph's matrix holds real numbers.")
    return made


def read_csv(path, data):
    """Return the array of rows of numbers, commas between; # begins a comment."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"graph file {path} cannot be read as text: {error}.") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an empty file; told below
            return np.loadtxt(io.StringIO(text), delimiter=",", ndmin=2)
    except ValueError as error:
        raise _wrong_line(path, text, error) from None


def _wrong_line(path, text, error):
    """Return the UserError of the first line of a .csv that is no row as long as the first."""
    columns = None
    for number, line in enumerate(text.split("\n"), 1):
        words = line.partition("#")[0].strip().split(",")
        if words == [""]:
            continue
        for word in words:
            try:
                float(word)
            except ValueError:
                return UserError(f"{path}, line {number}: {word.strip()[:80]!r} is not a number; write a row of numbers a line, commas between.")
        columns = columns or len(words)
        if len(words) != columns:
            return UserError(f"{path}, line {number}: {len(words)} columns, the lines above have {columns}; {SHAPE}.")
    return UserError(f"graph file {path}: {error}; write a row of numbers a line, commas between.")


def net(path, A):
    """Return the Net of the matrix A: an arc j -> i where A[i, j] is not 0, edges where A is symmetric to 1e-12.

    Entries other than 0 and 1 anywhere make it a matrix of weights.
    """
    if A.ndim != 2 or A.shape[0] != A.shape[1] or not A.size:
        raise UserError(f"graph file {path} holds an array of shape {A.shape}; {SHAPE}.")
    n = len(A)
    if n > DENSE_VERTICES:
        raise UserError(f"graph file {path} has {n} vertices; a matrix has at most {DENSE_VERTICES}: write the graph as an edge list.")
    if A.dtype.kind == "f" and not np.isfinite(A).all():
        i, j = np.argwhere(~np.isfinite(A))[0]
        raise UserError(f"graph file {path}: the entry [{i}, {j}] is {A[i, j]}; every entry must be a finite number.")
    there = A != 0
    np.fill_diagonal(there, False)
    # A matrix that was computed is symmetric but for its last bits.
    directed = not (np.array_equal(there, there.T) and np.allclose(A, A.T, rtol=0, atol=1e-12))
    receiver, sender = np.nonzero(there if directed else np.triu(there))
    if len(receiver) > MAX_EDGES:
        raise UserError(f"graph file {path} has {len(receiver)} edges; the most is {MAX_EDGES}.")
    edges = np.stack([sender, receiver] if directed else [receiver, sender], axis=1).astype(np.int64)
    order = np.lexsort(edges.T[::-1])
    weighted = not ((A == 0) | (A == 1)).all()
    given = A[receiver, sender].astype(np.float64)[order] if weighted else None
    return Net(f"file:{path}", n, edges[order], directed, given, A.diagonal().astype(np.float64) if weighted else None)
