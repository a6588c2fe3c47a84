"""Steps to a relative squared gradient of 1e-6, logistic regression on one vertex: importance operators beside TopK.

    python benchmarks/importance.py MUSHROOMS [--inner 5]

MUSHROOMS: the LIBSVM file. Full batch, k = 22 of 112, f = mean logistic loss + 0.1 sum x^2 / (1 + x^2), step 1 / L; the weights
begin anew at each step and take so many inner steps of mirror descent. Khafizov & Beznosikov 2024 publish TopK 1126, MD
Greedy 1088 and MD Weighted Greedy 1099; their start and inner steps are not told here, and both change the counts.
"""

import sys
from pathlib import Path

import click
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # from a checkout, installed or not

from mpiconsensus import compress
from mpiconsensus.compress.importance import Importance

D, K, LIMIT = 112, 22, 2000
OPERATORS = ("identity", f"top-k:{K}", f"md-stochastic:{K}", f"md-greedy:{K}", f"md-greedy-weighted:{K}", f"md-weighted-greedy:{K}", f"importance:{K}")
STARTS = {
    "formula": (4 * ((37 * np.arange(1, D + 1)) % 113) - 225) / 256,  # distinct magnitudes
    "zero": np.zeros(D),
    "normal": np.random.default_rng(0).standard_normal(D),
}


def problem(path):
    """Return (gradient of f, its smoothness) of the data of a LIBSVM file with labels 1 and 2."""
    rows = [line.split() for line in Path(path).read_text().splitlines()]
    signed = np.zeros((len(rows), D))
    for row, (label, *features) in zip(signed, rows):
        row[[int(word.partition(":")[0]) - 1 for word in features]] = -1.0 if label == "1" else 1.0
    smooth = np.linalg.eigvalsh(signed.T @ signed / len(signed))[-1] / 4 + 0.2
    return lambda x: signed.T @ (-1 / (1 + np.exp(signed @ x))) / len(signed) + 0.2 * x / (1 + x * x) ** 2, smooth


def steps(spec, start, gradient, smooth, inner):
    """Return the steps until the squared gradient is 1e-6 of the first, or None."""
    c, x, first, random = compress.make(spec, D, np.float64), start.copy(), None, np.random.default_rng(0)
    for step in range(LIMIT):
        g = gradient(x)
        first = first or g @ g
        if g @ g <= 1e-6 * first:
            return step
        if hasattr(c, "weights"):
            learned = Importance(D)
            for _ in range(inner):
                learned.step(g, gradient(learned.trial(x, g, 1 / smooth)), 1 / smooth, smooth)
            c.weights = learned.weights
        x -= c(g, random) / smooth
    return None


@click.command()
@click.argument("path")
@click.option("--inner", default=1, show_default=True, help="Steps of mirror descent a step.")
def main(path, inner):
    """Print a line an operator, a column a start."""
    gradient, smooth = problem(path)
    print(f"{'steps from':24}" + "".join(f"{name:>10}" for name in STARTS))
    for spec in OPERATORS:
        print(f"{spec:24}" + "".join(f"{steps(spec, start, gradient, smooth, inner)!s:>10}" for start in STARTS.values()), flush=True)


if __name__ == "__main__":
    main()
