"""The forms of a graph, and the reading of a spec string `name:arguments`."""

import math
import re
from typing import NamedTuple

from mpiconsensus.errors import UserError, did_you_mean

MAX_VERTICES = 1_000_000
# Pairs of int64: 800 MB.
MAX_EDGES = 50_000_000
# The mixing matrix as an array, n x n float64: 800 MB.
DENSE_VERTICES = 10_000


class Form(NamedTuple):
    """One kind of graph, by example.

    meaning: what it is. takes: its arguments in words, `parameters` in letters; what separates them, the least and the
    greatest number of them, and which one may be a fraction (`fraction`, counted from 0; -1: none). directed: edges are
    arcs. changing: a graph for each exchange. seeded: drawn from the seed.
    """

    example: str
    meaning: str
    takes: str = "one number"
    parameters: str = "N"
    separator: str = ","
    low: int = 1
    high: float = 1
    fraction: int = -1
    directed: bool = False
    changing: bool = False
    seeded: bool = False


def _lattice(example, meaning):
    return Form(example, meaning, "2 or 3 sides separated by 'x'", "AxB or AxBxC", "x", 2, 3)


def _two(example, meaning, parameters, **more):
    return Form(example, meaning, "two numbers", parameters, ",", 2, 2, **more)


FORMS = {
    "ring": Form("ring:4", "cycle of n vertices"),
    "path": Form("path:4", "n vertices in a line"),
    "torus": _lattice("torus:6x6", "grid that closes on itself"),
    "grid": _lattice("grid:5x10", "grid with borders"),
    "hypercube": Form("hypercube:5", "2^d vertices, joined where their numbers differ in one binary digit", parameters="D"),
    "complete": Form("complete:36", "every pair of n vertices"),
    "star": Form("star:5", "n vertices in total, vertex 0 at the centre"),
    "tree": _two("tree:2,4", "every vertex has b children, down to height h; vertex 0 is the root", "B,H"),
    "circulant": Form(
        "circulant:50,7,12", "cycle of n with chords of these lengths", "two numbers or more", "N,LENGTH,...", ",", 2, math.inf
    ),
    "chords": _two(
        "chords:50,3",
        "cycle of n with chords of k lengths, from i to i + length; each length in turn is the one that raises the algebraic "
        "connectivity most, the shortest of equals, so that k = 0 is the ring and k + 1 adds edges to k",
        "N,K",
    ),
    "exponential": Form("exponential:16", "i joined with i + 2^j and i - 2^j mod n, for every 2^j below n"),
    "margulis": Form(
        "margulis:25",
        "Margulis-Gabber-Galil expander, n a square; simplified: parallel edges count once, loops not at all (margulis:25 has 70 edges)",
    ),
    "random": _two(
        "random:50,150",
        "n vertices and m edges, uniform among the connected; where m is too small for a draw to be connected, a uniform random "
        "spanning tree and uniformly random other edges",
        "N,M",
        seeded=True,
    ),
    "gnp": _two("gnp:50,0.1", "Erdos-Renyi: each pair is an edge with probability p; drawn until connected", "N,P", fraction=1, seeded=True),
    "regular": _two("regular:50,4", "random graph of n vertices of one degree", "N,DEGREE", seeded=True),
    "small-world": Form(
        "small-world:50,4,0.1", "Watts-Strogatz: cycle with k neighbours each, an edge rewired with probability p; drawn until connected",
        "three numbers", "N,K,P", ",", 3, 3, fraction=2, seeded=True,
    ),
    "directed-ring": Form("directed-ring:4", "arcs from i to i + 1 mod n", directed=True),
    "directed-exponential": Form("directed-exponential:16", "arcs from i to i + 2^j mod n, for every 2^j below n", directed=True),
    "one-peer-exponential": Form(
        "one-peer-exponential:16", "at exchange k arcs from i to i + 2^(k mod L) mod n, L = ceil(log2 n): one peer each",
        directed=True, changing=True,
    ),
    "matchings": Form(
        "matchings:torus:6x6", "at each exchange a random maximal matching of a graph", "the spec of an undirected graph", "SPEC",
        changing=True, seeded=True,
    ),
    "sequence": Form(
        "sequence:a.txt,b.txt", "graph files in turn, one an exchange; only their union need be connected, their weights are not used",
        "paths separated by ','", "PATH,PATH,...", high=math.inf, changing=True,
    ),
    "file": Form("file:PATH", "a graph file, directed or not, read by its suffix", "a path", "PATH"),
}  # fmt: skip


def split(spec):
    """Return (name, arguments) of a spec with its size; UserError unless FORMS has the name."""
    name, _, text = spec.strip().partition(":")
    name = name.strip().lower()
    if name == "auto":
        raise UserError(f"graph {spec!r}: auto takes no size but the number of ranks; write auto or e.g. ring:4.")
    if name not in FORMS:
        raise unknown(spec, name)
    return name, text.strip()


def unknown(spec, name):
    """Return the UserError of a name that no form has."""
    forms = ", ".join(form.example for form in FORMS.values())
    return UserError(f"graph {spec!r} is not known; forms are {forms}.{did_you_mean(name, [*FORMS, 'auto'])}")


def numbers(spec, name, text):
    """Return the numbers that `text` gives the form `name`, int but for a fraction; UserError names the wrong one."""
    form = FORMS[name]
    words = [word.strip() for word in text.lower().split(form.separator)] if text else []
    if not form.low <= len(words) <= form.high:
        raise UserError(f"graph {spec!r}: {name} takes {form.takes}, for example {form.example} ({form.meaning}).")
    values = [_fraction(spec, form, word) if i == form.fraction else _whole(spec, form, word) for i, word in enumerate(words)]
    n = VERTICES.get(name, math.prod if form.separator == "x" else lambda v: v[0])(values)
    if not 1 <= n <= MAX_VERTICES:
        told = n if n <= 10**12 else "more than 10^12"
        raise UserError(f"graph {spec!r} has {told} vertices; give 1 to {MAX_VERTICES}, for example {form.example}.")
    if name == "circulant":
        values[1:] = sorted(set(values[1:]))
    return values


def canonical(name, values):
    """Return the one spelling of a graph's spec."""
    words = (repr(v).removesuffix(".0") for v in values)
    return f"{name}:{FORMS[name].separator.join(words)}"


def require_edges(spec, m):
    """Raise UserError where a graph has more edges than fit."""
    if m > MAX_EDGES:
        raise UserError(f"graph {spec!r} has about {m:.0f} edges; the most is {MAX_EDGES}: take fewer vertices, or a sparser graph.")


def require_dense(net):
    """Raise UserError where the mixing matrix of `net` is too large to be an array; a local operation."""
    if net.n > DENSE_VERTICES:
        raise UserError(
            f"graph {net.spec!r} has {net.n} vertices; a mixing matrix is dense, n x n, for at most {DENSE_VERTICES}: take fewer vertices."
        )


def tree_size(values):
    """Return the vertices of the balanced tree (branching, height), 10^13 where they are more than 10^12."""
    branching, height = values
    if branching < 2:
        return 1 + branching * height
    n = level = 1
    for _ in range(height):
        level *= branching
        n += level
        if n > 10**12:
            return 10**13
    return n


VERTICES = {"hypercube": lambda values: 2 ** min(values[0], 43), "tree": tree_size}


def _whole(spec, form, word):
    if not re.fullmatch("[0-9]{1,12}", word):
        raise UserError(f"graph {spec!r}: {word!r} is no whole number of at most 12 digits; write {form.example}.")
    return int(word)


def _fraction(spec, form, word):
    if not re.fullmatch(r"(?=.{1,24}$)[0-9]*\.?[0-9]+(e-?[0-9]+)?", word) or not 0 < float(word) <= 1:
        raise UserError(f"graph {spec!r}: {word!r} is no probability above 0 and at most 1; write {form.example}.")
    return float(word)
