"""The averaging period's picture: fixed and growing intervals, and one average at the end, in one sweep."""

import h5py
import numpy as np
import pytest
from test_analysis import drawn, refused
from test_report import make


def trained(path, algorithm, accuracy, seed=1):
    """A finished log of four vertices on the digits; `algorithm` in TOML."""
    make(path, [accuracy], closing=accuracy)
    toml = f"[algorithm]\n{algorithm}\n[training]\nseed = {seed}\n"
    with h5py.File(path / "run.h5", "r+") as file:
        del file["config/toml"]
        file["config/toml"] = toml
    for part in (path / "log").iterdir():
        part.unlink()


@pytest.fixture
def sweep(tmp_path):
    for tau in (1, 8):
        for growth in (0, tau):
            schedule = f'name = "local-sgd"\ntau = {tau}\ntau_growth = {growth}'
            trained(tmp_path / "runs" / f"tau{tau}-{growth}", schedule, [0.9 - tau / 100 - growth / 200] * 4)
    for seed in (1, 2):
        trained(tmp_path / "runs" / f"once-{seed}", 'name = "one-shot"', [0.5, 0.5, 0.6, 0.4 + 0.04 * seed], seed)
    return tmp_path / "runs"


def test_each_schedule_is_a_line_and_one_shot_a_level(sweep, tmp_path):
    figure, rows = drawn("averaging_period", tmp_path / "p.png", sweep)
    assert [(row["schedule"], row["period"]) for row in rows] == [
        ("fixed", "1"), ("fixed", "8"), ("growing by the first", "1"), ("growing by the first", "8"), ("one-shot", ""),
    ]  # fmt: skip
    assert [float(row["accuracy_mean"]) for row in rows] == pytest.approx([89, 82, 88.5, 78, 51.5])
    assert rows[-1]["seeds"] == "2" and rows[-1]["runs"] == "once-1 once-2"
    level = next(line for line in figure.axes[0].lines if line.get_label() == "one-shot")
    assert np.unique(level.get_ydata()) == pytest.approx([51.5])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["fixed", "growing by the first", "one-shot"]


def test_a_growth_of_its_own_is_a_line_of_its_own(sweep, tmp_path):
    trained(sweep / "tau8-2", 'name = "local-sgd"\ntau = 8\ntau_growth = 2', [0.7] * 4)
    _, rows = drawn("averaging_period", tmp_path / "p.png", sweep)
    assert [row["period"] for row in rows if row["schedule"] == "growing by 2"] == ["8"]


def test_other_keys_must_agree_with_those_of_one_shot_too(sweep):
    trained(sweep / "other", 'name = "one-shot"\norder = "cta"', [0.5] * 4)
    assert "differ in algorithm.order" in refused("averaging_period", sweep)
    assert "have the averaging period of one-shot; give runs of at least two" in refused("averaging_period", sweep / "once-1", sweep / "once-2")
