"""Search for a small graph whose fastest weights are negative somewhere and mix at least 1 % faster than the best of at least 0.

    python jobs/graphs/search.py [--vertices 12] [--least -0.05] [--gain 0.01]

Tries cliques joined in a row: the bridges (edges between neighbouring cliques) that the two neighbours put on the same or on
other vertices. Prints what passes, fewest edges first: edges, the two values, the smallest edge weight.
"""

import itertools

import click
import numpy as np

from mpiconsensus.weights import fastest


def chains(n):
    """Yield (sizes, bridges, edges) of rows of two to four cliques on n vertices; a bridge joins the ends of two cliques."""
    for parts in (2, 3, 4):
        for sizes in itertools.product(range(1, n - 1), repeat=parts):
            if sum(sizes) != n or sizes > sizes[::-1]:
                continue
            starts = np.cumsum([0, *sizes])
            cliques = {e for a, b in itertools.pairwise(starts) for e in itertools.combinations(range(a, b), 2)}
            for width in itertools.product((1, 2, 3), repeat=parts - 1):
                bridges = set()
                for k, wide in enumerate(width):
                    left, right = range(starts[k], starts[k + 1])[-wide:], range(starts[k + 1], starts[k + 2])[:wide]
                    bridges |= set(itertools.product(left, right))
                yield sizes, width, np.array(sorted(cliques | bridges), dtype=np.int64)


@click.command()
@click.option("--vertices", default=12)
@click.option("--least", default=-0.05)
@click.option("--gain", default=0.01)
def main(vertices, least, gain):
    found = []
    for sizes, width, edges in chains(vertices):
        best = fastest.solve(vertices, edges, "fastest")
        if best.weights.min() > least:
            continue
        other = fastest.solve(vertices, edges, "fastest-nonnegative")
        if other.bound * (1 - gain) >= best.value:
            found.append((len(edges), sizes, width, best.value, other.value, best.weights.min()))
    for size, cliques, bridges, best, other, smallest in sorted(found):
        print(
            f"{size} edges, cliques of {cliques}, bridges of {bridges}: "
            f"fastest {best:.4f}, nonnegative {other:.4f}, smallest weight {smallest:.4f}"
        )


main()
