"""Random graphs, drawn until connected, as arrays: (n, edges) from the numbers of a spec and the seed."""

import math
import random

import numpy as np

from mpiconsensus.errors import UserError
from mpiconsensus.randomness import generator
from mpiconsensus.topology.connected import components
from mpiconsensus.topology.forms import require_edges
from mpiconsensus.topology.generators import simple

# Beyond, edges are drawn as arrays; up to it by networkx, in whose draws earlier runs have their graphs.
ARRAYS = 10_000
# So many vertices are expected without an edge: the chance of a connected draw is below e^-20.
HOPELESS = 20


def _random(spec, numbers, seed):
    n, m = numbers
    low, high = n - 1, n * (n - 1) // 2
    if not low <= m <= high:
        raise UserError(f"graph {spec!r}: {m} edges; a connected graph on {n} vertices has {low} to {high}.")
    require_edges(spec, m)
    rng, arrays = _stdlib(seed), generator(seed, "graph edges")
    draw = (lambda: sample(n, m, arrays)) if n > ARRAYS else lambda: _gnm(n, m, rng)
    if m == low:
        # A tree: redrawing until connected would take for ever; both ways draw uniform trees.
        return n, tree(n, arrays) if n > ARRAYS else _labelled_tree(n, rng)
    if _lonely(n, m) < HOPELESS:
        for _ in range(100 + 1_000_000 // (n + m)):
            edges = draw()
            if not components(n, edges).any():
                return n, edges
    skeleton = tree(n, arrays)
    others = sample(n, m - low, arrays, without=skeleton)
    return n, simple(n, *np.concatenate([skeleton, others]).T)


def _lonely(n, m):
    """Return how many vertices a uniform draw of m edges is expected to leave without an edge."""
    return n * (1 - 2 * m / (n * (n - 1))) ** (n - 1) if n > 1 else 0


def _gnm(n, m, rng):
    import networkx as nx

    return _array(n, nx.gnm_random_graph(n, m, seed=rng))


def _labelled_tree(n, rng):
    import networkx as nx

    return _array(n, nx.random_labeled_tree(n, seed=rng))


def _gnp(spec, numbers, seed):
    n, p = numbers
    pairs = n * (n - 1) // 2
    require_edges(spec, pairs * p)
    rng = generator(seed, "graph edges")
    if _lonely(n, pairs * p) < HOPELESS:
        for _ in range(100 + int(1_000_000 // (n + pairs * p))):
            edges = sample(n, int(rng.binomial(pairs, p)), rng)
            if not components(n, edges).any():
                return n, edges
    enough = float(f"{min(1, 2 * math.log(n) / n):.2g}")
    raise UserError(
        f"graph {spec!r}: no draw with probability {p:g} was connected; give more, e.g. gnp:{n},{enough:g}, or random:{n},{2 * n} (n, edges)."
    )


def _regular(spec, numbers, seed):
    import networkx as nx

    n, degree = numbers
    if degree >= n:
        raise UserError(f"graph {spec!r}: degree {degree} needs {degree + 1} vertices; give a degree up to {n - 1}.")
    if degree < min(2, n - 1):
        raise UserError(f"graph {spec!r}: degree {degree} connects no {n} vertices; give {min(2, n - 1)} or more.")
    if n * degree % 2:
        near = f"regular:{n},{degree - 1} or regular:{n + 1},{degree}"
        raise UserError(f"graph {spec!r}: vertices times degree must be even; write {near}.")
    require_edges(spec, n * degree // 2)
    rng = _stdlib(seed)
    # The complement of a regular graph is regular: drawing the sparser one takes milliseconds instead of minutes.
    dense = 2 * degree >= n
    for _ in range(max(100, 10_000_000 // (n * (degree + 1)))):
        graph = nx.random_regular_graph(n - 1 - degree if dense else degree, n, seed=rng)
        edges = _array(n, nx.complement(graph) if dense else graph)
        if not components(n, edges).any():
            return n, edges
    raise UserError(f"graph {spec!r}: no draw was connected; a cycle is ring:{n}, and degree 3 and more are connected.")


def _small_world(spec, numbers, seed):
    import networkx as nx

    n, near, p = numbers
    if near % 2 or not 2 <= near < n:
        allowed = f"even, 2 to {(n - 1) // 2 * 2}" if n > 2 else "even, on 3 vertices or more"
        raise UserError(f"graph {spec!r}: {near} neighbours; the number is {allowed}, half of them on each side.")
    require_edges(spec, n * near // 2)
    try:
        return n, _array(n, nx.connected_watts_strogatz_graph(n, near, p, tries=100 + 1_000_000 // (n * near), seed=_stdlib(seed)))
    except nx.NetworkXError:
        raise UserError(f"graph {spec!r}: no draw was connected; give more neighbours or a smaller probability.") from None


def tree(n, rng):
    """Return the n - 1 edges of a tree, uniform among the n^(n-2) labelled trees.

    Joyal's bijection (Joyal, "Une theorie combinatoire des series formelles", Advances in Mathematics 42, 1981): a map f of
    the vertices into themselves is a tree with two marked vertices. The vertices on cycles of f, ascending, become the path
    f(c_1), f(c_2), ...; every other vertex v is joined with f(v).
    """
    f = rng.integers(n, size=n)
    far = f
    for _ in range(n.bit_length()):
        far = far[far]
    on_cycles = np.unique(far)
    path = f[on_cycles]
    v = np.setdiff1d(np.arange(n), on_cycles, assume_unique=True)
    return simple(n, np.concatenate([v, path[:-1]]), np.concatenate([f[v], path[1:]]))


def sample(n, m, rng, without=None):
    """Return m different edges, uniform among all pairs of n vertices but those of `without`.

    Pair number c joins b = c mod n with b + c // n + 1 mod n: every difference up to n/2, and every pair once.
    """
    pairs = n * (n - 1) // 2
    if without is None:
        chosen = rng.choice(pairs, m, replace=False, shuffle=False) if m else np.zeros(0, dtype=np.int64)
    else:
        i, j = without.T
        taken = np.sort(np.where(2 * (j - i) > n, (n + i - j - 1) * n + j, (j - i - 1) * n + i))
        chosen = rng.choice(pairs - len(taken), m, replace=False, shuffle=False)
        # Number c of those left is number c + (how many taken stand before it) of all.
        chosen = chosen + np.searchsorted(taken - np.arange(len(taken)), chosen, side="right")
    return simple(n, chosen % n, (chosen % n + chosen // n + 1) % n)


def _stdlib(seed):
    return random.Random(int(generator(seed, "graph").integers(2**63)))


def _array(n, graph):
    ends = np.array(list(graph.edges()), dtype=np.int64).reshape(-1, 2)
    return simple(n, *ends.T)


DRAWS = {"random": _random, "gnp": _gnp, "regular": _regular, "small-world": _small_world}
