"""What a graph and its weights promise, before anything is trained: figures of a Net, with a W or without.

n vertices, m edges (arcs where directed). A figure that is only known to lie between two numbers is a Between, one that
is not computed is None; `words` says in a sentence what they mean. Bytes are those of float32, each row over each edge both ways.
"""

import numpy as np

from mpiconsensus import mapping
from mpiconsensus.errors import UserError
from mpiconsensus.survey import rates, spectrum
from mpiconsensus.survey.rates import Between

# All pairs at once by bits: n^2/8 bytes, a second at most.
MOST_DIAMETER = 1500
# Vertex-transitive: their edge connectivity is their degree (Mader, Archiv der Mathematik 22, 1971).
TRANSITIVE = ("ring", "torus", "complete", "circulant", "chords", "hypercube", "exponential")
# networkx cuts the graph n times.
MOST_CUTS = 300
FLOAT32 = 4


def survey(net, method, parameters=None, node_of_vertex=None):
    """Return {figure: value} of a Net with the weights `method`, in the order of a table; local.

    parameters: numbers of a row, of float32. node_of_vertex: (n,) int, the node that hosts each vertex. Raises UserError
    where the graph does not allow the method.
    """
    figures = {"graph": net.spec, "vertices": net.n, "arcs" if net.directed else "edges": len(net.edges), **_degrees(net)}
    figures |= {"diameter": diameter(net), "edge_connectivity": edge_connectivity(net)}
    ends = None
    if not net.directed:
        ends = spectrum.laplacian(net) if net.n > 1 else None
        figures["algebraic_connectivity"] = rates.figure(ends[0]) if ends else None
    figures["weights"] = method
    figures |= rates.of_changing(net, method) if net.changing else rates.of_constant(net, method, ends)
    figures |= _bytes(net, parameters)
    if node_of_vertex is not None:
        figures |= crossing(net, node_of_vertex, parameters)
    return figures


def _degrees(net):
    """Return the degrees; of a changing graph those of the union of all its exchanges."""
    if not net.directed:
        degree = np.bincount(net.edges.ravel(), minlength=net.n)
        return {"degree_min": int(degree.min()), "degree_mean": float(degree.mean()), "degree_max": int(degree.max())}
    out, into = (np.bincount(column, minlength=net.n) for column in net.edges.T)
    ends = {f"{name}_degree_{f.__name__}": int(f(degree)) for name, degree in (("out", out), ("in", into)) for f in (min, max)}
    return ends | {"degree_mean": float(out.mean())}


def _neighbours(net):
    """Return (start, index): whom a step of a path can reach from each vertex, and itself."""
    i, j = net.edges.T
    everyone = np.arange(net.n)
    source = np.concatenate([i, everyone] if net.directed else [i, j, everyone])
    target = np.concatenate([j, everyone] if net.directed else [j, i, everyone])
    order = np.argsort(source, kind="stable")
    return np.concatenate([[0], np.cumsum(np.bincount(source, minlength=net.n))]), target[order]


def diameter(net):
    """Return the longest of the shortest paths, None where there is not one between all; past MOST_DIAMETER vertices a Between by breadth-first sweeps."""
    if net.n > MOST_DIAMETER:
        return _swept_diameter(net)
    start, index = _neighbours(net)
    # Bit v of row u: v is at most `steps` steps from u. In words of 64; the bits past n are set from the start.
    bits = np.ones((net.n, -(-net.n // 64) * 64), dtype=bool)
    bits[:, : net.n] = np.eye(net.n, dtype=bool)
    reached = np.packbits(bits, axis=1).view(np.uint64)
    steps = 0
    while not (reached == np.uint64(2**64 - 1)).all():
        before, reached = reached, np.bitwise_or.reduceat(reached[index], start[:-1], axis=0)
        if (before == reached).all():
            return None  # some vertex is out of reach
        steps += 1
    return steps


def _swept_diameter(net):
    """Return the diameter between the longest path that four sweeps met and twice the least eccentricity among them."""
    sparse_matrices, _ = spectrum.require_scipy(net.n)
    from scipy.sparse.csgraph import shortest_path

    i, j = net.edges.T
    graph = sparse_matrices.csr_array((np.ones(len(i)), (i, j)), shape=(net.n, net.n))

    def distances(vertex, graph=graph):
        return shortest_path(graph, directed=net.directed, unweighted=True, indices=vertex)

    if net.directed:
        # d(u, v) <= d(u, 0) + d(0, v)
        out, into = distances(0).max(), distances(0, graph.T.tocsr()).max()
        return Between(int(max(out, into)), int(out + into))
    first = distances(0)
    second = distances(int(first.argmax()))
    far = int(second.argmax())
    third = distances(far)
    # Halfway on a longest path: few vertices are farther from here than half the diameter.
    off = np.abs(second - third) + (second + third - second[far]) * 2
    fourth = distances(int(off.argmin()))
    sweeps = [int(sweep.max()) for sweep in (first, second, third, fourth)]
    longest, bound = max(sweeps), 2 * min(sweeps)
    return longest if longest >= bound or len(net.edges) == net.n - 1 else Between(longest, bound)


def edge_connectivity(net):
    """Return how many edges must fail to cut the graph in two; past MOST_CUTS vertices a Between, at most the least degree."""
    if net.n == 1:
        return None
    ends = net.edges.T if net.directed else [net.edges.ravel()]
    least = int(min(np.bincount(column, minlength=net.n).min() for column in ends))
    if least <= 1 or net.spec.partition(":")[0] in TRANSITIVE:
        return least
    if net.n > MOST_CUTS:
        return Between(1, least)
    import networkx as nx

    graph = nx.DiGraph(net.edges.tolist()) if net.directed else nx.Graph(net.edges.tolist())
    return nx.edge_connectivity(graph)


def _bytes(net, parameters):
    """Return what a round sends: rows, and their bytes where the length of a row is known; of a changing graph on average."""
    exchanges = [net.changing.at(k) for k in range(rates.exchanges(net))] if net.changing else [net.edges]
    sent = [np.bincount(edges[:, 0] if net.directed else edges.ravel(), minlength=net.n) for edges in exchanges]
    total, most = sum(int(s.sum()) for s in sent) / len(sent), max(int(s.max()) for s in sent)
    figures = {"rows_a_round": int(total) if total == int(total) else total, "rows_a_round_vertex_max": most}
    if parameters is not None:
        row = parameters * FLOAT32
        figures |= {"parameters": parameters, "bytes_a_round": total * row, "bytes_a_round_vertex_max": most * row}
    return figures


def parameters_of(model):
    """Return (parameters, shape of a sample in words) of a model by name, on the images that it is made for; loads torch."""
    from mpiconsensus import models

    own = {"digits-cnn": (1, 8, 8), "linear": (1, 8, 8), "logistic": (1, 8, 8), "mlp": (1, 8, 8), "fashion-cnn": (1, 28, 28)}
    foreign = model in models.torchvision_names() if model not in models.BUILT_IN and ":" not in model else False
    shape, classes = ((3, 224, 224), 1000) if foreign else (own.get(model, (3, 32, 32)), 10)
    if model in models.BUILT_IN and models.BUILT_IN[model].classes:
        classes = models.BUILT_IN[model].classes
    module = models.build(model, shape, classes)
    return sum(p.numel() for p in module.parameters()), f"{'x'.join(map(str, shape))} samples, {classes} classes"


def on_nodes(net, nodes, how):
    """Return (n,) the node of each vertex by a map of placement.map, one rank a node; UserError as mapping.plan, and for too many nodes."""
    if nodes > net.n:
        raise UserError(f"--nodes {nodes}: the graph has {net.n} vert{'ex' if net.n == 1 else 'ices'}; give at most as many nodes.")
    return mapping.plan(net, [1] * nodes, how)[1]


def crossing(net, node_of_vertex, parameters=None):
    """Return the figures of edges between nodes; `node_of_vertex` (n,) int. Of a changing graph those of the union."""
    crossed = mapping.crossing(net.edges, node_of_vertex, (parameters or 0) * FLOAT32, net.directed)
    figures = {"nodes": int(np.max(node_of_vertex)) + 1, "edges_crossing": crossed.edges}
    return figures if parameters is None else figures | {"bytes_a_round_crossing": crossed.bytes}


def words(figures):
    """Return the sentences that say what the figures mean."""
    second, rounds = figures["lambda_2"], figures["rounds_to_shrink_1000"]
    if figures["vertices"] == 1:
        return ["One vertex has nobody to agree with."]
    if figures.get("exact_after"):
        told = [f"All vertices agree exactly after {figures['exact_after']} exchanges."]
    elif second is None:
        told = ["How fast the vertices agree was not computed."]
    elif isinstance(second, Between):
        told = [f"In the long run a round leaves between {second.at_least:.6g} and {second.at_most:.6g} of the disagreement."]
    elif rounds is None:
        told = ["The vertices do not come to agree: repeated rounds do not shrink the disagreement."]
    elif rounds == 1:
        told = ["One round reaches the mean."]
    else:
        when = "in the long run and in the worst case" if figures["symmetric"] else "in the long run"
        told = [f"Each round leaves {_percent(second)} of the disagreement, {when}; {rounds:,} rounds shrink it 1000 times."]
    return told + [MEAN[figures["mean"]]]


def _percent(part):
    return f"{100 * part:.1f} %" if part < 0.999 else f"all but {100 * (1 - part):.2g} %"


MEAN = {
    "kept": "Every round keeps the mean.",
    "kept by the ratio": "Every round keeps the sum; the ratio x/w of push-sum comes to the mean.",
    "drifts": "The mean is not kept: the vertices agree on a weighted mean.",
}
