"""Sweep files: expansion against the product, names that stay, what is refused ahead of any run, what a sweep costs."""

import itertools
import json

import pytest
from conftest import cli
from hypothesis import given, settings
from hypothesis import strategies as st

from mpiconsensus import config, models, status, sweepdirectory
from mpiconsensus.block import Layout
from mpiconsensus.errors import UserError
from mpiconsensus.sweep import costs, naming, plan, states

# Values that config.check takes, of every kind of key.
VALUES = {
    "algorithm.tau": st.integers(1, 10**9), "training.seed": st.integers(0, 10**9), "topology.seed": st.integers(0, 99),
    "training.lr": st.floats(0, 1e6), "training.scale_lr": st.booleans(), "data.shards": st.text(max_size=60),
    "algorithm.period": st.one_of(st.integers(1, 9), st.lists(st.integers(1, 9), max_size=40)),
    "hetero.powers": st.lists(st.floats(0, 10), max_size=5), "training.precision": st.sampled_from(["float32", "float64", "bf16"]),
    "topology.graph": st.sampled_from(["ring:4", "ring:40", "torus:2x2", "regular:50,4", "file:a/b.txt", "file:a-b.txt"]),
}  # fmt: skip
GRIDS = st.sets(st.sampled_from(sorted(VALUES)), max_size=3).flatmap(
    lambda keys: st.fixed_dictionaries({key: st.lists(VALUES[key], min_size=1, max_size=3, unique_by=repr) for key in sorted(keys)})
)
FEW = settings(max_examples=60, deadline=None)


def written(folder, text, name="s.toml"):
    path = folder / name
    path.write_text(text)
    return path


def names(folder, text, *overrides):
    return [run.name for run in plan.read(written(folder, text), overrides).runs]


@FEW
@given(GRIDS, st.lists(st.fixed_dictionaries({"algorithm.rounds": st.integers(1, 9)}), max_size=3, unique_by=repr))
def test_a_sweep_is_the_product_of_its_lists_and_runs(grid, entries):
    made = plan.expand(grid, [(values, "") for values in entries])
    expected = [dict(zip(grid, combination)) for combination in itertools.product(*grid.values())]
    assert [values for _, values in made] == [entry | chosen for entry in entries or [{}] for chosen in expected]
    assert len({name for name, _ in made}) == len(made), "a name each"


@FEW
@given(GRIDS.filter(bool), st.randoms())
def test_a_name_hangs_on_its_own_values_alone_and_suits_a_file_system(grid, random):
    before = {repr(sorted(values.items(), key=str)): name for name, values in plan.expand(grid, [])}
    key = random.choice(list(grid))
    more = grid | {key: [VALUE_MORE[key], *(value for value in reversed(grid[key]) if repr(value) != repr(VALUE_MORE[key]))]}
    keys = list(more)
    random.shuffle(keys)
    after = {repr(sorted(values.items(), key=str)): name for name, values in plan.expand({k: more[k] for k in keys}, [])}
    assert before.items() <= after.items()
    for name in after.values():
        assert len(name) <= 120 and name.isascii() and name.isprintable() and not set(name) & set("/\\:*?\"<>| '$&;`!()[]{}~#") and name[0].isalnum()


VALUE_MORE = {
    "algorithm.tau": 3, "training.seed": 3, "topology.seed": 3, "training.lr": 0.25, "training.scale_lr": True, "data.shards": "shards/x",
    "algorithm.period": [2, 3], "hetero.powers": [1.5], "training.precision": "tf32", "topology.graph": "star:5",
}  # fmt: skip


def test_names_can_be_read(tmp_path):
    text = '[grid]\n"training.seed" = [1, 2]\n"algorithm.tau" = [4]\n[[run]]\nlabel = "ring"\n"topology.graph" = "ring:4"\n[[run]]\n"topology.graph" = "torus:2x2"\n"model.name" = "logistic"\n'
    assert names(tmp_path, text) == [
        "ring-tau=4-seed=1", "ring-tau=4-seed=2",
        "tau=4-model=logistic-graph=torus-2x2-seed=1", "tau=4-model=logistic-graph=torus-2x2-seed=2",
    ]  # fmt: skip
    assert [naming.word(key) for key in ("training.seed", "topology.seed", "training.batch_size", "evaluation.batch_size", "algorithm.name")] == [
        "seed", "topology.seed", "batch_size", "evaluation.batch_size", "algorithm",
    ]  # fmt: skip
    assert len({naming.word(key) for key in config.BY_NAME}) == len(config.BY_NAME), "no two keys are called alike"
    assert naming.value_text([1, 2, 4]) == "1_2_4" and naming.value_text(0.0001) == "0.0001" and naming.value_text(1.0) == "1"
    long = naming.value_text(list(range(1, 51)))
    assert len(long) <= 32 and long != naming.value_text([*range(1, 50), 51])


def test_a_run_s_own_keys_go_ahead_of_those_of_all(tmp_path):
    text = '[set]\n"algorithm.tau" = 4\n"algorithm.name" = "local-sgd"\n[[run]]\n"training.seed" = 1\n[[run]]\n"algorithm.name" = "one-shot"\n'
    jobs = [run.job.algorithm for run in plan.read(written(tmp_path, text)).runs]
    assert [(job.name, job.tau) for job in jobs] == [("local-sgd", 4), ("one-shot", 4)]


def test_a_run_is_the_base_with_set_the_command_line_and_its_own_values(tmp_path):
    written(tmp_path, "[training]\nlr = 0.5\nepochs = 9\nbatch_size = 3\n", "base.toml")
    text = 'base = "base.toml"\nname = "mine"\n[set]\n"training.epochs" = 7\nalgorithm.period = 2\nlog.directory = "there"\n[grid]\n"algorithm.period" = [3, [1, 2]]\n'
    with pytest.raises(UserError, match=r"algorithm.period stands in \[grid\] and in \[set\]"):
        plan.read(written(tmp_path, text))
    made = plan.read(written(tmp_path, text.replace("algorithm.period = 2\n", "")), ["training.batch_size=4", "training.epochs=8"])
    assert (made.name, str(made.root)) == ("mine", "there/mine")
    assert [run.job.algorithm.period for run in made.runs] == [3, [1, 2]] and [run.name for run in made.runs] == ["period=3", "period=1_2"]
    assert {(run.job.training.lr, run.job.training.epochs, run.job.training.batch_size) for run in made.runs} == {(0.5, 8, 4)}
    # a graph without its size is the same on any number of ranks
    assert {run.job.topology.graph for run in made.runs} == {"ring:4"}
    assert str(plan.read(tmp_path / "s.toml", out="o").root) == "o"


GRID = '[grid]\n"training.seed" = [1, 2]\n'
WRONG = {
    "an unknown key": ('[grid]\n"training.sede" = [1]\n', ["[grid]", "unknown key 'training.sede'", "Did you mean 'training.seed'?"]),
    "an unknown key of a run": ('[[run]]\n"algoritm.tau" = 1\n', ["run 1", "'algoritm.tau'", "Did you mean 'algorithm.tau'?"]),
    "an unknown key set": ('[set]\n"training.epoch" = 1\n' + GRID, ["[set]", "'training.epoch'", "Did you mean 'training.epochs'?"]),
    "an unknown table": ("[gird]\n" + GRID, ["'gird'", "base, name, set, grid, run", "Did you mean 'grid'?"]),
    "a job": ("[training]\nepochs = 3\n", ["[training]", "table of a job", "mpiconsensus train"]),
    "nothing that varies": ('[set]\n"training.epochs" = 1\n', ["[grid]", "[[run]]", "mpiconsensus train"]),
    "an empty list": ('[grid]\n"algorithm.tau" = []\n', ["[grid]", "algorithm.tau", "empty"]),
    "no list": ('[grid]\n"algorithm.tau" = 4\n', ["algorithm.tau = 4", "not a list", "[set]"]),
    "a value twice": ('[grid]\n"algorithm.tau" = [4, 4]\n', ["algorithm.tau", "4 twice"]),
    "a run twice": ('[[run]]\n"algorithm.tau" = 8\n[[run]]\nlabel = "plain"\n', ["tau=8", "plain", "same job twice"]),
    "one name for two": ('[[run]]\nlabel = "a"\n"algorithm.tau" = 8\n[[run]]\nlabel = "a"\n"algorithm.tau" = 9\n', ["called a", "label"]),
    "a wrong value": ('[grid]\n"algorithm.order" = ["atc", "dpsdg"]\n', ["[grid]", 'algorithm.order = "dpsdg"', "Did you mean 'dpsgd'?"]),
    "a number for a list": ('[grid]\n"model.hidden" = [64, 32]\n', ["model.hidden = 64", "list of numbers", "[[64], [64, 64]]"]),
    "a graph that is none": ('[grid]\n"topology.graph" = ["rign"]\n', ["'rign'", "ring"]),
    "no base": ('base = "none.toml"\n' + GRID, ["none.toml", "does not exist"]),
    "a base that is a sweep": ('base = "s.toml"\n' + GRID, ["is a sweep", "mpiconsensus sweep"]),
    "a base that is no text": ("base = 3\n" + GRID, ["base = 3", "path of a job file"]),
    "a key that varies twice": (GRID + '[[run]]\n"training.seed" = 3\n', ["training.seed", "[grid]", "once"]),
    "an empty run": ("[[run]]\n", ["number 1", "empty"]),
    "a run that is no list": ('[run]\n"training.seed" = 3\n', ["[[run]]"]),
    "a name of a run": ('[set]\n"log.name" = "x"\n' + GRID, ["log.name", "--out"]),
    "places that vary": ('[grid]\n"log.directory" = ["a", "b"]\n', ["log.directory", "[set]"]),
    "a label that is a path": ('[[run]]\nlabel = "a/b"\n', ['label = "a/b"', "letters"]),
    "a label that is taken": ('[[run]]\nlabel = "jobs"\n', ['label = "jobs"', "neither jobs nor output"]),
    "no TOML": ("[grid\n", ["sweep file", "not TOML"]),
}


@pytest.mark.parametrize("text, told", WRONG.values(), ids=WRONG)
def test_a_wrong_file_is_named_in_one_line(tmp_path, text, told):
    path = written(tmp_path, text)
    with pytest.raises(UserError) as error:
        plan.read(path)
    line = str(error.value)
    assert "\n" not in line and [word for word in told if word not in line] == []


@pytest.mark.parametrize(
    "overrides, told",
    [(["training.seed=3"], ["training.seed", "varies"]), (["log.name=x"], ["log.name", "--out"]), (["training.sede=3"], ["Did you mean"])],
)
def test_what_cannot_be_overridden(tmp_path, overrides, told):
    with pytest.raises(UserError) as error:
        plan.read(written(tmp_path, GRID), overrides)
    assert [word for word in told if word not in str(error.value)] == []


@pytest.mark.parametrize(
    "words, told",
    [
        (["sweep", "s.toml"], ["--dry-run", "--local", "--submit"]),
        (["sweep", "s.toml", "--local", "--dry-run"], ["one of these"]),
        (["sweep", "none.toml", "--local"], ["sweep file 'none.toml' does not exist"]),
        (["train", "s.toml"], ["'s.toml' is a sweep", "mpiconsensus sweep s.toml"]),
        (["sweep", "s.toml", "--submit", "--ranks", "3"], ["--ranks", "ahead of --submit"]),
        (["sweep", "bad.toml", "--local"], ["run partition=iid", "directory of shards", "nowhere"]),
        (["cancel", "nowhere"], ["'nowhere'", "no directory"]),
    ],
)
def test_the_command_line_refuses_in_one_line_and_writes_nothing(tmp_path, words, told):
    written(tmp_path, GRID)
    written(tmp_path, '[set]\n"data.shards" = "nowhere"\n[grid]\n"data.partition" = ["iid"]\n', "bad.toml")
    done = cli(*words, cwd=tmp_path)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and [word for word in told if word not in done.stderr] == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.toml", "s.toml"]


def test_under_a_launcher_a_sweep_is_refused(tmp_path):
    written(tmp_path, GRID)
    done = cli("sweep", "s.toml", "--local", cwd=tmp_path, SLURM_STEP_NUM_TASKS="2")
    assert done.returncode == 2 and "without mpirun or srun" in done.stderr and not (tmp_path / "runs").exists()


def test_a_directory_is_taken_by_one_sweep_alone(tmp_path):
    root = tmp_path / "root"

    def attempt(text, name="s.toml"):
        made = plan.read(written(tmp_path, text, name), out=root)
        states.check(made)
        states.prepare(made)
        return sweepdirectory.read(root)["runs"]

    assert attempt(GRID) == ["seed=1", "seed=2"]
    kept = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    refused = [(GRID, "t.toml", "called 's'"), ('[grid]\n"algorithm.tau" = [1]\n', "s.toml", "other runs (seed=1, ...)")]
    refused += [('[set]\n"algorithm.period" = 2\n' + GRID, "s.toml", "algorithm.period = 2")]
    for text, name, told in refused:
        with pytest.raises(UserError) as error:
            attempt(text, name)
        assert told in str(error.value) and str(root) in str(error.value)
    assert kept == {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}, "nothing is written over"
    # a value more is the same sweep, and so is one less: what there was stays listed
    assert attempt(GRID.replace("[1, 2]", "[3, 1]")) == ["seed=3", "seed=1", "seed=2"]
    assert [f["state"] for f in status.look([root])] == ["missing"] * 3
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("")
    with pytest.raises(UserError, match="holds no sweep"):
        states.check(plan.read(tmp_path / "s.toml", out=other))
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        states.check(plan.read(tmp_path / "s.toml", out=tmp_path / "file"))
    with pytest.raises(UserError, match="cannot be made"):
        states.prepare(plan.read(tmp_path / "s.toml", out=tmp_path / "file" / "below"))
    (root / "sweep.json").write_text(json.dumps({"format": "mpiconsensus sweep 9", "runs": []}))
    with pytest.raises(UserError, match="mpiconsensus sweep 1"):
        status.look([root])


def test_what_a_sweep_costs(tmp_path):
    """Of a ring of 4, by hand: 1437 digits are 360 + 3 x 359, 16 a batch: 22 steps an epoch; a row of the logistic model is 65 x 10 float32, filled up."""
    text = '[set]\n"model.name" = "logistic"\n"training.epochs" = 2\n"topology.graph" = "ring:4"\n[grid]\n"algorithm.period" = [1, 4]\n'
    made = costs.figures(plan.read(written(tmp_path, text)))
    row = Layout(models.build("logistic", (1, 8, 8), 10)).d
    assert 650 <= row < 800
    sent = 4 * 2 * row * 4  # a round: each of 4 vertices sends a row to 2 neighbours
    assert [(f["run"], f["steps"], f["samples"], f["bytes_sent"]) for f in made] == [
        ("period=1", 44, 44 * 4 * 16, 44 * sent), ("period=4", 44, 44 * 4 * 16, 11 * sent),
    ]  # fmt: skip
    lines = costs.table(made)
    assert lines[-1].split() == ["2", "runs", "88", "5,632", f"{55 * sent / 1e6:.1f}"] and len(lines) == 4
    held_out = plan.read(written(tmp_path, text), ["hetero.powers=[2, 1, 1, 1]", "training.epochs=1"])
    found = costs.figures(held_out)[0]
    # powers 2:1:1:1 divide 1437 into 575, 287, 287, 288; gradients every 1, 2, 2, 2 steps: max(575 // 16, 2 * 288 // 16) = 36 steps
    assert (found["steps"], found["samples"]) == (36, 16 * (36 + 3 * 18))
