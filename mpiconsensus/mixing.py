"""A round on the rows of a rank, and its arithmetic: rows summed in ascending vertex order, in pieces that fit the cache.

The edges of the pieces are fixed and the same for all transports and placements: vector bodies use fused
multiply-adds and tails need not, so the same edges are what makes the sums equal bit for bit.
"""

import time

import torch

# 65,536 float32 are 256 KiB: the piece being summed stays in the second-level cache while the terms stream by.
PIECE = 65536


def combine(out, terms):
    """Write sum of weight * row over `terms` into `out`; terms is a list of (weight, row), ascending by vertex.

    out and rows: (d,) tensors of one dtype; out must not be one of the rows. Local.
    """
    length = out.numel()
    step = PIECE if out.device.type == "cpu" else length
    pieces = [row.split(step) for _, row in terms]
    first, rest = terms[0][0], [weight for weight, _ in terms[1:]]
    for piece, terms_of_piece in zip(out.split(step), zip(*pieces), strict=True):
        torch.mul(terms_of_piece[0], first, out=piece)
        for term, weight in zip(terms_of_piece[1:], rest, strict=True):
            piece.add_(term, alpha=weight)


def run_round(exchange, rows, hosted, round_, started=False):
    """Run one round on the Rows of the hosted vertices, and return (waiting, mixing) in seconds; collective.

    started: exchange.start(round_) was called before, to hide the exchange behind other work.
    """
    begin = time.perf_counter()
    if not started:
        exchange.start(round_)
    row = exchange.finish()
    arrived = time.perf_counter()
    waited = 0.0
    mine = [(i, round_.rows[v]) for i, v in enumerate(hosted) if v in round_.rows]
    for i, (indices, weights) in mine:
        since = time.perf_counter()
        exchange.writable(i)
        waited += time.perf_counter() - since
        combine(rows.other(i), [(w, row(j)) for j, w in zip(indices.tolist(), weights.tolist())])
    mixed = time.perf_counter()
    exchange.release()
    for i, _ in mine:
        rows.flip(i)
    wait_s = arrived - begin + waited + (time.perf_counter() - mixed)
    return wait_s, mixed - arrived - waited


def distances(rows, mean):
    """Return (m, 3) float64: the L1, L2 and Linf norms of each row minus `mean`; summed in float64."""
    out = torch.empty((len(rows), 3), dtype=torch.float64)
    for i, row in enumerate(rows):
        deviation = (row - mean).double()
        out[i, 0] = deviation.abs().sum()
        out[i, 1] = deviation.square().sum().sqrt()
        out[i, 2] = deviation.abs().max()
    return out.numpy()
