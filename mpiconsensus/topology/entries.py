"""What a graph file says, edge by edge: entries (i, j, weight or None, where), `where` told in errors."""

import numpy as np

from mpiconsensus.errors import UserError
from mpiconsensus.topology.forms import MAX_EDGES
from mpiconsensus.topology.net import Net


def assemble(path, n, directed, entries):
    """Return the Net of `entries`, a list with i, j below n; an edge given twice is one."""
    known, weighted = {}, [entry for entry in entries if entry[2] is not None]
    if weighted and len(weighted) < len(entries):
        where = next(where for *_, weight, where in entries if weight is None)
        raise UserError(f"{where} has no weight, {weighted[0][3]} has one; give all edges a weight, or none.")
    if len(entries) > MAX_EDGES:
        raise UserError(f"graph file {path} has {len(entries)} edges; the most is {MAX_EDGES}.")
    for i, j, weight, where in entries:
        if i == j:
            raise UserError(f"{where}: an edge from vertex {i} to itself; take it out.")
        key = (i, j) if directed or i < j else (j, i)
        if known.setdefault(key, weight) != weight:
            raise UserError(f"{where}: the weight {weight!r} of an edge that has {known[key]!r} elsewhere in the file; give it once.")
    ordered = sorted(known)
    edges = np.array(ordered, dtype=np.int64).reshape(-1, 2)
    given = np.array([known[key] for key in ordered]) if weighted else None
    return Net(f"file:{path}", n, edges, directed, given)


def weight(value, where):
    """Return a weight as float, None for None; UserError unless it is a finite number."""
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = np.nan
    if isinstance(value, bool) or not np.isfinite(number):
        raise UserError(f"{where}: the weight {value!r} is not a finite number; write one, e.g. 0.25, or leave all weights out.")
    return number
