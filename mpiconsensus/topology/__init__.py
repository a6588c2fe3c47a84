"""Named graphs on the vertices 0..n-1, from spec strings such as `torus:6x6`.

A spec is `name:arguments`; FORMS lists the names. `net` also takes a spec without its size ("torus", "auto").
Graphs are simple and connected (directed ones strongly; those that change from exchange to exchange in their union); the
same (spec, seed) gives the same graph on every rank. networkx is loaded where a graph of its own is asked for or drawn.
"""

import numpy as np

from mpiconsensus.errors import UserError
from mpiconsensus.topology import files
from mpiconsensus.topology.changing import Matchings, OnePeerExponential, Sequence
from mpiconsensus.topology.connected import require_connected
from mpiconsensus.topology.draws import DRAWS
from mpiconsensus.topology.forms import DENSE_VERTICES, FORMS, MAX_EDGES, MAX_VERTICES, Form, canonical, numbers, require_dense, split
from mpiconsensus.topology.generators import GENERATORS, powers, shifts, simple
from mpiconsensus.topology.net import Net
from mpiconsensus.topology.sizes import auto, expand

__all__ = [
    "DENSE_VERTICES", "FORMS", "MAX_EDGES", "MAX_VERTICES", "Form", "Net", "auto", "build", "edges", "expand", "files",
    "net", "require_connected", "require_dense",
]  # fmt: skip


def net(spec, n, seed=0):
    """Return the Net of `spec`, which takes `n` vertices where it comes without its size; a local operation.

    `seed` matters for the forms that are `seeded`. Raises UserError for a spec that names no connected graph.
    """
    return _net(expand(spec, n), seed)


def build(spec, seed=0):
    """Return the graph of `spec` as networkx.Graph, DiGraph where it is directed, canonical spec under graph["spec"].

    Nodes and edges ascend; weights that a file gives are left out; a changing graph is its union. Errors as for `net`.
    """
    import networkx as nx

    made = _net(spec, seed)
    graph = nx.DiGraph() if made.directed else nx.Graph()
    graph.add_nodes_from(range(made.n))
    graph.add_edges_from(made.edges.tolist())
    graph.graph["spec"] = made.spec
    return graph


def edges(graph):
    """Return the edges of a networkx graph as int64 (m, 2), rows in lexicographic order; i < j but for a directed one's."""
    directed = graph.is_directed()
    pairs = sorted(tuple(e) if directed else (min(e), max(e)) for e in graph.edges())
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def _net(spec, seed):
    name, text = split(spec)
    if name == "file":
        made = files.read(_path(spec, name, text))
        require_connected(made)
        return made
    if name in ("sequence", "matchings"):
        return (_sequence if name == "sequence" else _matchings)(spec, text, seed)
    values = numbers(spec, name, text)
    if name == "one-peer-exponential":
        n = values[0]
        return Net(canonical(name, values), n, shifts(n, powers(n), directed=True), directed=True, changing=OnePeerExponential(n))
    n, made = GENERATORS[name](spec, values) if name in GENERATORS else DRAWS[name](spec, values, seed)
    return Net(canonical(name, values), n, made, directed=FORMS[name].directed)


def _path(spec, name, text):
    if not text:
        raise UserError(f"graph {spec!r}: {name} takes {FORMS[name].takes}, for example file:graph.txt (an edge list, 'i j' a line).")
    return text


def _matchings(spec, text, seed):
    if not text:
        raise UserError(f"graph {spec!r}: matchings takes {FORMS['matchings'].takes}, for example {FORMS['matchings'].example}.")
    base = _net(text, seed)
    if base.directed or base.changing:
        kind = "changes itself" if base.changing else "is directed"
        raise UserError(f"graph {spec!r}: {base.spec} {kind}; matchings are of an undirected graph that stays, e.g. matchings:torus:6x6.")
    return Net(f"matchings:{base.spec}", base.n, base.edges, changing=Matchings(base.n, base.edges, seed))


def _sequence(spec, text, seed):
    paths = [_path(spec, "sequence", path.strip()) for path in text.split(",")]
    nets = [files.read(path) for path in paths]
    for path, other in zip(paths, nets):
        if other.n != nets[0].n:
            raise UserError(
                f"graph {spec!r}: {path} has {other.n} vertices, {paths[0]} {nets[0].n}; the graphs of a sequence have the same: "
                "an edge list says so at its top, e.g. '# vertices 4'."
            )
        if other.directed != nets[0].directed:
            kinds = ("directed", "undirected") if other.directed else ("undirected", "directed")
            raise UserError(f"graph {spec!r}: {path} is {kinds[0]}, {paths[0]} {kinds[1]}; make all of one kind.")
    union = simple(nets[0].n, *np.concatenate([one.edges for one in nets]).T, nets[0].directed)
    made = Net(f"sequence:{','.join(paths)}", nets[0].n, union, nets[0].directed, changing=Sequence([one.edges for one in nets]))
    require_connected(made)
    return made
