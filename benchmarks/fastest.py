"""Fastest weights against the same programme written plainly in cvxpy, in turn in one run; and a large graph.

    pip install cvxpy
    python benchmarks/fastest.py [--repeats 5] [--small 50,250] [--large 1000,3000]

Both sides get the same random connected graph and start from nothing: no cache, no closed form. A bound of the true optimum,
from our certificate, tells how near each comes. The large graph is solved by us alone, to a certified gap.
"""

import statistics
import time
from functools import partial

import click
import numpy as np

from mpiconsensus import topology
from mpiconsensus.weights import fastest
from mpiconsensus.weights.interior import laplacian


def plain(n, edges, **options):
    """Return the weights by cvxpy: the least spectral norm of W - J over symmetric W on the graph with rows that sum to 1."""
    import cvxpy as cp

    W = cp.Variable((n, n), symmetric=True)
    off = np.ones((n, n)) - np.eye(n)
    off[edges[:, 0], edges[:, 1]] = off[edges[:, 1], edges[:, 0]] = 0
    ones = np.ones(n)
    problem = cp.Problem(cp.Minimize(cp.sigma_max(W - np.ones((n, n)) / n)), [cp.multiply(off, W) == 0, W @ ones == ones])
    problem.solve(solver=cp.SCS, **options)
    return W.value[edges[:, 0], edges[:, 1]]


def connected(n, m):
    """Return (n, edges) of a random tree with random chords: uniform graphs with few edges are seldom connected."""
    rng = np.random.default_rng(0)
    edges = {(int(rng.integers(j)), j) for j in range(1, n)}
    while len(edges) < m:
        i, j = sorted(rng.integers(n, size=2).tolist())
        if i < j:
            edges.add((i, j))
    return n, np.array(sorted(edges), dtype=np.int64)


def timed(work):
    start = time.perf_counter()
    return work(), time.perf_counter() - start


@click.command()
@click.option("--repeats", default=5)
@click.option("--small", default="50,250")
@click.option("--large", default="1000,3000", help="empty: none")
def main(repeats, small, large):
    graph = topology.build(f"random:{small}")
    n, edges = len(graph), topology.edges(graph)
    plain(3, np.array([[0, 1], [1, 2]]))  # imports are not timed
    times = {"ours": [], "cvxpy, SCS": []}
    for _ in range(repeats):
        ours, seconds = timed(lambda: fastest.solve(n, edges, "fastest"))
        times["ours"].append(seconds)
        theirs, seconds = timed(lambda: plain(n, edges))
        times["cvxpy, SCS"].append(seconds)
    values = {"ours": ours.value, "cvxpy, SCS": np.linalg.norm(np.eye(n) - 1 / n - laplacian(n, edges, theirs), 2)}
    for name, found in times.items():
        print(f"{name:11} {statistics.median(found):8.3f} s, |lambda_2| at most {values[name] - ours.bound:.1e} above the optimum")
    ratios = [b / a for a, b in zip(*times.values(), strict=True)]
    print(f"random:{small}, cvxpy / ours, median of {repeats}: {statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})")
    if large:
        n, edges = connected(*map(int, large.split(",")))
        for method in fastest.METHODS:
            found, seconds = timed(partial(fastest.solve, n, edges, method))
            print(f"n = {n}, m = {len(edges)}, {method:20} {seconds:6.1f} s, {found.steps} steps, certified gap {found.gap:.1e}")


main()
