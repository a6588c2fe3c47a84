"""Whether edges hold a graph together, and the names of the parts where they do not."""

import numpy as np

from mpiconsensus.errors import UserError


def components(n, edges):
    """Return (n,) int64: for each vertex the smallest vertex of its component, directions apart.

    Each root takes over the smallest root that an edge leads to, then paths are halved until they end at a root.
    """
    label = np.arange(n)
    i, j = edges.T
    while len(i):
        a, b = label[i], label[j]
        apart = a != b
        i, j, a, b = i[apart], j[apart], a[apart], b[apart]
        low = np.minimum(a, b)
        np.minimum.at(label, np.maximum(a, b), low)
        while (label[label] != label).any():
            label = label[label]
    return label


def require_connected(net):
    """Raise UserError, naming the components, unless `net` is connected; directed: strongly."""
    if net.directed:
        parts, kind = _strong(net), "strongly connected components"
        remedy = "each vertex must reach every other: add arcs between them"
    else:
        label = components(net.n, net.edges)
        if not label.any():
            return
        order = np.argsort(label, kind="stable")
        parts = np.split(order, np.flatnonzero(np.diff(label[order])) + 1)
        kind, remedy = "components", "add edges between them"
    if len(parts) > 1:
        named = _shortened(["{" + _shortened(p, 6) + "}" for p in parts[:5]], 4)
        raise UserError(f"graph {net.spec!r} falls into {len(parts)} {kind}: {named}; {remedy}.")


def _strong(net):
    import networkx as nx

    graph = nx.DiGraph()
    graph.add_nodes_from(range(net.n))
    graph.add_edges_from(net.edges.tolist())
    return sorted(map(sorted, nx.strongly_connected_components(graph)))


def _shortened(items, most):
    return ", ".join(map(str, items[:most])) + (", ..." if len(items) > most else "")
