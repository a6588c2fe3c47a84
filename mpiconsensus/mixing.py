"""A round on the rows of a rank, and its arithmetic: rows blended one after the other, in an order that W alone gives."""

import time
from typing import NamedTuple

import torch

from mpiconsensus.blending import prepare
from mpiconsensus.pieces import pieces


class Sums:
    """Interpolations of rows, [(out, terms)] with terms [(row, share)], to be run as often as rows lie where they lie.

    out and rows: as `pieces` gives them; out must not be one of the rows of any of the sums. Local.
    stream: write past the caches where that can be said, see `blending`.
    """

    def __init__(self, sums, stream=False):
        self._sums = sums
        self._compiled = prepare(sums, stream)

    def run(self):
        if self._compiled:
            self._compiled()
            return
        # The first piece of all sums comes first: rows that several sums read are in the cache by then.
        for piece in range(len(self._sums[0][0]) if self._sums else 0):
            for out, ((first, _), *rest) in self._sums:
                total = out[piece]
                if not rest:
                    total.copy_(first[piece])
                    continue
                (second, share), *rest = rest
                torch.lerp(first[piece], second[piece], share, out=total)
                for row, share in rest:
                    total.lerp_(row[piece], share)


class Times(NamedTuple):
    """Seconds of a round: waited for others, spent on the sums, and hidden behind other work between start and finish."""

    wait_s: float
    mix_s: float
    hidden_s: float


def run_round(exchange, rows, round_, started=False):
    """Run one round on the Rows of the hosted vertices and return its Times; collective.

    started: exchange.start(round_) was called before, to hide the exchange behind other work.
    """
    begin = time.perf_counter()
    if not started:
        exchange.start(round_)
    row = exchange.arrive()
    part = exchange.part(round_)
    for i in part.written:
        exchange.writable(i)
    standing = part.standing(exchange.sides)
    sums = part.sums.get(standing)
    if sums is None:
        blends = [(i, round_.blends[exchange.placement.hosted[i]]) for i in part.written]
        sums = Sums([(rows.next_pieces(i), [(row(j), share) for j, share in shares]) for i, shares in blends], exchange.stream)
        part.keep(standing, sums)
    arrived = time.perf_counter()
    sums.run()
    mixed = time.perf_counter()
    exchange.release()
    exchange.flip(round_.vertices, part.written)
    return Times(arrived - begin + time.perf_counter() - mixed, mixed - arrived, exchange.hidden_s if started else 0.0)


def run_delayed(exchange, rows, late, next_):
    """Mix with the round `late`, started a step ago, and start `next_`; either may be None; returns the Times; collective.

        x_i <- y_i + sum_j (W - I)[i,j] y'_j      y: the rows as they are, y': the rows that `late` was started with

    Rows that `next_` hands out stay as they are for its readers: their vertices go on in the next buffer.
    """
    begin = time.perf_counter()
    index, sums, moving, hidden_s = exchange.placement.index, [], set(), 0.0
    if late:
        row = exchange.arrive()
        hidden_s = exchange.hidden_s
        moving.update(late.vertices)
        for vertex, shares in late.late_blends.items():
            if vertex in index:
                exchange.writable(index[vertex])
                own = pieces(rows.x(index[vertex]))
                sums.append((rows.next_pieces(index[vertex]), [(own, 1.0), *((row(j), share) for j, share in shares)]))
    arrived = time.perf_counter()
    Sums(sums, exchange.stream).run()
    mixed = time.perf_counter()
    if late:
        exchange.release()
    if next_:
        exchange.start(next_)
        for vertex in next_.readers.keys() | next_.rows.keys():
            if vertex in index and vertex not in moving:
                exchange.writable(index[vertex])
                rows.other(index[vertex]).copy_(rows.x(index[vertex]))
            moving.add(vertex)
    exchange.flip(moving, [i for i, vertex in enumerate(exchange.placement.hosted) if vertex in moving])
    return Times(arrived - begin + time.perf_counter() - mixed, mixed - arrived, hidden_s)


def distances(rows, mean):
    """Return (m, 3) float64: the L1, L2 and Linf norms of each row minus `mean`; summed in float64."""
    out = torch.empty((len(rows), 3), dtype=torch.float64)
    for i, row in enumerate(rows):
        deviation = (row - mean).double()
        out[i, 0] = deviation.abs().sum()
        out[i, 1] = deviation.square().sum().sqrt()
        out[i, 2] = deviation.abs().max()
    return out.numpy()
