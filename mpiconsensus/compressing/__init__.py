"""Compressed algorithms on the rows of a rank: their steps, their step sizes of theory, and what they will send."""

from mpiconsensus.compressing.importance import trial_gradient
from mpiconsensus.compressing.steppers import AmongAllStepper, OnGraphStepper
from mpiconsensus.compressing.theory import check, smoothness, theory
from mpiconsensus.compressing.traffic import expected

__all__ = ["check", "expected", "open_stepper", "smoothness", "theory", "trial_gradient"]


def open_stepper(algorithm, *words, **keywords):
    """Return the Stepper of a compressed algorithm; the words of Compressing."""
    kind = AmongAllStepper if algorithm.reach == "all" else OnGraphStepper
    return kind(algorithm, *words, **keywords)
