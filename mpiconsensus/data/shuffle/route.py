"""What one rank sends, receives and copies in an exchange of samples, and in which step: pure functions.

Array legend: n vertices, N slots (see plan), R samples that arrive at a rank.
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np


class Route(NamedTuple):
    """origin, target: (R,) slots that the samples arriving at a rank come from and go to, rank by rank, then by ascending origin.

    pieces: [Piece] in the order in which they start.
    """

    origin: np.ndarray
    target: np.ndarray
    pieces: list


class Piece(NamedTuple):
    """Samples that move together. peer: the other rank, this one where they are copied; due: step of the epoch, from 0.

    Of those that arrive (sends is False) `part` is their slice of the route's arrays; of those that leave, origin and target
    are their slots.
    """

    due: int
    peer: int
    sends: bool
    part: slice
    origin: np.ndarray
    target: np.ndarray


def route(source, vertex_of, owner, rank, ranks, most, steps):
    """Return the Route of `rank`: slot s gets the sample of slot source[s]; (N,) int64.

    vertex_of: (N,) vertex of a slot; owner: (n,) rank of a vertex. A piece has at most `most` samples; those between two
    ranks are spread evenly over `steps` steps. Both ends of a message make the same of it, in the same order.
    """
    moved = np.flatnonzero(source != np.arange(len(source)))
    origin = source[moved]
    start, end = owner[vertex_of[origin]], owner[vertex_of[moved]]
    pieces = []
    for sends, here in ((False, end == rank), (True, (start == rank) & (end != rank))):
        peer = (end if sends else start)[here]
        order = np.lexsort((origin[here], peer))
        slots = origin[here][order], moved[here][order]
        if not sends:
            arriving = slots
        bounds = np.searchsorted(peer[order], np.arange(ranks + 1)).tolist()
        for other, (first, last) in enumerate(pairwise(bounds)):
            # Every pair of ranks has a phase of its own: no step has to carry the first piece of all.
            phase = ((other - rank) if sends else (rank - other)) % ranks
            count = -(-(last - first) // most)
            for c in range(count):
                part = slice(first + c * (last - first) // count, first + (c + 1) * (last - first) // count)
                due = (c * ranks + phase) * steps // (count * ranks)
                pieces.append(Piece(due, other, sends, part, slots[0][part], slots[1][part]))
    # Receives first: a message that finds its place waiting for it is not kept elsewhere.
    return Route(*arriving, sorted(pieces, key=lambda piece: (piece.due, piece.sends)))
