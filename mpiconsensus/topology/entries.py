"""What a graph file says, edge by edge: entries (i, j, weight or None, line), line None where a file has no lines."""

import numpy as np

from mpiconsensus.errors import UserError
from mpiconsensus.topology.forms import MAX_EDGES
from mpiconsensus.topology.net import Net


def assemble(path, n, directed, entries):
    """Return the Net of `entries`, a list with i, j below n; an edge given twice is one.

    UserError names the entry that is a loop, has no weight where others have one, or another weight than before.
    """
    if len(entries) > MAX_EDGES:
        raise UserError(f"graph file {path} has {len(entries)} edges; the most is {MAX_EDGES}.")
    weighted = next((entry for entry in entries if entry[2] is not None), None)
    known = {}
    for entry in entries:
        i, j, weight, _ = entry
        if i == j:
            raise UserError(f"{place(path, entry)}: an edge from vertex {i} to itself; take it out.")
        if weight is None and weighted:
            raise UserError(f"{place(path, entry)} has no weight, {place(path, weighted)} has one; give all edges a weight, or none.")
        key = (i, j) if directed or i < j else (j, i)
        if known.setdefault(key, weight) != weight:
            raise UserError(f"{place(path, entry)}: the weight {weight!r} of an edge that has {known[key]!r} elsewhere in the file; give it once.")
    ordered = sorted(known)
    edges = np.array(ordered, dtype=np.int64).reshape(-1, 2)
    given = np.array([known[key] for key in ordered]) if weighted else None
    return Net(f"file:{path}", n, edges, directed, given)


def place(path, entry):
    """Return where an entry stands, for an error."""
    i, j, _, line = entry
    return f"{path}, line {line}" if line else f"{path}: the edge {i}-{j}"


def weight_of(value):
    """Return a weight as float, None for None; UserError unless it is a finite number."""
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = np.nan
    if isinstance(value, bool) or not np.isfinite(number):
        raise UserError(f"the weight {value!r} is not a finite number; write one, e.g. 0.25, or leave all weights out.")
    return number
