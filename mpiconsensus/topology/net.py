"""A graph as arrays: what ranks, weights and schedules need of it, without networkx."""

from typing import NamedTuple

import numpy as np


class Net(NamedTuple):
    """A graph on the vertices 0..n-1.

    spec: canonical. edges: (m, 2) int64, rows in lexicographic order; undirected: i < j; directed: arcs (sender,
    receiver), which stand in row `receiver` of W. given: (m,) float64 weights that the graph's file gives the edges,
    given_diagonal: (n,) float64 weights of the vertices themselves; None where it gives none.
    changing: None, or the sequence of graphs: `changing.at(k)` are the edges of the k-th exchange, a pure function of
    (seed, k) that needs no networkx; `changing.period`: exchanges after which it comes again, None: never. `edges` is
    then the union over all k.
    """

    spec: str
    n: int
    edges: np.ndarray
    directed: bool = False
    given: np.ndarray | None = None
    given_diagonal: np.ndarray | None = None
    changing: object = None
