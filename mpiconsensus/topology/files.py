"""Graphs from files, by suffix: edge list, GraphML, JSON node-link, adjacency or weight matrix.

A file holds weights for all its edges or for none. What it says is not checked for connectedness here.
"""

import re
from pathlib import Path

from mpiconsensus.errors import UserError
from mpiconsensus.topology import markup, matrixfiles
from mpiconsensus.topology.entries import assemble, weight
from mpiconsensus.topology.forms import MAX_VERTICES

# Suffix -> what is read there, and the largest file in MB. Text takes some ten times its size in memory.
FORMATS = {
    ".graphml": ("GraphML; ids are the numbers 0 to n-1, an edge's data `weight` its weight", 64),
    ".json": ("node-link JSON as networkx writes it; ids are the numbers 0 to n-1, an edge's `weight` its weight", 64),
    ".npy": ("numpy matrix, row = receiver: entry [i, j] is an arc from j to i, an edge where the matrix is symmetric", 1000),
    ".csv": ("the same matrix as text, a row a line, commas between", 512),
    "any other": ("edge list: `i j` or `i j weight` a line, # begins a comment", 512),
}


def read(path):
    """Return the Net of a graph file, `given` weights where it has them; a local operation.

    UserError names file, line or entry where it is no graph on the vertices 0..n-1.
    """
    suffix = Path(path).suffix.lower()
    data = _bytes(path, FORMATS.get(suffix, FORMATS["any other"])[1])
    if suffix in MATRICES:
        return matrixfiles.net(path, MATRICES[suffix](path, data))
    if suffix in markup.READERS:
        n, directed, entries = markup.READERS[suffix](path, data)
    else:
        n, directed, entries = _edge_list(path, data)
    return assemble(path, n, directed, entries)


MATRICES = {".npy": matrixfiles.read_npy, ".csv": matrixfiles.read_csv}


def _bytes(path, megabytes):
    try:
        file = Path(path)
        if (size := file.stat().st_size) > megabytes * 10**6:
            raise UserError(f"graph file {path} has {size / 1e6:.0f} MB; the most is {megabytes} MB: write it as an edge list or as .npy.")
        return file.read_bytes()
    except (OSError, ValueError) as error:
        raise UserError(f"graph file {path} cannot be read: {error}.") from None


def _edge_list(path, data):
    """Return (n, directed, entries) of lines `i j` or `i j weight`; the comments before the first say what kind of graph."""
    try:
        lines = data.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"graph file {path} cannot be read as text: {error}; a matrix ends in .npy, other formats in .graphml, .json.") from None
    n, directed, entries = None, False, []
    for number, line in enumerate(lines, 1):
        words, _, comment = line.partition("#")
        where = f"{path}, line {number}: {line.strip()[:80]!r}"
        if words.strip():
            entries.append(_edge(words.split(), where))
        elif header := re.fullmatch(r"(directed|vertices\s+([0-9]{1,12}))", comment.strip().lower()):
            if entries:
                raise UserError(f"{where} stands below an edge; move the line to the top of the file.")
            directed, n = (True, n) if header[1] == "directed" else (directed, int(header[2]))
    if not entries and not n:
        raise UserError(f"graph file {path} holds no edge; write two vertex numbers a line, for example '0 1'.")
    return _size(path, n, entries), directed, entries


def _size(path, n, entries):
    """Return the number of vertices: as the file says, else the largest and 1, each of which must occur."""
    if n is None:
        occurring = {vertex for entry in entries for vertex in entry[:2]}
        n = max(occurring) + 1
        if len(occurring) != n:
            # Counted, not listed: a digit too many would make the list as long.
            missing = next(v for v in range(n) if v not in occurring)
            raise UserError(
                f"graph file {path}: vertices must be 0 to n-1; the largest is {n - 1}, but only {len(occurring)} occur, "
                f"vertex {missing} does not; a line '# vertices {n}' at the top allows for that."
            )
    if not 1 <= n <= MAX_VERTICES:
        raise UserError(f"graph file {path} has {n} vertices; the most is {MAX_VERTICES}.")
    for i, j, _, where in entries:
        if max(i, j) >= n:
            raise UserError(f"{where}: vertex {max(i, j)} of a graph on {n} vertices, 0 to {n - 1}; correct one of the two.")
    return n


def _edge(words, where):
    if len(words) not in (2, 3):
        raise UserError(f"{where}: {len(words)} columns; write two vertex numbers separated by a space, e.g. '0 1', and a weight if you like.")
    for word in words[:2]:
        if not re.fullmatch("[0-9]{1,12}", word):
            raise UserError(f"{where}: {word!r} is not a vertex; vertices are the whole numbers from 0.")
    return int(words[0]), int(words[1]), weight(words[2] if len(words) == 3 else None, f"{where}, third column"), where
