"""The mixing weights by name: what each is and which graphs it is for."""

from typing import NamedTuple

from mpiconsensus.errors import UserError, require_choice


class Method(NamedTuple):
    """kinds: of "undirected", "directed", "changing"; changing ones need both their direction and "changing"."""

    meaning: str
    kinds: tuple


BOTH = ("undirected", "directed")
METHODS = {
    "uniform": Method("each vertex takes the plain mean of itself and its in-neighbours; keeps the mean on regular graphs only", (*BOTH, "changing")),
    "lazy": Method("1 / (2 max(d_i, d_j)): every vertex keeps at least half of its own", ("undirected", "changing")),
    "max-degree": Method("1 / (1 + d_max) on every edge", ("undirected", "changing")),
    "metropolis": Method("1 / (1 + max(d_i, d_j)): from the degrees of the neighbours alone", ("undirected", "changing")),
    "best-constant": Method("one weight for all edges, that with the least |lambda_2|; the diagonal can be negative", ("undirected",)),
    "fastest": Method("the symmetric weights with the least |lambda_2|; they can be negative", ("undirected",)),
    "fastest-nonnegative": Method("the same among weights of at least 0", ("undirected",)),
    "fastest-laplacian": Method("the weights whose Laplacian has the largest lambda_2 for their sum, scaled best", ("undirected",)),
    "push-sum": Method("column-stochastic: each vertex divides itself evenly between itself and its out-neighbours", (*BOTH, "changing")),
    "file": Method("those that the graph's file gives its edges; file:PATH: a matrix (.npy, .csv) or a weighted graph file", BOTH),
}


def allowed(net):
    """Return the names of the methods that suit the Net."""
    needed = {"directed" if net.directed else "undirected"} | ({"changing"} if net.changing is not None else set())
    return [name for name, method in METHODS.items() if needed <= set(method.kinds)]


def require(net, method):
    """Return (name, path) of a method that suits the Net, the path of "file:PATH" or ""; else raise UserError."""
    name, colon, path = method.partition(":")
    if name != "file" or (colon and not path):
        name, path = method, ""
    require_choice("topology.weights", name, METHODS)
    if name not in allowed(net):
        kind = " ".join(word for word, holds in (("changing", net.changing is not None), ("directed", net.directed)) if holds) or "undirected"
        raise UserError(f"topology.weights = {method!r} is not for a {kind} graph ({net.spec}); choose one of {', '.join(allowed(net))}.")
    return name, path
