"""Consensus alone: random values mixed round after round, their disagreement measured.

    X_{t+1} = W_t X_t,   disagreement_t = ||X_t - x_bar||_F / ||X_0 - x_bar||_F

X_0 (n, d) is standard normal from the seed, float64; x_bar is the mean of X_0. With push-sum weights (columns sum to 1, rows
need not) it is the ratio x/w that is measured: w starts as ones and is mixed as x is (Kempe, Dobra, Gehrke, "Gossip-based
computation of aggregate information", FOCS 2003). Where the mean drifts, x_bar is the mean of X_t.
No array n x n is needed. numpy and, to write, h5py.
"""

from typing import NamedTuple

import numpy as np

from mpiconsensus import outputs
from mpiconsensus.randomness import generator
from mpiconsensus.survey import rates, sparse

FORMAT, VERSION = "mpiconsensus simulate", 1


class Curve(NamedTuple):
    """A simulated graph. disagreement: (K + 1,) from round 0. lambda_2: |lambda_2|, None where it is not known; of a
    changing graph its measured factor an exchange. mean: what becomes of the mean, as rates.mean_of says."""

    spec: str
    weights: str
    n: int
    seed: int
    dimension: int
    lambda_2: float | None
    mean: str
    disagreement: np.ndarray

    @property
    def bound(self):
        """|lambda_2|^t of the rounds t, (K + 1,): an upper bound where W is symmetric."""
        return None if self.lambda_2 is None else self.lambda_2 ** np.arange(len(self.disagreement))


def simulate(net, method, rounds, seed=0, dimension=1):
    """Return the Curve of `rounds` rounds on a Net; UserError where the graph does not allow the method."""
    figures = rates.of_changing(net, method) if net.changing else rates.of_constant(net, method)
    second = figures["lambda_2"] if isinstance(figures["lambda_2"], float) else None
    fixed = None if net.changing else sparse.of(net, method)
    x = generator(seed, "consensus").standard_normal((net.n, dimension))
    w, mean = np.ones((net.n, 1)), x.mean(axis=0)
    distance = np.empty(rounds + 1)
    distance[0] = np.linalg.norm(x - mean)
    for t in range(rounds):
        W = fixed or sparse.at(net, method, t)
        x, w = W.apply(x), W.apply(w)
        ratio = x / w if figures["mean"] == "kept by the ratio" else x
        distance[t + 1] = np.linalg.norm(ratio - (ratio.mean(axis=0) if figures["mean"] == "drifts" else mean))
    disagreement = distance / (distance[0] or 1.0)
    return Curve(net.spec, method, net.n, seed, dimension, second, figures["mean"], disagreement)


def save(path, curves):
    """Write the curves as HDF5, a group each; h5py."""
    import h5py

    def write(aside):
        with h5py.File(aside, "w", locking="best-effort") as file:
            file.attrs["format"], file.attrs["format_version"] = FORMAT, VERSION
            for name, curve in zip(group_names(curves), curves, strict=True):
                group = file.create_group(name)
                facts = {"spec": curve.spec, "weights": curve.weights, "vertices": curve.n, "seed": curve.seed, "mean": curve.mean}
                group.attrs.update(facts | {"dimension": curve.dimension})
                if curve.lambda_2 is not None:
                    group.attrs["lambda_2"] = curve.lambda_2
                _column(group, "round", np.arange(len(curve.disagreement)), "rounds", "rounds since the start")
                _column(group, "disagreement", curve.disagreement, "1", "||X_t - x_bar||_F / ||X_0 - x_bar||_F, measured")
                if curve.bound is not None:
                    _column(group, "bound", curve.bound, "1", "|lambda_2|^t")

    outputs.put(path, write)


def _column(group, name, values, unit, description):
    dataset = group.create_dataset(name, data=values)
    dataset.attrs["unit"], dataset.attrs["description"] = unit, description


def group_names(curves):
    """Return the names of the groups: the spec without slashes, numbered where two are alike."""
    plain = [curve.spec.replace("/", "_") for curve in curves]
    return [name if plain.index(name) == i else f"{name} ({i})" for i, name in enumerate(plain)]


def table(curves, rows=8):
    """Return (heads, rows of text) of the curves at some rounds: measured beside |lambda_2|^t."""
    last = len(curves[0].disagreement) - 1
    shown = np.unique(np.round(np.linspace(0, last, min(rows, last) + 1)).astype(int))
    heads = ["round", *(head for curve in curves for head in (curve.spec, "|lambda_2|^t"))]
    columns = [column for curve in curves for column in (curve.disagreement, curve.bound)]
    return heads, [[str(t), *("-" if c is None else f"{c[t]:.3g}" for c in columns)] for t in shown]
