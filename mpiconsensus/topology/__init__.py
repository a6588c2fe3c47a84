"""Named graphs on the vertices 0..n-1, from spec strings such as `torus:6x6`.

A spec is `name:arguments`; FORMS lists the names. `resolve` also takes a spec without its size ("torus", "auto").
Graphs are simple, undirected and connected; the same (spec, seed) gives the same graph on every rank.
"""

import math
import random
import re
from typing import NamedTuple

import networkx as nx
import numpy as np

from mpiconsensus.errors import UserError, did_you_mean
from mpiconsensus.randomness import generator
from mpiconsensus.topology.net import Net

# The mixing matrix is dense, n x n float64: 800 MB at this size. It also catches a digit too many.
MAX_VERTICES = 10_000
MAX_DIAMETER_VERTICES = 2_000


class Form(NamedTuple):
    """One kind of graph: an example spec, the words for its arguments, their separator, least and greatest number."""

    example: str
    meaning: str
    takes: str = "one number"
    separator: str = ","
    low: int = 1
    high: float = 1


FORMS = {
    "ring": Form("ring:4", "cycle of n vertices"),
    "torus": Form("torus:6x6", "grid that closes on itself", "2 or 3 sides separated by 'x'", "x", 2, 3),
    "grid": Form("grid:5x10", "grid with borders", "2 or 3 sides separated by 'x'", "x", 2, 3),
    "complete": Form("complete:36", "every pair of n vertices"),
    "star": Form("star:5", "n vertices in total, vertex 0 at the centre"),
    "random": Form("random:50,150", "n vertices and m edges, uniform among the connected", "two numbers", ",", 2, 2),
    "regular": Form("regular:50,4", "random graph of n vertices of one degree", "two numbers", ",", 2, 2),
    "circulant": Form(
        "circulant:50,7,12", "cycle of n with chords of these lengths", "two numbers or more", ",", 2, math.inf
    ),
    "margulis": Form("margulis:25", "Margulis-Gabber-Galil expander, n a square; parallel edges and loops dropped"),
    "file": Form("file:PATH", "edge list, 'i j' a line"),
}


def build(spec, seed=0):
    """Return the networkx.Graph of `spec`, its canonical spec under graph["spec"]; a local operation.

    `seed` matters for `random` and `regular` alone. Raises UserError for a spec that names no connected graph.
    """
    name, text = _split(spec)
    if name == "file":
        graph, canonical = _read_edge_list(spec, text), f"file:{text}"
    else:
        numbers = _numbers(spec, name, text)
        rng = random.Random(int(generator(seed, "graph").integers(2**63)))
        graph = BUILDERS[name](spec, numbers, rng)
        canonical = f"{name}:{FORMS[name].separator.join(map(str, numbers))}"
    simple = nx.Graph()
    # Ascending nodes, then ascending edges: iteration does not depend on how a generator went about it.
    simple.add_nodes_from(range(len(graph)))
    simple.add_edges_from(sorted((min(e), max(e)) for e in graph.edges() if e[0] != e[1]))
    _require_connected(spec, simple)
    simple.graph["spec"] = canonical
    return simple


def resolve(spec, n, seed=0):
    """Return the graph of `spec`, which takes `n` vertices where it comes without its size ("ring", "auto")."""
    return build(expand(spec, n), seed)


def expand(spec, n):
    """Return `spec` with a size: as it is where it has one, else for `n` vertices."""
    name, colon, _ = spec.strip().partition(":")
    name = name.strip().lower()
    if colon or name == "file":
        return spec
    if name == "auto":
        return auto(n)
    if name not in FORMS:
        raise _unknown(spec, name)
    if name in ("torus", "grid"):
        return f"{name}:{'x'.join(map(str, _most_square(name, n)))}"
    if name == "random":
        # Twice as many edges as vertices; past 54 vertices as many as make most draws connected (Erdos, Renyi 1959).
        edges = max(2 * n, math.ceil(n * math.log(n) / 2), n - 1)
        return f"random:{n},{min(edges, n * (n - 1) // 2)}"
    if name == "regular":
        return f"regular:{n},{min(4, n - 1)}"
    if name == "circulant":
        return f"circulant:{n},{min(max(2, round(math.sqrt(n))), max(2, n // 2))}"
    return f"{name}:{n}"


def auto(n):
    """Return the spec of a sensible graph on `n` vertices: a ring up to 8, then an expander."""
    if n <= 8:
        return f"ring:{n}"
    return f"margulis:{n}" if math.isqrt(n) ** 2 == n else f"regular:{n},4"


def edges(graph):
    """Return the edges as int64 (m, 2), i < j in each row, rows in lexicographic order."""
    pairs = sorted((min(e), max(e)) for e in graph.edges())
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def describe(graph):
    """Return vertices, edges, min_degree, max_degree, connected, diameter (None: disconnected, or n > 2000)."""
    degrees = [degree for _, degree in graph.degree()]
    connected = nx.is_connected(graph)
    small = connected and len(graph) <= MAX_DIAMETER_VERTICES
    return {
        "vertices": len(graph),
        "edges": graph.number_of_edges(),
        "min_degree": min(degrees),
        "max_degree": max(degrees),
        "connected": connected,
        "diameter": nx.diameter(graph, usebounds=True) if small else None,
    }


def _split(spec):
    name, _, text = spec.strip().partition(":")
    name = name.strip().lower()
    if name == "auto":
        raise UserError(f"graph {spec!r}: auto takes no size but the number of ranks; write auto or e.g. ring:4.")
    if name not in FORMS:
        raise _unknown(spec, name)
    return name, text.strip()


def _unknown(spec, name):
    forms = ", ".join(form.example for form in FORMS.values())
    return UserError(f"graph {spec!r} is not known; forms are {forms}.{did_you_mean(name, [*FORMS, 'auto'])}")


def _numbers(spec, name, text):
    form = FORMS[name]
    words = [word.strip() for word in text.lower().split(form.separator)] if text else []
    if not form.low <= len(words) <= form.high:
        raise UserError(f"graph {spec!r}: {name} takes {form.takes}, for example {form.example} ({form.meaning}).")
    for word in words:
        if not re.fullmatch("[0-9]{1,12}", word):
            raise UserError(f"graph {spec!r}: {word!r} is no whole number of at most 12 digits; write {form.example}.")
    numbers = [int(word) for word in words]
    n = math.prod(numbers) if form.separator == "x" else numbers[0]
    if not 1 <= n <= MAX_VERTICES:
        raise UserError(f"graph {spec!r} has {n} vertices; give 1 to {MAX_VERTICES}, for example {form.example}.")
    if name == "circulant":
        numbers[1:] = sorted(set(numbers[1:]))
    return numbers


def _most_square(name, n):
    for side in range(math.isqrt(n), 0, -1):
        if n % side == 0 and (side > 1 or n == 1):
            return side, n // side
    below = next(m for m in range(n - 1, 0, -1) if m == 1 or not _is_prime(m))
    above = next(m for m in range(n + 1, 2 * n + 1) if not _is_prime(m))
    fits = " or ".join(f"{m} ({name}:{'x'.join(map(str, _most_square(name, m)))})" for m in (below, above))
    raise UserError(f"graph {name!r}: {n} vertices, a prime, fit no {name}; the nearest sizes that work are {fits}.")


def _is_prime(n):
    return n > 1 and all(n % k for k in range(2, math.isqrt(n) + 1))


def _lattice(sides, periodic):
    graph = nx.grid_graph(sides[::-1], periodic=periodic)
    return nx.convert_node_labels_to_integers(graph, ordering="sorted")


def _random(spec, numbers, rng):
    n, m = numbers
    low, high = n - 1, n * (n - 1) // 2
    if not low <= m <= high:
        raise UserError(f"graph {spec!r}: {m} edges; a connected graph on {n} vertices has {low} to {high}.")
    if m == low:
        # A tree: redrawing until connected would take for ever, and networkx draws uniform trees.
        return nx.random_labeled_tree(n, seed=rng)
    for _ in range(100 + 1_000_000 // (n + m)):
        graph = nx.gnm_random_graph(n, m, seed=rng)
        if nx.is_connected(graph):
            return graph
    enough = math.ceil(n * math.log(n) / 2)
    raise UserError(f"graph {spec!r}: no draw with {m} edges was connected; give more, e.g. random:{n},{enough}.")


def _regular(spec, numbers, rng):
    n, degree = numbers
    if degree >= n:
        raise UserError(f"graph {spec!r}: degree {degree} needs {degree + 1} vertices; give a degree up to {n - 1}.")
    if degree < min(2, n - 1):
        raise UserError(f"graph {spec!r}: degree {degree} connects no {n} vertices; give {min(2, n - 1)} or more.")
    if n * degree % 2:
        near = f"regular:{n},{degree - 1} or regular:{n + 1},{degree}"
        raise UserError(f"graph {spec!r}: vertices times degree must be even; write {near}.")
    # The complement of a regular graph is regular: drawing the sparser one takes milliseconds instead of minutes.
    dense = 2 * degree >= n
    for _ in range(10_000):
        graph = nx.random_regular_graph(n - 1 - degree if dense else degree, n, seed=rng)
        graph = nx.complement(graph) if dense else graph
        if nx.is_connected(graph):
            return graph
    raise UserError(f"graph {spec!r}: no draw was connected; a cycle is ring:{n}, and degree 3 and more are connected.")


def _circulant(spec, numbers, rng):
    n, *chords = numbers
    if n < 4:
        raise UserError(f"graph {spec!r}: a chord needs at least 4 vertices; write ring:{n}.")
    for chord in chords:
        if not 2 <= chord <= n // 2:
            raise UserError(f"graph {spec!r}: a chord of length {chord}; on {n} vertices lengths are 2 to {n // 2}.")
    return nx.circulant_graph(n, [1, *chords])


def _margulis(spec, numbers, rng):
    side = math.isqrt(numbers[0])
    if side**2 != numbers[0]:
        near = f"margulis:{side**2} or margulis:{(side + 1) ** 2}"
        raise UserError(f"graph {spec!r}: {numbers[0]} is not a square; the nearest are {near}.")
    return nx.convert_node_labels_to_integers(nx.margulis_gabber_galil_graph(side), ordering="sorted")


BUILDERS = {
    "ring": lambda spec, numbers, rng: nx.cycle_graph(*numbers),
    "torus": lambda spec, numbers, rng: _lattice(numbers, True),
    "grid": lambda spec, numbers, rng: _lattice(numbers, False),
    "complete": lambda spec, numbers, rng: nx.complete_graph(*numbers),
    "star": lambda spec, numbers, rng: nx.star_graph(numbers[0] - 1),
    "random": _random,
    "regular": _regular,
    "circulant": _circulant,
    "margulis": _margulis,
}


def _read_edge_list(spec, path):
    """Return the graph of a text file: 'i j' a line, blank lines and # comments skipped, an edge given twice is one."""
    if not path:
        raise UserError(f"graph {spec!r}: file takes a path, for example file:graph.txt (an edge list, 'i j' a line).")
    try:
        with open(path, encoding="utf-8-sig") as file:
            lines = file.read().split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"graph {spec!r} cannot be read as text: {error}.") from None
    graph = nx.Graph()
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].split()
        if words:
            graph.add_edge(*_edge(words, f"{path}, line {number}: {line.strip()!r}"))
    if not graph:
        raise UserError(f"graph {spec!r} holds no edge; write two vertex numbers a line, for example '0 1'.")
    n = max(graph) + 1
    if len(graph) != n:
        # Counted, not listed: a digit too many would make the list as long.
        missing = next(v for v in range(n) if v not in graph)
        raise UserError(
            f"graph {spec!r}: vertices must be 0 to n-1; the largest is {n - 1}, but only {len(graph)} occur, "
            f"vertex {missing} does not."
        )
    if n > MAX_VERTICES:
        raise UserError(f"graph {spec!r} has {n} vertices; the most is {MAX_VERTICES}.")
    return graph


def _edge(words, where):
    """Return (i, j) of an edge-list line; a third column, a weight, must be a number and is not used."""
    if len(words) not in (2, 3):
        raise UserError(f"{where}: {len(words)} columns; write two vertex numbers separated by a space, e.g. '0 1'.")
    for word in words[:2]:
        if not re.fullmatch("[0-9]{1,12}", word):
            raise UserError(f"{where}: {word!r} is not a vertex; vertices are the whole numbers from 0.")
    try:
        float(words[2] if len(words) == 3 else 0)
    except ValueError:
        raise UserError(f"{where}: {words[2]!r} in the third column is not a number; leave the column out.") from None
    i, j = int(words[0]), int(words[1])
    if i == j:
        raise UserError(f"{where}: an edge from vertex {i} to itself; take the line out.")
    return i, j


def _require_connected(spec, graph):
    components = sorted(map(sorted, nx.connected_components(graph)))
    if len(components) > 1:
        named = _shortened(["{" + _shortened(c, 6) + "}" for c in components], 4)
        raise UserError(f"graph {spec!r} falls into {len(components)} components: {named}; add edges between them.")


def _shortened(items, most):
    return ", ".join(map(str, items[:most])) + (", ..." if len(items) > most else "")


def net(spec, n, seed=0):
    """Return the Net of `spec`, which takes `n` vertices where it comes without its size."""
    graph = resolve(spec, n, seed)
    return Net(graph.graph["spec"], len(graph), edges(graph))
