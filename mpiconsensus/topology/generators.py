"""Graphs that a formula gives, as arrays: (n, edges) from the numbers of a spec.

numpy alone: `ring:36` needs no networkx, and a million vertices take no list of Python pairs.
"""

import math

import numpy as np

from mpiconsensus.errors import UserError
from mpiconsensus.topology.forms import VERTICES, require_edges


def simple(n, i, j, directed=False):
    """Return the edges (m, 2) int64 in lexicographic order, without loops, each once; undirected: i < j."""
    i, j = np.ravel(i).astype(np.int64), np.ravel(j).astype(np.int64)
    if not directed:
        i, j = np.minimum(i, j), np.maximum(i, j)
    codes = np.sort((i * n + j)[i != j])
    codes = codes[np.diff(codes, prepend=-1) > 0]
    return np.stack(np.divmod(codes, n), axis=1)


def shifts(n, lengths, directed=False):
    """Return the edges from i to i + d mod n for each length d."""
    vertex = np.arange(n)[:, None]
    return simple(n, np.broadcast_to(vertex, (n, len(lengths))), (vertex + np.array(lengths, dtype=np.int64)) % n, directed)


def powers(n):
    """Return 1, 2, 4, ... below n: ceil(log2 n) of them."""
    return [1 << j for j in range((n - 1).bit_length())]


def _lattice(sides, periodic):
    cells = np.arange(math.prod(sides)).reshape(sides)
    ends = []
    for axis, side in enumerate(sides):
        here = cells if periodic else cells.take(np.arange(side - 1), axis)
        there = np.roll(cells, -1, axis) if periodic else cells.take(np.arange(1, side), axis)
        ends.append((here.ravel(), there.ravel()))
    return cells.size, simple(cells.size, *map(np.concatenate, zip(*ends)))


def _complete(spec, numbers):
    n = numbers[0]
    require_edges(spec, n * (n - 1) / 2)
    return n, np.argwhere(np.triu(np.ones((n, n), dtype=bool), 1))


def _star(spec, numbers):
    leaves = np.arange(1, numbers[0])
    return numbers[0], simple(numbers[0], np.zeros_like(leaves), leaves)


def _path(spec, numbers):
    vertices = np.arange(numbers[0])
    return numbers[0], simple(numbers[0], vertices[:-1], vertices[1:])


def _hypercube(spec, numbers):
    n = 2 ** numbers[0]
    vertex, bit = np.arange(n)[:, None], 1 << np.arange(numbers[0])
    return n, simple(n, np.broadcast_to(vertex, (n, numbers[0])), vertex ^ bit)


def _tree(spec, numbers):
    branching, height = numbers
    if not branching and height:
        raise UserError(f"graph {spec!r}: a branching of 0 has no height; write tree:2,4.")
    n = VERTICES["tree"](numbers)
    children = np.arange(1, n)
    return n, simple(n, (children - 1) // max(branching, 1), children)


def _circulant(spec, numbers):
    n, *chords = numbers
    if n < 4:
        raise UserError(f"graph {spec!r}: a chord needs at least 4 vertices; write ring:{n}.")
    for chord in chords:
        if not 2 <= chord <= n // 2:
            raise UserError(f"graph {spec!r}: a chord of length {chord}; on {n} vertices lengths are 2 to {n // 2}.")
    require_edges(spec, n * (1 + len(chords)))
    return n, shifts(n, [1, *chords])


def _chords(spec, numbers):
    n, count = numbers
    most = max(0, n // 2 - 1)
    if count > most:
        raise UserError(f"graph {spec!r}: {count} chords from each vertex; on {n} vertices there are 0 to {most} lengths.")
    if count * n * n > 4 * 10**9:
        raise UserError(f"graph {spec!r}: choosing {count} lengths takes too long; give them yourself, e.g. circulant:{n},{math.isqrt(n)}.")
    require_edges(spec, n * (1 + count))
    return n, shifts(n, [1, *chord_lengths(n, count)])


def chord_lengths(n, count):
    """Return `count` lengths of chords in a cycle of n, each in turn the best for the algebraic connectivity.

    The Laplacian of a circulant graph with lengths D (each below n/2) has the eigenvalues sum_{d in D} 2 - 2 cos(2 pi f d / n),
    f = 0..n-1 (Davis, "Circulant matrices", 1979, section 3.2); the smallest over f > 0 is made as large as one further
    length can. Chords of length n/2 count once a vertex, half as much. The shortest of equals is taken.
    """
    frequency = np.arange(1, n // 2 + 1)
    wave = 2 - 2 * np.cos(2 * np.pi * np.arange(n) / n)
    total, left, chosen = wave[frequency], np.arange(2, n // 2 + 1), []
    for _ in range(count):
        connectivity = np.empty(len(left))
        for start in range(0, len(left), 256):
            part = left[start : start + 256, None]
            added = wave[part * frequency % n] * np.where(2 * part == n, 0.5, 1.0)
            connectivity[start : start + 256] = (total + added).min(axis=1)
        # Nine digits: equals differ in their last bits, and those depend on the machine.
        best = left[np.round(connectivity, 9).argmax()]
        total = total + wave[best * frequency % n] * (0.5 if 2 * best == n else 1.0)
        left = left[left != best]
        chosen.append(int(best))
    return chosen


def _margulis(spec, numbers):
    """Join (x, y) with (x + 2y, y), (x + 2y + 1, y), (x, y + 2x) and (x, y + 2x + 1) mod s, n = s^2 (Gabber, Galil 1981)."""
    side = math.isqrt(numbers[0])
    if side**2 != numbers[0]:
        near = f"margulis:{side**2} or margulis:{(side + 1) ** 2}"
        raise UserError(f"graph {spec!r}: {numbers[0]} is not a square; the nearest are {near}.")
    vertex = np.arange(numbers[0])
    x, y = np.divmod(vertex, side)
    ends = [(x + 2 * y + step) % side * side + y for step in (0, 1)] + [x * side + (y + 2 * x + step) % side for step in (0, 1)]
    return numbers[0], simple(numbers[0], np.tile(vertex, 4), np.concatenate(ends))


GENERATORS = {
    "ring": lambda spec, numbers: (numbers[0], shifts(numbers[0], [1])),
    "path": _path,
    "torus": lambda spec, numbers: _lattice(numbers, True),
    "grid": lambda spec, numbers: _lattice(numbers, False),
    "hypercube": _hypercube,
    "complete": _complete,
    "star": _star,
    "tree": _tree,
    "circulant": _circulant,
    "chords": _chords,
    "exponential": lambda spec, numbers: (numbers[0], shifts(numbers[0], powers(numbers[0]))),
    "margulis": _margulis,
    "directed-ring": lambda spec, numbers: (numbers[0], shifts(numbers[0], [1], directed=True)),
    "directed-exponential": lambda spec, numbers: (numbers[0], shifts(numbers[0], powers(numbers[0]), directed=True)),
}
