"""Which rank hosts which vertex: contiguous blocks, as even as they go."""

import numpy as np

from mpiconsensus.errors import UserError


class Placement:
    """n vertices on `ranks` ranks; this rank is `rank`.

    owner: (n,) rank of each vertex. hosted: ascending vertices of this rank. counts: vertices of each rank.
    """

    def __init__(self, n, ranks=1, rank=0):
        if ranks > n:
            raise UserError(
                f"{ranks} ranks were started for a graph of {n} vert{'ex' if n == 1 else 'ices'}; a rank hosts at least one: "
                f"start at most {n} ranks (mpirun -n {n}) or choose a larger graph (--set topology.graph=ring:{ranks})."
            )
        self.n, self.ranks, self.rank = n, ranks, rank
        self.counts = [n // ranks + (r < n % ranks) for r in range(ranks)]
        self.owner = np.repeat(np.arange(ranks), self.counts)
        first = sum(self.counts[:rank])
        self.hosted = list(range(first, first + self.counts[rank]))
        self.index = {vertex: i for i, vertex in enumerate(self.hosted)}
