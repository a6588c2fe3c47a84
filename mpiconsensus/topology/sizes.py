"""Specs without their size: "torus" on 36 vertices is torus:6x6."""

import math

from mpiconsensus.errors import UserError
from mpiconsensus.topology.forms import FORMS, tree_size, unknown


def expand(spec, n):
    """Return `spec` with a size: as it is where it has one, else for `n` vertices."""
    name, colon, text = spec.strip().partition(":")
    name = name.strip().lower()
    if name == "matchings":
        return f"{name}:{expand(text.strip() or 'auto', n)}"
    if colon or name in ("file", "sequence"):
        return spec
    if name == "auto":
        return auto(n)
    if name not in FORMS:
        raise unknown(spec, name)
    size = SIZES[name](n) if name in SIZES else n
    if size is None:
        raise _unfit(name, n)
    return f"{name}:{size}"


def auto(n):
    """Return the spec of a sensible graph on `n` vertices: a ring up to 8, then an expander."""
    if n <= 8:
        return f"ring:{n}"
    return f"margulis:{n}" if math.isqrt(n) ** 2 == n else f"regular:{n},4"


def _unfit(name, n):
    """Return the UserError of `n` vertices that no graph of this name has, with the nearest numbers that one does."""
    prime = ", a prime," if name in ("torus", "grid") else ""
    near = [next(m for m in numbers if SIZES[name](m) is not None) for numbers in (range(n - 1, 0, -1), range(n + 1, 4 * n))]
    fits = " or ".join(f"{m} ({name}:{SIZES[name](m)})" for m in near)
    return UserError(f"graph {name!r}: {n} vertices{prime} fit no {name}; the nearest sizes that work are {fits}.")


def _sides(n):
    """Return the sides of the most square torus or grid, None for a prime: that would be a ring."""
    for side in range(math.isqrt(n), 0, -1):
        if n % side == 0 and (side > 1 or n == 1):
            return f"{side}x{n // side}"
    return None


def _power(n):
    return n.bit_length() - 1 if n & (n - 1) == 0 else None


def _balanced(n):
    """Return branching and height of the balanced tree with the most levels, None where only a star or a path fits."""
    if n in (1, 3):
        return f"2,{n // 2}"
    for branching in range(2, math.isqrt(n) + 1):
        height = 2
        while (size := tree_size((branching, height))) < n:
            height += 1
        if size == n:
            return f"{branching},{height}"
    return None


def _random(n):
    # Twice as many edges as vertices; past 54 vertices as many as make most draws connected (Erdos, Renyi 1959).
    edges = max(2 * n, math.ceil(n * math.log(n) / 2), n - 1)
    return f"{n},{min(edges, n * (n - 1) // 2)}"


SIZES = {
    "torus": _sides,
    "grid": _sides,
    "hypercube": _power,
    "tree": _balanced,
    "random": _random,
    # Twice the probability at which half-way large graphs become connected.
    "gnp": lambda n: f"{n},{min(1, 2 * math.log(max(n, 2)) / n):.3g}",
    "regular": lambda n: f"{n},{min(4, n - 1)}",
    "small-world": lambda n: f"{n},{4 if n > 4 else 2},0.1",
    "circulant": lambda n: f"{n},{min(max(2, round(math.sqrt(n))), max(2, n // 2))}",
    "chords": lambda n: f"{n},{1 if n > 3 else 0}",
}
