"""What traffic.py draws against bits: the squared norm of the mean gradient, and when it fell below a level.

The bits of a step are those of the formulas of the literature, of a vertex's messages, each counted once whatever its
receivers, mean over the vertices. Those of the first step do not count: some methods send gradients as they are there.
"""

import numpy as np

from analysis import pictures
from mpiconsensus.errors import UserError

LEVELS = (1e-2, 1e-4, 1e-6)
POINTS = 400  # of a line, evenly over its logarithm


def steps(run, name, relative=False):
    """Return {step, bits, gradient} of a run, arrays (K,): bits a vertex since the first step, |mean gradient|^2 or None.

    relative: the gradient's is divided by that of the first step.
    """
    bits = run.steps("bits_formula").mean(axis=1) if run.has("steps", "bits_formula") else np.array([np.nan])
    if np.isnan(bits).all():
        raise UserError(f"run {name!r} compresses nothing, so that no formula counts its bits; leave it out, or take --x bytes.")
    gradient = run.steps("gradient_norm") ** 2 if run.has("steps", "gradient_norm") else None
    if gradient is not None and np.isnan(gradient).all():
        gradient = None
    if gradient is not None and relative:
        gradient = gradient / gradient[0]
    return {"step": run.steps("step"), "bits": np.cumsum(bits) - bits[0], "gradient": gradient}


def reached(figures):
    """Return {level: (step, bits) of the first step at which |mean gradient|^2 is at most the level, or None}."""
    found = {}
    for level in LEVELS:
        below = np.flatnonzero(figures["gradient"] <= level) if figures["gradient"] is not None else []
        found[level] = (int(figures["step"][below[0]]), float(figures["bits"][below[0]])) if len(below) else None
    return found


def table(runs):
    """Return (head, rows of texts) of [(name, figures)]: steps and bits to each level."""
    head = ["run", *(f"steps to {level:g}" for level in LEVELS), *(f"bits to {level:g}" for level in LEVELS)]
    rows = []
    for name, figures in runs:
        found = reached(figures)
        rows.append([name, *(f"{f[0]}" if f else "-" for f in found.values()), *(f"{f[1]:,.0f}" if f else "-" for f in found.values())])
    return head, rows


def records(runs):
    """Return the rows of the CSV file of [(name, figures)]: the points drawn."""
    rows = []
    for name, figures in runs:
        for k in sampled(figures):
            gradient = figures["gradient"]
            rows.append({"run": name, "step": int(figures["step"][k]), "bits_vertex": float(figures["bits"][k]),
                         "gradient_norm_squared": float("nan") if gradient is None else float(gradient[k])})  # fmt: skip
    return rows


def sampled(figures):
    """Return the indices of the steps that are drawn: all of a short run, else evenly over the logarithm of the step."""
    last = len(figures["step"]) - 1
    return np.unique(np.round(np.geomspace(1, last, min(POINTS, last))).astype(int)) if last else np.array([0])


def draw_gradient(axis, name, figures, style, label=None):
    """Draw the squared norm of the mean gradient of one run."""
    chosen = sampled(figures)
    pictures.line(axis, figures["bits"][chosen], figures["gradient"][chosen], style, label)
