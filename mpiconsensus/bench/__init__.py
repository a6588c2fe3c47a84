"""Measurements of a user's own machine: rounds, loading and training steps, each against what it cannot beat."""
