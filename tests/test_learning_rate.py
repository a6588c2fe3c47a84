"""Learning rates against numbers worked out by hand."""

from types import SimpleNamespace

import pytest

from mpiconsensus.optim import learning_rate

BASE = dict(lr=0.1, scale_lr=False, warmup_epochs=0.0, decay="none", milestones=[81, 122], gamma=0.1)


def rate(n=4, steps=10, total=1640, **changes):
    return learning_rate(SimpleNamespace(**{**BASE, **changes}), n, steps, total)


def test_the_recipe_of_the_thesis():
    f = rate(warmup_epochs=5.0, decay="milestones")
    assert f(0) == pytest.approx(0.1 / 50) and f(24) == pytest.approx(0.05) and f(49) == pytest.approx(0.1)
    assert f(809) == pytest.approx(0.1) and f(810) == pytest.approx(0.01)
    assert f(1219) == pytest.approx(0.01) and f(1220) == pytest.approx(0.001)


def test_linear_scaling_warms_up_from_the_unscaled_rate():
    f = rate(n=8, scale_lr=True, warmup_epochs=2.0)
    assert f(9) == pytest.approx(0.1 + 0.7 * 10 / 20) and f(19) == pytest.approx(0.8) and f(500) == pytest.approx(0.8)
    assert rate(n=8, scale_lr=True)(0) == pytest.approx(0.8)


def test_cosine_falls_from_the_end_of_the_warm_up_to_the_last_step():
    f = rate(warmup_epochs=1.0, decay="cosine", total=110)
    assert f(9) == pytest.approx(0.1) and f(10) == pytest.approx(0.1)
    assert f(60) == pytest.approx(0.05) and f(110) == pytest.approx(0.0, abs=1e-15)
    assert f(35) == pytest.approx(0.1 * (1 + 2**-0.5) / 2)


def test_a_warm_up_may_end_within_an_epoch():
    f = rate(warmup_epochs=0.5)
    assert f(0) == pytest.approx(0.02) and f(4) == pytest.approx(0.1) and f(5) == pytest.approx(0.1)
