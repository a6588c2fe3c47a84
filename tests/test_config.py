"""Jobs: defaults, types, bounds, and the answer to what is wrong."""

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mpiconsensus import config
from mpiconsensus.errors import UserError


def test_every_default_is_allowed_and_survives_toml(tmp_path):
    job = config.load()
    for key in config.KEYS:
        assert config.check(key, key.default) == key.default and key.help
    (tmp_path / "job.toml").write_text(job.to_toml())
    again = config.load(tmp_path / "job.toml")
    assert all(again.get(key.name) == job.get(key.name) for key in config.KEYS)


@example("\x7f", 0.0, [1])
@given(st.text(), st.floats(0, 1e6), st.lists(st.integers(1, 50), min_size=1, max_size=5))
def test_values_survive_toml(tmp_path_factory, name, rate, periods):
    path = tmp_path_factory.mktemp("job") / "job.toml"
    values = {"log.name": name, "training.lr": rate, "algorithm.period": periods}
    path.write_text(config.Job(values).to_toml())
    again = config.load(path)
    assert (again.log.name, again.training.lr, again.algorithm.period) == (name, rate, periods)


@pytest.mark.parametrize(
    "text, value",
    [("training.lr=0.5", 0.5), ("training.lr=1", 1.0), ("training.scale_lr=true", True), ("algorithm.period=[1, 2]", [1, 2]),
     ("data.shards=12", "12"), ("data.shards=a/b c", "a/b c"), ("topology.graph=torus:6x6", "torus:6x6"), ("log.name='x'", "x"),
     ("algorithm.staleness=3", 3), ("algorithm.staleness=inf", math.inf), ("algorithm.max_age='inf'", math.inf)],
)  # fmt: skip
def test_overrides_are_read_as_the_key_s_type(text, value):
    found = config.load(None, [text]).get(text.split("=")[0])
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    "text, words",
    [
        ("training.lr=fast", "give a number"), ("training.lr=true", "give a number"), ("training.lr=nan", "finite"),
        ("training.epochs=1.5", "whole number"), ("training.epochs=true", "whole number"), ("training.momentum=2", "largest value is 1"),
        ("algorithm.order=atcc", "Did you mean 'atc'"), ("algorithm.period=[1, 0]", "smallest value is 1"),
        ("algorithm.tau=[1]", "whole number"), ("hetero.powers=3", "list of numbers"), ("trainig.lr=1", "tables: topology"),
        ("training.rl=1", "training.lr"), ("algorithm.staleness=-1", "smallest value is 0"), ("algorithm.staleness=2.5", "whole number, or inf"),
        ("algorithm.max_age=true", "whole number, or inf"), ("algorithm.max_age=none", "whole number, or inf"), ("hetero.speed=[1, 0]", "smallest value"),
        ("hetero.step_s=1e300", "largest value is 1e\\+06"), ("hetero.link_delay_s=1e300", "largest"), ("hetero.slowdown_factor=1e9", "largest"),
        ("hetero.least_step_s=1e9", "largest"), ("hetero.speed=[1, 1e9]", "largest"),
    ],
)  # fmt: skip
def test_wrong_values_are_named(text, words):
    with pytest.raises(UserError, match=words):
        config.load(None, [text])


def test_a_key_outside_a_table_is_named(tmp_path):
    (tmp_path / "job.toml").write_text("epochs = 3\n")
    with pytest.raises(UserError, match="outside any table"):
        config.load(tmp_path / "job.toml")
