"""Compressors: maps of vectors onto messages of fewer bits. `make` reads a spec such as top-k:0.01 or top-k:22+power-of-two."""

import re

import numpy as np

from mpiconsensus.compress.base import Compressor
from mpiconsensus.compress.identity import Identity
from mpiconsensus.compress.importance import Greedy, GreedyWeighted, Importants, Stochastic, WeightedGreedy
from mpiconsensus.compress.lowrank import SVD, PivotedQR, PowerStep, RandomisedSVD, Subspace, matrix_shape
from mpiconsensus.compress.powers import Natural, PowerOfTwo, PowerOfTwoLog
from mpiconsensus.compress.quantise import QSGD, Bfloat, Half, Sign, TernGrad
from mpiconsensus.compress.sparse import RandK, RandKUnbiased, TopK
from mpiconsensus.errors import UserError, did_you_mean

__all__ = ["REGISTRY", "Compressor", "examples", "make", "parse"]

WEIGHTED = (Importants, Stochastic, Greedy, GreedyWeighted, WeightedGreedy)
SPARSE = (TopK, RandK, RandKUnbiased, *WEIGHTED)
LOW_RANK = (SVD, RandomisedSVD, PowerStep, PivotedQR, Subspace)
VALUES = (Natural, PowerOfTwo, PowerOfTwoLog, TernGrad, Sign, Half, Bfloat)
PLAIN = (Identity, *VALUES)
REGISTRY = {cls.name: cls for cls in (Identity, *SPARSE, *LOW_RANK, *VALUES, QSGD)}


def parse(spec):
    """Return (class, number or None, class of the compressor of the values kept or None) of a spec; UserError for a wrong one.

    NAME:K or NAME:SHARE for those that keep k elements, NAME:R for those of rank r, qsgd:S, else NAME; behind a plus the
    compressor of the values that a sparse one keeps.
    """
    head, plus, inner = spec.partition("+")
    name, colon, number = head.partition(":")
    if name not in REGISTRY:
        raise UserError(f"compressor {name!r} in {spec!r} is not known; choose one of {', '.join(REGISTRY)}.{did_you_mean(name, REGISTRY)}")
    cls = REGISTRY[name]
    values = None
    if plus:
        if cls not in SPARSE or inner not in {c.name for c in VALUES}:
            raise UserError(
                f"compressor {spec!r}: behind the plus stands what is done with the values that {', '.join(c.name for c in SPARSE)} keep: "
                f"{', '.join(c.name for c in VALUES)}."
            )
        values = REGISTRY[inner]
    if cls in PLAIN:
        if colon:
            raise UserError(f"compressor {spec!r}: {name} takes no number; write {name}.")
        return cls, None, values
    what = (
        "how many elements are kept: a share above 0 up to 1 with a point, or a whole number"
        if cls in SPARSE
        else "a whole number of at least 1"
    )
    whole = re.fullmatch(r"[1-9]\d*", number)
    share = cls in SPARSE and re.fullmatch(r"\d*\.\d+", number) and 0 < float(number) <= 1
    if not (whole or share):
        raise UserError(f"compressor {spec!r}: behind {name}: stands {what}; for example {name}:{'0.01' if cls in SPARSE else '4'}.")
    if cls is QSGD and int(number) > QSGD.MOST:
        raise UserError(f"compressor {spec!r}: give at most {QSGD.MOST} levels, which are more than a float32 tells apart; for example {name}:16.")
    return cls, int(number) if whole else float(number), values


def examples():
    """Return a spec of every compressor."""
    numbers = {**dict.fromkeys(SPARSE, ":0.01"), **dict.fromkeys(LOW_RANK, ":4"), QSGD: ":16"}
    return [name + numbers.get(cls, "") for name, cls in REGISTRY.items()]


def make(spec, d, dtype=np.float32, shape=None, clip=False):
    """Return the Compressor that `spec` names, for vectors of d elements; UserError where it cannot be.

    clip: where k of d < k elements are to be kept, keep all; where a rank is above that of the matrix, take that of the matrix.
    """
    cls, number, inner = parse(spec)
    if cls in SPARSE:
        k = number if isinstance(number, int) else max(1, round(number * d))
        k = min(k, d) if clip else k
        if k > d:
            raise UserError(f"compressor {spec!r} keeps {k} of {d} elements; give at most {d}, or a share such as {cls.name}:0.01.")
        if inner and cls.unbiased and not inner.unbiased:
            raise UserError(f"compressor {spec!r}: {inner.name} is not unbiased, {cls.name} is; take natural, or rand-k.")
        return cls(d, dtype, shape, k=k, inner=inner)
    if cls in LOW_RANK:
        sides = matrix_shape(d, shape)
        if number > min(sides) and not clip:
            raise UserError(f"compressor {spec!r}: {d} elements are a matrix of {sides[0]} x {sides[1]} here; give a rank of at most {min(sides)}.")
        return cls(d, dtype, shape, r=number)
    if cls is QSGD:
        return cls(d, dtype, shape, s=number)
    return cls(d, dtype, shape)
