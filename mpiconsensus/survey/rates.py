"""How fast weights bring the vertices to agree: figures of a W, of one that is not symmetric, of one that changes.

The disagreement is ||X - x_bar||_F. J = 11'/n. Where columns but not rows sum to 1 (push-sum) the ratio x/w is what
agrees, so that a product P of such W stands for diag(P 1)^-1 P.
"""

import math
from typing import NamedTuple

import numpy as np

from mpiconsensus import weights
from mpiconsensus.survey import sparse, spectrum

# A changing graph is measured over whole periods, these exchanges or more.
EXCHANGES = 200
# The general eigenvalue solver takes seconds here; a product of many W as well.
MOST_GENERAL = 1000
SHRINK = 1000.0
# A solver's 0 and 1, and sums that are 1 to rounding.
ROUNDING = 1e-12
SUMS = 1e-9
# A product of W is taken no closer to J than this: what rounding leaves of it would tell no rate.
SMALL = 1e-6


class Between(NamedTuple):
    """A figure of which only bounds are known."""

    at_least: float
    at_most: float


def figure(found):
    """Return the number of a spectrum.Found, or a Between."""
    return float(found.value) if found.value is not None else Between(float(found.low), float(found.high))


def of_constant(net, method, ends=None):
    """Return {figure: value} of the W of a Net that does not change; `ends` as spectrum.laplacian returns them."""
    mixing = sparse.of(net, method)
    figures = {"symmetric": mixing.edge_weight is not None}
    if net.n == 1:
        figures |= {"lambda_2": 0.0, "spectral_gap": 1.0, "rounds_to_shrink_1000": 0}
    elif figures["symmetric"]:
        gap = figure(spectrum.gap(net, mixing, ends))
        bounds = isinstance(gap, Between)
        figures["lambda_2"] = Between(1 - gap.at_most, 1 - gap.at_least) if bounds else abs(1 - gap)
        figures |= {"spectral_gap": gap, "rounds_to_shrink_1000": _rounds_between(gap) if bounds else rounds_to_shrink(gap)}
    else:
        figures |= _general(mixing)
    edge = mixing.weight[mixing.index != mixing.receivers]
    negative = int((edge < -SUMS).sum()) // (2 if figures["symmetric"] else 1)
    figures |= {"smallest_weight": float(mixing.weight.min()), "smallest_edge_weight": float(edge.min()) if len(edge) else None}
    return figures | {"negative_edges": negative, "mean": mean_of([mixing])}


def _general(mixing):
    """Return the figures of a W that is not symmetric: the modulus tells the long run, a singular value one round."""
    if mixing.n > MOST_GENERAL:
        return dict.fromkeys(("lambda_2", "spectral_gap", "rounds_to_shrink_1000", "single_round_factor"))
    W = mixing.dense()
    # Rows or columns sum to 1, so that taking J away takes the eigenvalue 1 away and leaves the others.
    second = float(np.abs(np.linalg.eigvals(W - 1 / mixing.n)).max())
    gap = 1 - second
    return {"lambda_2": second, "spectral_gap": gap, "rounds_to_shrink_1000": rounds_to_shrink(gap), "single_round_factor": shrinking(W)}


def shrinking(P):
    """Return the largest factor by which x -> P x, or its ratio, multiplies a disagreement: ||(I - J) P||_2."""
    P = P / P.sum(axis=1, keepdims=True)
    return float(np.linalg.norm(P - P.mean(axis=0), 2))


def of_changing(net, method):
    """Return {figure: value} of a Net that changes, measured over whole periods: EXCHANGES or more, fewer where they agree before.

    lambda_2 is the factor an exchange: the worst disagreement that is left after all of them to the power 1/R.
    exact_after: exchanges after which all vertices agree exactly, None where they only come closer.
    """
    weights.require(net, method)
    count = exchanges(net)
    figures = dict.fromkeys(("lambda_2", "spectral_gap", "rounds_to_shrink_1000", "exact_after"))
    figures |= {"symmetric": False, "exchanges": count, "period": net.changing.period}
    rounds = [sparse.at(net, method, k) for k in range(net.changing.period or count)]
    figures |= {"smallest_weight": float(min(r.weight.min() for r in rounds)), "mean": mean_of(rounds)}
    if net.n > MOST_GENERAL:
        return figures
    P, left, k = np.eye(net.n), math.sqrt(net.n), 0
    while k < count and (left > SMALL or k % (net.changing.period or 1)):
        P = rounds[k % len(rounds)].apply(P)
        k, before, left = k + 1, left, _distance(P)
        if before > SMALL and left < ROUNDING * net.n:  # a fall like this is the end, not a rate
            return figures | {"lambda_2": 0.0, "spectral_gap": 1.0, "rounds_to_shrink_1000": k, "exchanges": k, "exact_after": k}
    second = shrinking(P) ** (1 / k)
    return figures | {"lambda_2": second, "spectral_gap": 1 - second, "rounds_to_shrink_1000": rounds_to_shrink(1 - second), "exchanges": k}


def average(net, method):
    """Return the (n, n) average of the W of a Net that changes over its period, or over the first EXCHANGES."""
    count = net.changing.period or EXCHANGES
    return sum(sparse.at(net, method, k).dense() for k in range(count)) / count


def _distance(P):
    P = P / P.sum(axis=1, keepdims=True)
    return float(np.linalg.norm(P - P.mean(axis=0)))


def exchanges(net):
    """Return over how many exchanges a changing Net is measured."""
    period = net.changing.period or 1
    return period * math.ceil(EXCHANGES / period)


def rounds_to_shrink(gap):
    """Return after how many rounds at the rate 1 - gap the disagreement is 1000 times smaller; None: never."""
    if gap is None or gap < ROUNDING:
        return None
    if gap > 1 - ROUNDING:
        return 1
    return math.ceil(math.log(SHRINK) / -math.log1p(-gap) * (1 - ROUNDING))


def _rounds_between(gap):
    return Between(rounds_to_shrink(gap.at_most), rounds_to_shrink(gap.at_least) or math.inf)


def mean_of(rounds):
    """Return what becomes of the mean under Mixings: "kept", "kept by the ratio" (push-sum) or "drifts"."""
    columns, rows = (all(np.abs(r.sums(axis) - 1).max() < SUMS for r in rounds) for axis in (0, 1))
    if columns:
        return "kept" if rows else "kept by the ratio"
    return "drifts"
