"""Maps of a graph onto nodes and their ranks, so that few edges cross them: blocks, tiles of a lattice, a graph partition.

A graph is anything with `spec`, `n` and `edges`: a Net, a Wiring. First every node gets its vertices, because rows between
nodes take the network; then, within a node, every rank. Counts are as even as they go, whatever the map: a rank with a
vertex more makes all others wait. numpy alone; pymetis for partitions of graphs.

n vertices, m edges, K parts.
"""

import importlib.util
import itertools
from typing import NamedTuple

import numpy as np

from mpiconsensus.errors import UserError, require_choice
from mpiconsensus.mapping.partition import partition

MAPS = ("block", "cartesian", "partition", "auto")
MOST_EDGES = 1_000_000  # METIS takes some seconds for as many; `auto` does not wait longer


class Crossing(NamedTuple):
    """edges with their ends in two parts; bytes of a round over them, a row in each direction (an arc has one)."""

    edges: int
    bytes: int


def crossing(edges, part, row_bytes=0, directed=False):
    """Return the Crossing of (m, 2) edges for the parts (n,) that the vertices are in: ranks, or nodes.

    Of several edges from a vertex to one rank the transports send the row once: bytes is what they send at most.
    """
    count = int((part[edges[:, 0]] != part[edges[:, 1]]).sum())
    return Crossing(count, count * row_bytes * (1 if directed else 2))


def plan(net, ranks_per_node, how="block"):
    """Return (owner, node), (n,) int64 each: rank and node of every vertex; ranks are numbered node by node.

    ranks_per_node: a number of ranks for each node. how: one of MAPS. UserError as `assign`.
    """
    node_of_rank = np.repeat(np.arange(len(ranks_per_node)), ranks_per_node)
    owner, _ = assign(net, node_of_rank, how)
    return owner, node_of_rank[owner]


def assign(net, node_of_rank, how):
    """Return (owner (n,) int64, the map that was taken) for ranks that lie on the nodes (ranks,).

    UserError for an unknown map, for more ranks than vertices, and for a map that this graph or this machine does not allow.
    """
    require_choice("placement.map", how, MAPS)
    require_vertices(net.n, len(node_of_rank))
    node_of_rank = np.asarray(node_of_rank)
    if how == "auto":
        return _better(net, node_of_rank)
    return _MAKE[how](net, node_of_rank), how


def require_vertices(n, ranks):
    """Raise UserError where there are more ranks than vertices."""
    if ranks > n:
        raise UserError(
            f"{ranks} ranks were started for a graph of {n} vert{'ex' if n == 1 else 'ices'}; a rank hosts at least one: "
            f"start at most {n} ranks (mpirun -n {n}) or choose a larger graph (--set topology.graph=ring:{ranks})."
        )


def sizes(n, node_of_rank):
    """Return the vertices of each rank, (ranks,): as even as they go, the odd ones over the nodes in proportion to their ranks."""
    ranks, on_node = len(node_of_rank), np.bincount(node_of_rank)
    each, odd = divmod(n, ranks)
    share = odd * on_node
    more = share // ranks
    more[np.argsort(-(share % ranks), kind="stable")[: odd - more.sum()]] += 1
    found = np.full(ranks, each)
    for node, count in enumerate(more):
        found[np.flatnonzero(node_of_rank == node)[:count]] += 1
    return found


def blocks(n, ranks):
    """Return the owners of contiguous runs of vertices in the order of the ranks, the first ranks with one more."""
    return np.repeat(np.arange(ranks), [n // ranks + (r < n % ranks) for r in range(ranks)])


def sides(spec):
    """Return the sides of a torus or grid, row-major as its vertices are numbered, or None for another graph."""
    name, _, text = spec.partition(":")
    return [int(side) for side in text.split("x")] if name in ("torus", "grid") else None


def _cartesian(net, node_of_rank):
    lattice = sides(net.spec)
    if lattice is None:
        raise UserError(
            f"placement.map = cartesian needs a torus or a grid, the graph is {net.spec}; take partition, auto or block."
        )
    places = np.stack(np.unravel_index(np.arange(net.n), lattice), axis=1)
    return _in_two_levels(net, node_of_rank, lambda here, edges, counts: _tiles(places[here], edges, counts))


def _partition(net, node_of_rank):
    if not _installed():
        raise UserError(
            "placement.map = partition needs the library pymetis; install it (pip install pymetis), or take --placement block."
        )
    return _in_two_levels(net, node_of_rank, lambda here, edges, counts: partition(len(here), edges, counts))


_MAKE = {
    "block": lambda net, node_of_rank: blocks(net.n, len(node_of_rank)),
    "cartesian": _cartesian,
    "partition": _partition,
}


def _better(net, node_of_rank):
    """Return the map of `auto`: tiles or a partition where fewer edges cross nodes, or ranks where nodes tie; else blocks."""
    found = [(_MAKE["block"](net, node_of_rank), "block")]
    if sides(net.spec):
        found.append((_cartesian(net, node_of_rank), "cartesian"))
    elif _installed() and len(net.edges) <= MOST_EDGES:
        found.append((_partition(net, node_of_rank), "partition"))
    return min(found, key=lambda taken: (crossing(net.edges, node_of_rank[taken[0]]), crossing(net.edges, taken[0])))


def _installed():
    try:
        return importlib.util.find_spec("pymetis") is not None
    except ValueError:  # sys.modules says that it is not there
        return False


def _in_two_levels(net, node_of_rank, divide):
    """Return the owners (n,): `divide` gives the nodes their vertices, then the ranks of each node.

    divide(vertices, edges among them by position, counts (K,)) -> the part of each vertex, counts[k] of part k.
    """
    counts = sizes(net.n, node_of_rank)
    node = divide(np.arange(net.n), net.edges, np.bincount(node_of_rank, counts).astype(int))
    owner = np.empty(net.n, np.int64)
    for number in range(node_of_rank.max() + 1):
        here, ranks = np.flatnonzero(node == number), np.flatnonzero(node_of_rank == number)
        position = np.full(net.n, -1)
        position[here] = np.arange(len(here))
        edges = position[net.edges]
        owner[here] = ranks[divide(here, edges[(edges >= 0).all(axis=1)], counts[ranks])]
    return owner


def _tiles(places, edges, counts):
    """Return the part of each of the vertices at `places` (n, axes): the cutting that the fewest edges cross.

    Tried are the ways to cut each axis into a number of slabs, the numbers' product being K, the axes in any order; and to
    halve the longest extent over and over.
    """
    cuttings = [()]
    for pieces in _factors(len(counts), places.shape[1]):
        cuttings += itertools.permutations([(axis, count) for axis, count in enumerate(pieces) if count > 1])
    found = (_cut(places, counts, cutting) for cutting in cuttings)
    return min(found, key=lambda part: crossing(edges, part))


def _factors(number, count):
    """Yield the tuples of `count` factors whose product is `number`."""
    if count == 1:
        yield (number,)
        return
    for first in range(1, number + 1):
        if number % first == 0:
            for rest in _factors(number // first, count - 1):
                yield (first, *rest)


def _cut(places, counts, cutting):
    """Return the part of each vertex after cuts (axis, slabs) in turn, then halving; exact counts, so a cut may have a step."""
    part = np.zeros(len(places), np.int64)

    def cut(vertices, parts, cuts):
        if len(parts) == 1:
            part[vertices] = parts[0]
            return
        extents = np.ptp(places[vertices], axis=0)
        (axis, slabs), *rest = cuts or [(int(extents.argmax()), 2)]
        groups = np.array_split(parts, slabs)
        others = [places[vertices, a] for a in range(places.shape[1] - 1, -1, -1) if a != axis]
        order = vertices[np.lexsort([*others, places[vertices, axis]])]
        ends = np.cumsum([counts[group].sum() for group in groups])[:-1]
        for chunk, group in zip(np.split(order, ends), groups, strict=True):
            cut(chunk, group, rest)

    cut(np.arange(len(places)), np.arange(len(counts)), cutting)
    return part
