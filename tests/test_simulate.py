"""Consensus alone against powers of a matrix in float64, and its files."""

import h5py
import numpy as np
import pytest
from test_survey import Turns, directed, given, push_sum, uniform

from mpiconsensus import topology, weights
from mpiconsensus.errors import TrainingError, UserError
from mpiconsensus.randomness import generator
from mpiconsensus.survey import drawing, simulate, sparse
from mpiconsensus.topology.net import Net


@pytest.mark.parametrize("dimension", [1, 3])
@pytest.mark.parametrize("method", ["metropolis", "best-constant"])
@pytest.mark.parametrize("spec", ["ring:50", "circulant:50,7", "circulant:50,7,12", "random:30,60", "star:7"])
def test_a_curve_is_the_matrix_power(spec, method, dimension):
    net = topology.net(spec, 1)
    curve = simulate.simulate(net, method, 60, seed=3, dimension=dimension)
    W = weights.mixing_matrix(net.n, net.edges, method)
    x = generator(3, "consensus").standard_normal((net.n, dimension))
    off = x - x.mean(axis=0)
    for t in range(61):
        expected = np.linalg.norm(np.linalg.matrix_power(W, t) @ off) / np.linalg.norm(off)
        # Rounding of the sums leaves an error of n eps beside the values, whose size is 1.
        assert curve.disagreement[t] == pytest.approx(expected, rel=1e-9, abs=net.n * 1e-15)
    assert curve.lambda_2 == pytest.approx(weights.second_modulus(W), abs=1e-12)
    assert (curve.disagreement <= curve.bound + net.n * 1e-15).all() and curve.disagreement[0] == 1.0
    assert curve.bound[2] == pytest.approx(curve.lambda_2**2)


@pytest.mark.parametrize("spec", ["ring:50", "circulant:50,7", "grid:5x10"])
def test_the_slope_in_the_long_run_is_lambda_2(spec):
    net = topology.net(spec, 1)
    moduli = np.sort(np.abs(np.linalg.eigvalsh(weights.mixing_matrix(net.n, net.edges, "metropolis"))))[::-1]
    distinct = moduli[1:][moduli[1:] < moduli[1] - 1e-9][0]
    t = min(600, int(np.log(1e-9) / np.log(moduli[1])))  # far from the rounding of X
    curve = simulate.simulate(net, "metropolis", t, seed=1, dimension=20)
    slope = np.log(curve.disagreement[t] / curve.disagreement[t - 1])
    # The modes below lambda_2 are left with (lambda_3 / lambda_2)^2t of the square; n of them.
    assert np.log(moduli[1]) - net.n * (distinct / moduli[1]) ** (2 * t) <= slope <= np.log(moduli[1]) + 1e-9


def test_more_chords_agree_faster():
    """The cycle of 50 vertices with 0 to 4 chords from each vertex."""
    specs = [f"chords:50,{k}" for k in range(5)]
    curves = [simulate.simulate(topology.net(spec, 1), "best-constant", 60, seed=0) for spec in specs]
    assert sorted((c.lambda_2 for c in curves), reverse=True) == [c.lambda_2 for c in curves]
    assert sorted((c.disagreement[-1] for c in curves), reverse=True) == [c.disagreement[-1] for c in curves]


def test_push_sum_is_measured_by_its_ratio(monkeypatch):
    given(monkeypatch, push_sum)
    net = directed(4, [(0, 1), (1, 2), (2, 3), (3, 0), (0, 2)])
    curve = simulate.simulate(net, "push-sum", 60, seed=2, dimension=2)
    W, x = push_sum(net), generator(2, "consensus").standard_normal((4, 2))
    P = np.linalg.matrix_power(W, 10)
    ratio = (P @ x) / (P @ np.ones((4, 1)))
    assert curve.disagreement[10] == pytest.approx(np.linalg.norm(ratio - x.mean(axis=0)) / np.linalg.norm(x - x.mean(axis=0)), rel=1e-9)
    assert curve.disagreement[-1] < 1e-8 and curve.mean == "kept by the ratio"


def test_a_mean_that_drifts_is_followed(monkeypatch):
    given(monkeypatch, uniform)
    curve = simulate.simulate(directed(3, [(0, 1), (1, 0), (1, 2), (2, 1), (0, 2)]), "uniform", 80, seed=2)
    assert curve.mean == "drifts" and curve.disagreement[-1] < 1e-12


def test_a_graph_that_changes_is_mixed_by_each_of_its_graphs(monkeypatch):
    given(monkeypatch, uniform)
    turns = Turns([[(i, (i + 2**k) % 8) for i in range(8)] for k in range(3)])
    union = np.array(sorted({tuple(map(int, e)) for g in turns.graphs for e in g}))
    curve = simulate.simulate(Net("x", 8, union, directed=True, changing=turns), "uniform", 4, seed=0)
    assert curve.disagreement[2] > 1e-3 and curve.disagreement[3] < 1e-15 * 8 and curve.lambda_2 == 0.0


def test_a_large_graph_is_simulated_without_a_matrix(monkeypatch):
    net = topology.net("ring:6000", 1)
    monkeypatch.setattr(sparse.Mixing, "dense", None)
    curve = simulate.simulate(net, "metropolis", 20, seed=0)
    x = generator(0, "consensus").standard_normal((6000, 1))
    off = x - x.mean()
    for _ in range(20):
        off = (off + np.roll(off, 1) + np.roll(off, -1)) / 3
    assert curve.disagreement[20] == pytest.approx(np.linalg.norm(off) / np.linalg.norm(x - x.mean()), rel=1e-12)


def curves():
    return [simulate.simulate(topology.net(spec, 1), "metropolis", 9, seed=4, dimension=2) for spec in ("ring:9", "star:5", "ring:9")]


def test_the_file_holds_the_curves(tmp_path):
    found = curves()
    simulate.save(tmp_path / "a.h5", found)
    with h5py.File(tmp_path / "a.h5") as file:
        assert list(file) == ["ring:9", "ring:9 (2)", "star:5"] and file.attrs["format"] == "mpiconsensus simulate"
        group = file["star:5"]
        assert dict(group.attrs) == {
            "spec": "star:5", "weights": "metropolis", "vertices": 5, "seed": 4, "dimension": 2, "mean": "kept", "lambda_2": found[1].lambda_2,
        }  # fmt: skip
        assert (group["disagreement"][:] == found[1].disagreement).all() and (group["bound"][:] == found[1].bound).all()
        assert (group["round"][:] == np.arange(10)).all()
        assert {name: data.attrs["unit"] for name, data in group.items()} == {"round": "rounds", "disagreement": "1", "bound": "1"}
        assert all(data.attrs["description"] for data in group.values())


def test_the_table_has_the_first_and_the_last_round():
    found = curves()
    heads, rows = simulate.table(found)
    assert heads == ["round", "ring:9", "|lambda_2|^t", "star:5", "|lambda_2|^t", "ring:9", "|lambda_2|^t"]
    assert rows[0] == ["0"] + ["1"] * 6 and rows[-1][0] == "9" and len(rows) == 9
    assert rows[-1][3:5] == [f"{found[1].disagreement[9]:.3g}", f"{found[1].lambda_2 ** 9:.3g}"]


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "a.h5").write_text("old")
    (tmp_path / "a.h5").chmod(0o400)
    with pytest.raises(TrainingError, match="cannot be written"):
        simulate.save(tmp_path / "none" / "a.h5", curves())
    assert (tmp_path / "a.h5").read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_the_picture_has_a_solid_and_a_dashed_line_a_graph():
    pytest.importorskip("matplotlib")
    found = curves()[:2]
    (axis,) = drawing.curves(found).axes
    measured, bound = axis.lines[0], axis.lines[1]
    assert (measured.get_ydata() == found[0].disagreement).all() and (bound.get_ydata() == found[0].bound).all()
    assert measured.get_color() == bound.get_color() and measured.is_dashed() is False and bound.is_dashed() is True
    assert axis.get_yscale() == "log" and len({line.get_marker() for line in axis.lines[0:4:2]}) == 2
    assert [text.get_text().split(",")[0] for text in axis.get_legend().get_texts()][:2] == ["ring:9", "star:5"]


def test_the_weights_are_read_with_their_graph():
    with pytest.raises(UserError, match="topology.weights"):
        simulate.simulate(topology.net("ring:9", 1), "none", 5)
