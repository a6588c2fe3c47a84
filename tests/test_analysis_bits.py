"""analysis/traffic.py --x bits, from the log of a compressed run."""

import csv
import math

import numpy as np
import pytest
from test_analysis import drawn, log, numbers, refused

from analysis import bits


def test_traffic_counts_bits_and_says_when_the_gradient_was_small(small_runs, tmp_path):
    figure, rows = drawn("traffic", tmp_path / "t.png", small_runs / "compressed", "--x", "bits", drawing="draw_bits")
    with log(small_runs / "compressed") as f:
        formula, gradient, ends = f["steps/bits_formula"][:], f["steps/gradient_norm"][:] ** 2, f["epochs/step"][:]
        accuracy = f["epochs/accuracy"][:].mean(axis=1)
    # 10 of 650 floats of 32 bits, and their indices by the number of choices, which is less than 10 * 10 and 650
    message = 320 + math.ceil(math.log2(math.comb(650, 10)))
    assert (formula[1:] == message).all() and (formula[0] == 32 * 650).all()
    steps = numbers(rows, "step").astype(int)
    np.testing.assert_allclose(numbers(rows, "bits_vertex"), float(message) * steps)
    np.testing.assert_allclose(numbers(rows, "gradient_norm_squared"), gradient[steps])
    first, last = figure.axes
    np.testing.assert_allclose(first.lines[0].get_xdata(), float(message) * (ends - 1))
    np.testing.assert_allclose(first.lines[0].get_ydata(), 100 * accuracy)
    np.testing.assert_allclose(last.lines[0].get_ydata(), gradient[steps])
    with open(tmp_path / "t-reached.csv") as file:
        (told,) = csv.DictReader(file)
    _, relative = drawn("traffic", tmp_path / "r.png", small_runs / "compressed", "--x", "bits", "--relative", drawing="draw_bits")
    np.testing.assert_allclose(numbers(relative, "gradient_norm_squared"), gradient[steps] / gradient[0])
    below = np.flatnonzero(gradient <= 1e-2)
    assert told["steps to 0.01"] == (str(below[0]) if len(below) else "-")
    assert told["steps to 1e-06"] == "-"


def test_the_first_step_below_a_level_counts_and_its_bits_without_the_start():
    figures = {"step": np.arange(5), "bits": np.array([0.0, 7, 14, 21, 28]), "gradient": np.array([1.0, 0.02, 0.01, 1e-4, 1e-3])}
    assert bits.reached(figures) == {1e-2: (2, 14.0), 1e-4: (3, 21.0), 1e-6: None}


def test_long_runs_are_drawn_by_few_points_from_the_first_to_the_last_step():
    chosen = bits.sampled({"step": np.arange(50_000)})
    assert chosen[0] == 1 and chosen[-1] == 49_999 and len(chosen) <= bits.POINTS
    assert bits.sampled({"step": np.arange(4)}).tolist() == [1, 2, 3] and bits.sampled({"step": np.arange(1)}).tolist() == [0]


@pytest.mark.parametrize("name", ["gossip", "complete"])
def test_a_run_that_compresses_nothing_has_no_formula(small_runs, name):
    assert "compresses nothing" in refused("traffic", small_runs / name, "--x", "bits")
