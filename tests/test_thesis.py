"""jobs/thesis/ against the published tables: every key of every job, and 20 steps of each on small shards.

The shards are made by the commands at the heads of the jobs from random raw files, and read where the jobs look for them.
36 replicas of ResNet-20 would take minutes: the jobs of OWN_MODEL, at least one a table, train their own model on two
samples a vertex, all others a linear one on their own batch (at most what the small shard holds).
"""

import csv
import importlib
import itertools
import json
import math
import re
import runpy
import shlex
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import ROOT, run
from test_data_prep import cifar10_raw, cifar100_raw, fashion_raw

from mpiconsensus import config, topology
from mpiconsensus.data.source import open_source
from mpiconsensus.runtime import World
from mpiconsensus.training import Trainer
from mpiconsensus.wiring import wire

FOLDER = ROOT / "jobs" / "thesis"
FILES = {path.stem: path for path in sorted(FOLDER.glob("*.toml"))}
with open(Path(__file__).parent / "thesis_tables.csv") as _file:
    ROWS = list(csv.DictReader(_file))
SEEDS = {"training.seed": [1, 2, 3]}
SWEEPS = {  # name -> base, grid, words at the head
    "figure4": (
        "table3_row02", {"algorithm.period": [1, 5, 10]} | SEEDS,
        ["figure 4: CIFAR-10 on an expander of 25, averaged every 1, 5 and 10 steps; the settings of table 3, rows 2 to 4", "what row 2 assumes"],
    ),
    "warmup": (
        "table3_row01", {"training.warmup_epochs": [0.0, 5.0]} | SEEDS,
        ["published +0.4 +- 0.05 points with warm-up", "the setting is table 3, row 1,"],
    ),
    "start": ("table3_row08", {"training.init": ["identical", "independent"]} | SEEDS, ["the setting is table 3, row 8,"]),
}  # fmt: skip
JOBS = [name for name in FILES if name not in SWEEPS]
NETWORKS = [name for name in JOBS if name.startswith("table")]

# What the thesis says of all its runs on a data set, beside what the package takes by default, and what is assumed of Fashion-MNIST.
CIFAR = {
    "training.epochs": 164, "training.lr": 0.1, "training.optimizer": "sgd", "training.momentum": 0.9, "training.weight_decay": 1e-4,
    "training.warmup_epochs": 5.0, "training.decay": "milestones", "training.milestones": [81, 122], "training.gamma": 0.1,
}  # fmt: skip
FASHION = {"training.epochs": 20, "training.lr": 0.001, "training.optimizer": "adam", "training.weight_decay": 0.0}
RECIPES = {"CIFAR-10": CIFAR, "CIFAR-100": CIFAR, "FashionMNIST": FASHION}
NAMES = {"CIFAR-10": "cifar10", "CIFAR-100": "cifar100", "FashionMNIST": "fashion"}  # of shards and single models
SCRIPTS = {"cifar10": "cifar10", "cifar100": "cifar100", "fashion": "fashion_mnist"}
MODELS = {"ResNet-20": "resnet20", "CNN": "fashion-cnn"}
NEGATIVE = "file:jobs/graphs/negative12.txt"
GRAPHS = {  # topology and edges of a row -> spec, its words in the head, and what is said there where it is an assumption
    ("torus 6x6", "72"): ("torus:6x6", "a 6x6 torus", ""), ("cycle", "4"): ("ring:4", "a cycle of 4", ""),
    ("complete", "630"): ("complete:36", "the complete graph of 36", ""),
    ("dense graph", ""): ("random:5,8", "a dense graph of 5", "8 of the 10 edges"),
    ("sparse graph", ""): ("random:10,15", "a sparse graph of 10", "15 of the 45 edges"),
    ("expander", ""): ("margulis:25", "an expander of 25", "Margulis, Gabber and Galil, 70 edges"),
    ("negative-weight graph", ""): (NEGATIVE, "a graph of 12 with negative weights", "negative on two edges"),
} | {
    ("random graph", m): (f"random:50,{m}", f"a random graph of 50 with {m} edges", "draw of topology.seed 0") for m in ("100", "150", "250")
}  # fmt: skip
POWERS = {4: [4.0, 2.0, 2.0, 1.0], 36: [4.0, 2.0, 1.0] * 12}  # assumed
OWN_MODEL = {
    "table2_row08_fashion_cycle4", "table2_row09_cifar100_cycle4", "table3_row01_cycle4", "table4_row01_cycle4_powers",
    "table5_row01_cifar100_cycle4", "table6_row01_fashion_cycle4", "table7_row03_cifar100_cycle4_gossip4", "single_cifar10_batch192",
}  # fmt: skip
STEPS, TRAIN, TEST = 20, 100, 20


def label(row):
    return f"table{row['table']}_row{int(row['row']):02d}"


def named(start):
    """Return the one file whose name begins with table and row."""
    (name,) = [name for name in FILES if name.startswith(start + "_")]
    return name


def values(job):
    return {key.name: job.get(key.name) for key in config.KEYS}


def head(name):
    """Return the comment at the head of a file in one line, without the marks."""
    lines = itertools.takewhile(lambda line: line.startswith("# "), FILES[name].read_text().splitlines())
    return " ".join(line.removeprefix("# ") for line in lines)


def command(name):
    """Return the words of the command that makes the shards of a job."""
    return shlex.split(re.search(r"^# Shards: python (.*)$", FILES[name].read_text(), re.MULTILINE)[1])


def common(row):
    """Return what a network and its single model have in common: the data set's recipe and the model."""
    return {key.name: key.default for key in config.KEYS} | RECIPES[row["dataset"]] | {"model.name": MODELS[row["model"]]}


def expected(row):
    """Return every key of the job of a row, and the words that must tell its assumptions."""
    n, told = int(row["vertices"]), []
    spec, _, words = GRAPHS[row["topology"], row["edges"]]
    wanted = common(row) | {"topology.graph": spec, "data.shards": f"shards/{NAMES[row['dataset']]}-{n}"}
    wanted |= {"training.batch_size": int(row["vertex_batch"]), "training.scale_lr": {"yes": True, "no": False}[row["lr_scaled"]]}
    wanted |= {"algorithm.name": row["algorithm"]}
    if row["algorithm"] == "gossip":
        wanted["algorithm.pairs"] = int(row["gossip_pairs"])
    elif row["topology"] == "negative-weight graph":
        wanted["topology.weights"] = "fastest"
    else:
        wanted["topology.weights"], told = "metropolis", ["weights are Metropolis"]
    if row["period"] == "raised (not stated)":
        wanted["algorithm.rounds"], told = 2, [*told, "two rounds a step, where row 3 has one"]
    else:
        wanted["algorithm.period"] = int(row["period"])
    assert (row["balanced"], row["train_every"]) in {("yes", "1"), ("no", "by power")}
    if row["balanced"] == "no":
        wanted |= {"hetero.powers": POWERS[n], "data.shards": wanted["data.shards"] + "-powers"}
        told = [*told, {4: "the powers are 4, 2, 2 and 1", 36: "the powers are 4, 2 and 1 in turn"}[n]]
    told += ["Adam's rate is 0.001 throughout"] if row["dataset"] == "FashionMNIST" else []
    return wanted, [*told, *([words] if words else [])]


def sentence(row):
    """Return what the head of a job must say of its row."""
    gossip, period = row["gossip_pairs"], row["period"]
    how = f", gossip over {gossip} edge{'s' * (gossip != '1')} a step" if gossip else ""
    how += f", averaged every {period} steps" if period.isdigit() and period != "1" else ""
    how += ", unequal vertices" * (row["balanced"] == "no") + ", mixed more often" * ("raised" in period)
    return (
        f"Thesis, table {row['table']}, row {row['row']}: {row['dataset'].replace('nM', 'n-M')} on {GRAPHS[row['topology'], row['edges']][1]}{how}, "
        f"{row['vertex_batch']} samples a vertex, lr {'not ' * (row['lr_scaled'] == 'no')}scaled; "
        f"published accuracy {row['accuracy']} +- {row['spread']}. Shards: "
    )


def single(row):
    return f"single_{NAMES[row['dataset']]}_batch{row['single_model_batch']}"


def test_there_is_a_file_a_row_a_single_model_and_an_ablation_and_no_other():
    assert len(ROWS) == len({label(row) for row in ROWS}) == 40
    assert set(FILES) == {named(label(row)) for row in ROWS} | {single(row) for row in ROWS} | set(SWEEPS)


@pytest.mark.parametrize("row", ROWS, ids=label)
def test_a_job_is_its_row(row):
    name = named(label(row))
    job = config.load(FILES[name])
    wanted, told = expected(row)
    assert values(job) == wanted
    graph = topology.build(job.topology.graph.replace("file:", f"file:{ROOT}/"), job.topology.seed)
    assert len(graph) == int(row["vertices"]) and row["edges"] in ("", str(graph.number_of_edges()))
    powers = ["--powers", ",".join(f"{power:g}" for power in job.hetero.powers)] if job.hetero.powers else []
    script = f"data_prep/{SCRIPTS[NAMES[row['dataset']]]}.py"
    assert command(name) == [script, "RAW", job.data.shards, "--shards", row["vertices"], *powers]
    said, assumed, assumptions = head(name).partition(" Assumed, where the table is silent: ")
    assert said.startswith(sentence(row))
    assert bool(assumed) == bool(told) and all(word in assumptions for word in told)


@pytest.mark.parametrize("row", ROWS, ids=label)
def test_a_single_model_is_that_of_the_row(row):
    name = single(row)
    shards = f"shards/{NAMES[row['dataset']]}-1"
    assert values(config.load(FILES[name])) == common(row) | {
        "topology.graph": "ring:1", "data.shards": shards, "training.batch_size": int(row["single_model_batch"]),
    }  # fmt: skip
    assert command(name) == [f"data_prep/{SCRIPTS[NAMES[row['dataset']]]}.py", "RAW", shards, "--shards", "1"]
    assert head(name).startswith(f"Thesis, single model: {row['dataset'].replace('nM', 'n-M')} at one vertex, batch {row['single_model_batch']}; ")
    assert ("Adam's rate is 0.001 throughout, for 20" if row["dataset"] == "FashionMNIST" else "lr is 0.1 whatever the batch") in head(name)
    rows = re.search(rf"[ ,]{row['single_model_accuracy']} \(([^)]*)\)", head(name))[1]
    told = {(table, number) for table, listed in re.findall(r"table (\d), rows? ([^;]*)", rows) for number in numbers(listed)}
    alike = [r for r in ROWS if single(r) == name and r["single_model_accuracy"] == row["single_model_accuracy"]]
    assert told == {(r["table"], int(r["row"])) for r in alike}


def numbers(text):
    """Return the numbers of a text such as "8, 9, 13 to 16"."""
    ends = [[int(end) for end in span.split(" to ")] for span in text.split(", ")]
    return {number for span in ends for number in range(span[0], span[-1] + 1)}


@pytest.mark.parametrize("name", SWEEPS)
def test_an_ablation_varies_one_key_of_a_row(name):
    base, grid, words = SWEEPS[name]
    sweep = tomllib.loads(FILES[name].read_text())
    assert sweep == {"base": named(base) + ".toml", "grid": grid}
    assert command(name) == command(named(base)) and all(word in head(name) for word in words)
    varied = [key for key in grid if key != "training.seed"]
    # one of the values is the row's own
    assert all(config.load(FILES[named(base)]).get(key) in grid[key] for key in varied)


def test_figure_4_is_rows_2_to_4_of_table_3():
    periods = SWEEPS["figure4"][1]["algorithm.period"]
    for row, period in zip((2, 3, 4), periods, strict=True):
        base = config.load(FILES[named("table3_row02")], [f"algorithm.period={period}"])
        assert values(base) == values(config.load(FILES[named(f"table3_row0{row}")]))


@pytest.mark.parametrize("job, row", [("torus36", "table3_row08"), ("cifar_cycle4", "table3_row01"), ("fashion_cycle4", "table6_row01")])
def test_the_jobs_of_the_front_page_are_rows(job, row):
    assert values(config.load(ROOT / "jobs" / f"{job}.toml")) == values(config.load(FILES[named(row)])) | (
        {"data.augment": "none" if "fashion" in job else "crop-flip"}  # auto by the data set in the row
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A directory in which every job finds its shards, made by the commands at the heads of the jobs."""
    where = tmp_path_factory.mktemp("thesis")
    cifar10_raw(where / "RAW" / "cifar-10-batches-bin", records=TRAIN // 5)
    cifar100_raw(where / "RAW" / "cifar-100-binary", counts=(TRAIN, TEST))
    fashion_raw(where / "RAW" / "fashion-mnist", counts=(TRAIN, TEST))
    (where / "jobs").symlink_to(ROOT / "jobs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(where)
        for words in sorted({tuple(command(name)) for name in FILES}):
            patch.setattr(sys, "argv", list(words))
            with pytest.raises(SystemExit) as end:
                runpy.run_path(str(ROOT / words[0]), run_name="__main__")
            assert not end.value.code, words
    return where


def trained(name, overrides=()):
    """Return (Trainer, losses (STEPS, n)) of 20 steps of a job, read in the current directory."""
    small = ["training.batch_size=2"] if name in OWN_MODEL else ["model.name=logistic"]
    job = config.load(FILES[name], [f"training.max_steps={STEPS}", *small, *overrides])
    world = World()
    wiring = wire(job.topology, world)
    trainer = Trainer(job, world, wiring, open_source(job.data, wiring.n, job.hetero.powers, job.training.seed))
    return trainer, np.stack([trainer.step()[0] for _ in range(STEPS)])


def moved(trainer, row, edges):
    """Return the bytes that STEPS steps send by the row of the table: two rows of the block an edge that acts."""
    acting = int(row["gossip_pairs"]) if row["gossip_pairs"] else edges
    rounds = 2 * STEPS if "raised" in row["period"] else math.ceil(STEPS / int(row["period"]))
    return rounds * acting * 2 * trainer.block.d * 4


@pytest.mark.parametrize("row", ROWS, ids=label)
def test_a_job_trains_20_steps(place, monkeypatch, row):
    monkeypatch.chdir(place)
    trainer, losses = trained(named(label(row)))
    n, wiring = int(row["vertices"]), trainer.wiring
    assert losses.shape == (STEPS, n)
    powers = POWERS[n] if row["balanced"] == "no" else [1.0] * n
    turn = [[k % (max(powers) // power) == 0 for power in powers] for k in range(STEPS)]
    assert np.array_equal(np.isfinite(losses), turn)
    assert trainer.stepper.take()[3].sum() == moved(trainer, row, int(row["edges"] or len(wiring.edges)))
    # the shards are divided as the vertices are balanced: in proportion, to the next sample
    sizes, share = np.array(trainer.source.sizes), TRAIN * np.array(powers) / sum(powers)
    assert sizes.sum() == TRAIN and (np.abs(sizes - share) < 1).all()
    assert (wiring.matrix.min() < -0.05) == (row["topology"] == "negative-weight graph")
    assert trainer.source.augment == ("none" if row["dataset"] == "FashionMNIST" else "crop-flip")
    peak = trainer.rate(round(trainer.job.training.warmup_epochs * trainer.steps_per_epoch))
    assert peak == pytest.approx(RECIPES[row["dataset"]]["training.lr"] * (n if row["lr_scaled"] == "yes" else 1))


@pytest.mark.parametrize("name", [name for name in JOBS if name not in NETWORKS])
def test_a_single_model_trains_20_steps_and_sends_nothing(place, monkeypatch, name):
    monkeypatch.chdir(place)
    trainer, losses = trained(name)
    assert losses.shape == (STEPS, 1) and np.isfinite(losses).all() and trainer.stepper.take()[3].sum() == 0


@pytest.mark.parametrize(
    "name, key, value", [(name, key, value) for name, (_, grid, _) in SWEEPS.items() for key in list(grid)[:1] for value in grid[key]]
)
def test_a_point_of_an_ablation_trains_20_steps(place, monkeypatch, name, key, value):
    monkeypatch.chdir(place)
    base = named(SWEEPS[name][0])
    small = ["model.name=logistic", "training.seed=2", f"{key}={value}"]
    assert np.isfinite(trained(base, small)[1]).all()


def test_the_table_of_a_few_rows_has_the_thesis_form(place):
    """Table 2 has three data sets: every row has the single model of its own batch and data, as the published one has."""
    table = importlib.import_module("analysis.table")
    rows = [row for row in ROWS if label(row) in ("table2_row04", "table2_row05", "table2_row08", "table2_row09", "table3_row01")]
    names = [named(label(row)) for row in rows]
    done = run(sys.executable, Path(__file__).parent / "thesis_runs.py", place, *names, *sorted({single(row) for row in rows}))
    assert done.returncode == 0, done.stderr
    result = CliRunner().invoke(table.main, [str(place / "runs"), "--format", "json"])
    assert result.exit_code == 0, result.output
    made = {row["runs"]: row for row in json.loads(result.stdout)}
    assert set(made) == set(names)
    for row, name in zip(rows, names, strict=True):
        shown = made[name]
        data = {"CIFAR-10": "cifar10", "CIFAR-100": "cifar100", "FashionMNIST": "fashion-mnist"}[row["dataset"]]
        assert (shown["data"], shown["vertices"], shown["batch"]) == (data, int(row["vertices"]), int(row["vertex_batch"]))
        assert shown["single_batch"] == int(row["single_model_batch"])
    text = CliRunner().invoke(table.main, [str(place / "runs")]).stdout.splitlines()
    assert text[0].split()[:4] == ["data", "graph", "n", "batch"] and "shards" not in text[0] and len(text) == 1 + len(rows)
