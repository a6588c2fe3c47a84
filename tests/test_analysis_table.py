"""The table of a paper: the bold face of the published tables, accuracies against the log, the single model beside them."""

import csv
import importlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from conftest import ROOT

from mpiconsensus.errors import UserError

sys.path.insert(0, str(ROOT))
table = importlib.import_module("analysis.table")

# Tables 2 to 7 of the thesis, which jobs/thesis/ repeats: settings, accuracies in percent, and which of them are set in bold (successful).
with open(Path(__file__).parent / "thesis_tables.csv") as _file:
    PUBLISHED = list(csv.DictReader(_file))


def test_the_forty_published_rows_are_there():
    assert len({(row["table"], row["row"]) for row in PUBLISHED}) == 40 and {row["successful"] for row in PUBLISHED} == {"yes", "no"}


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: f"{row['table']}.{row['row']}")
def test_the_rule_reproduces_the_published_bold_face(row):
    # through fractions, as a log holds them
    mean, single = (100 * (float(row[name]) / 100) for name in ("accuracy", "single_model_accuracy"))
    assert table.rule("single-0.2")(mean, single, []) == (row["successful"] == "yes")


def test_other_rules():
    # a difference of exactly the margin counts, whatever the last bit
    assert all(table.rule("single-0.2")(100 * ((s - 0.2) / 100), s, []) for s in (89.21, 91.5, 68.21, 92.18))
    assert not table.rule("single-0.2")(89.0, 89.21, [])
    assert table.rule("single")(91.0, 91.0, []) and not table.rule("single+0.5")(91.0, 91.0, [])
    assert table.rule("best")(3.0, float("nan"), [1.0, 3.0]) and not table.rule("best")(1.0, float("nan"), [1.0, 3.0])
    assert not table.rule("none")(3.0, 1.0, [3.0]) and not table.rule("single-0.2")(99.0, float("nan"), [])
    with pytest.raises(UserError, match="give single-0.2"):
        table.rule("single-")


def shown(*words):
    result = CliRunner().invoke(table.main, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result.stdout


def accuracy(path):
    with h5py.File(path / "run.h5") as file:
        return 100 * file["closing/accuracy"][:]


def test_seeds_are_one_row_and_their_spread_is_apart(small_runs):
    rows = json.loads(shown(small_runs / "periods", "--single", small_runs / "single", "--format", "json"))
    assert [(row["graph"], row["vertices"], row["batch"], row["algorithm.period"], row["seeds"]) for row in rows] == [
        ("ring:4", 4, 32, 1, 2), ("ring:4", 4, 32, 4, 2),
    ]  # fmt: skip
    single = float(accuracy(small_runs / "single")[0])
    for row, name in zip(rows, ("q1", "q4"), strict=True):
        both = np.array([accuracy(small_runs / "periods" / f"{name}-s{seed}") for seed in (1, 2)])
        assert row["accuracy"] == pytest.approx(both.mean())
        assert row["sd_vertices"] == pytest.approx(np.sqrt((both[0].var(ddof=1) + both[1].var(ddof=1)) / 2))
        assert row["sd_seeds"] == pytest.approx(both.mean(axis=1).std(ddof=1))
        assert (row["single"], row["single_batch"]) == (pytest.approx(single), 128)
        assert row["bold"] == (both.mean() >= single - 0.2)
    assert {row["bold"] for row in json.loads(shown(small_runs / "periods", "--format", "json"))} == {False}, "no single model, no bold face"


def test_the_formats_hold_the_same_cells(small_runs):
    words = [small_runs / "periods", small_runs / "single", "--bold", "best"]
    both = np.array([accuracy(small_runs / "periods" / f"q1-s{seed}") for seed in (1, 2)])
    mean, sd = f"{both.mean():.2f}", f"{np.sqrt(both.var(axis=1, ddof=1).mean()):.2f}"
    other = np.array([accuracy(small_runs / "periods" / f"q4-s{seed}") for seed in (1, 2)]).mean()
    assert both.mean() > other
    plain, markdown, latex = (shown(*words, "--format", form) for form in ("table", "markdown", "latex"))
    assert f"*{mean} +- {sd}*" in plain.splitlines()[1] and "*" not in plain.splitlines()[2]
    assert f"| **{mean} ± {sd}** |" in markdown and markdown.splitlines()[0].startswith("| graph | n | batch | period | accuracy % |")
    assert rf"\textbf{{{mean} $\pm$ {sd}}}" in latex and latex.splitlines()[1] == r"\begin{tabular}{lrrrrrrrrr}"
    rows = list(csv.DictReader(shown(*words, "--format", "csv").splitlines()))
    assert float(rows[0]["accuracy"]) == both.mean() and [row["bold"] for row in rows] == ["True", "False"]


def test_one_job_of_one_seed_has_no_columns_of_seeds(small_runs):
    head, line = shown(small_runs / "complete").splitlines()
    assert head.split() == ["graph", "n", "batch", "accuracy", "%", "mean", "model", "%"]
    mean, sd = accuracy(small_runs / "complete").mean(), accuracy(small_runs / "complete").std(ddof=1)
    assert line.split()[:6] == ["complete:4", "4", "32", f"{mean:.2f}", "+-", f"{sd:.2f}"]


def job(name, n, batch, model="mlp", scaled=False, data="digits"):
    config = {"model.name": model, "training.batch_size": batch, "training.scale_lr": scaled}
    return [SimpleNamespace(name=name, n=n, config=config, facts={"data": data})]


def test_the_single_model_has_the_network_s_batch_else_the_vertex_s_else_is_the_only_one():
    network = job("net", 4, 32)
    whole, own, other = job("whole", 1, 128), job("own", 1, 32), job("other", 1, 8)
    assert table.single_of(network, [own, whole, other]) is whole
    assert table.single_of(network, [other, own]) is own
    assert table.single_of(network, [other]) is other
    assert table.single_of(network, [other, job("another", 1, 4)]) is None
    assert table.single_of(network, [job("cnn", 1, 128, "cnn")]) is None
    assert table.single_of(network, [job("mushrooms", 1, 128, data="mushrooms")]) is None
    scaled = job("net", 4, 32, scaled=True)
    assert table.single_of(scaled, [other, own, whole]) is own and table.single_of(scaled, [other, whole]) is whole
    with pytest.raises(UserError, match="whole and twin both are single models of batch 128 for net; they differ in training.lr"):
        twin = job("twin", 1, 128)
        twin[0].config["training.lr"] = 0.1
        table.single_of(network, [whole, twin])


def test_several_data_sets_have_a_column_and_their_own_best(small_runs):
    """The keys in which the jobs differ between the data sets, as the data set itself, have none."""
    words = [small_runs / name for name in ("complete", "periods/q1-s1", "mushrooms")]
    result = shown(*words, "--single", small_runs / "single", "--bold", "best")
    head, *lines = result.splitlines()
    assert head.split()[:5] == ["data", "graph", "n", "batch", "accuracy"]
    assert [line.split()[0] for line in lines] == ["digits", "digits", "mushrooms"]
    means = [accuracy(path).mean() for path in words]
    assert ["*" in line for line in lines] == [means[0] >= means[1], means[1] >= means[0], True]
    # the single model on the digits is none for the mushrooms
    assert [line.split()[-1] for line in lines] == ["128", "128", "-"]


def final(name, shards, powers, spec="ring:2", data="cifar10"):
    config = {"data.shards": shards, "hetero.powers": powers, "training.batch_size": 32}
    config |= {"topology.graph": spec, "model.name": "mlp", "training.scale_lr": False}
    return SimpleNamespace(
        name=name, n=2, config=config, facts={"data": data}, seed=1, accuracy=np.array([1.0, 3.0]), figures={"mean_accuracy": 0.02}
    )


def test_where_shards_lie_is_a_column_only_where_it_tells_something():
    def columns(*runs):
        return [key for key in table.rows(list(runs), table.rule("none"))[0] if "." in key]

    even, uneven = final("even", "shards/a-2", []), final("uneven", "shards/a-2-powers", [2.0, 1.0])
    assert columns(even, uneven) == ["hetero.powers"]
    assert columns(even, final("skewed", "shards/skewed-2", [])) == ["data.shards"]
    assert columns(even, final("other", "shards/b-2", [], data="cifar100")) == []


def test_a_long_list_is_cut_in_a_cell():
    runs = [final("even", "a", []), final("four", "b", [4.0, 3.0, 2.0, 1.0]), final("five", "c", [5.0, 4.0, 3.0, 2.0, 1.0])]
    heads, lines, _ = table.cells(table.rows(runs, table.rule("none")))
    assert [line[heads.index("powers")] for line in lines] == ["[]", "[4.0, 3.0, 2.0, 1.0]", "[5.0, 4.0, 3.0, 2.0, ...]"]


@pytest.mark.parametrize(
    ("words", "told"),
    [(["single"], "all these runs have one vertex"), (["complete", "--bold", "singles"], "is not a rule"), (["complete", "--format", "html"], "'html' is not one of")],
)  # fmt: skip
def test_what_makes_no_table_is_told_in_one_line(small_runs, monkeypatch, words, told):
    monkeypatch.chdir(small_runs)
    result = CliRunner().invoke(table.main, words)
    assert result.exit_code == 2 and not result.stdout
    (line,) = result.stderr.splitlines()
    assert line.startswith("table.py: ") and told in line
