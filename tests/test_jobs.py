"""Every job of jobs/: it loads, its graph and its model build, its head says where the data come from; the thesis's numbers."""

import itertools
import math
import re
import shlex
import tomllib

import pytest
from conftest import ROOT

from mpiconsensus import config, models, topology, weights
from mpiconsensus.optim import learning_rate
from mpiconsensus.sweep import plan

FILES = sorted((ROOT / "jobs").glob("*.toml"))
SWEEPS = [path for path in FILES if config.SWEEPS & config.read_toml(path).keys()]
JOBS = [path for path in FILES if path not in SWEEPS]
DATA = {  # preparation script -> shape of a sample, classes
    "cifar10.py": ((3, 32, 32), 10),
    "fashion_mnist.py": ((1, 28, 28), 10),
    "npz.py": ((1, 28, 28), 10),  # of jobs/shuffle_fashion.toml
    None: ((1, 8, 8), 10),
}
PLAIN = {"algorithm.name": "consensus", "algorithm.order": "atc", "algorithm.period": 1, "algorithm.rounds": 1, "data.normalize": "published"}
CIFAR = PLAIN | {
    "model.name": "resnet20", "data.augment": "crop-flip", "training.optimizer": "sgd", "training.lr": 0.1, "training.momentum": 0.9,
    "training.weight_decay": 1e-4, "training.warmup_epochs": 5.0, "training.decay": "milestones", "training.milestones": [81, 122],
    "training.gamma": 0.1, "training.epochs": 164, "training.batch_size": 32, "training.scale_lr": False,
}  # fmt: skip
FASHION = PLAIN | {
    "model.name": "fashion-cnn", "data.augment": "none", "training.optimizer": "adam", "training.lr": 0.001, "training.weight_decay": 0.0,
    "training.warmup_epochs": 0.0, "training.decay": "none", "training.epochs": 20, "training.batch_size": 25, "training.scale_lr": False,
}  # fmt: skip
POWERS = [2.0] * 18 + [1.0] * 18
THESIS = [
    ("torus36", "torus:6x6", 36, 72, CIFAR), ("cifar_cycle4", "ring:4", 4, 4, CIFAR), ("fashion_cycle4", "ring:4", 4, 4, FASHION),
    ("expander25", "margulis:25", 25, 70, CIFAR), ("hetero36", "torus:6x6", 36, 72, CIFAR | {"hetero.powers": POWERS}),
    ("grid50", "grid:5x10", 50, 5 * 9 + 4 * 10, CIFAR),
]  # fmt: skip


def test_there_are_jobs():
    assert {"ring4", "expander50"} | {row[0] for row in THESIS} <= {path.stem for path in JOBS}
    assert {"gossip_pairs", "topologies"} <= {path.stem for path in SWEEPS}


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.stem)
def test_a_job_names_what_can_be_built(path):
    can_be_built(path, config.load(path))


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_every_run_of_a_sweep_names_what_can_be_built(path):
    runs = plan.read(path).runs
    assert len(runs) > 1
    for run in runs:
        can_be_built(path, run.job)


def commands(path):
    """Yield the words of the commands that the head of a job names, those of `for m in ...; do COMMAND; done` for every m."""
    for line in itertools.takewhile(lambda line: line.startswith("#"), path.read_text().splitlines()):
        loop = re.search(r"for (\w+) in ([^;]+);", line)
        for command in re.findall(r"python data_prep/[^(;]+", line):
            for value in loop[2].split() if loop else [""]:
                yield shlex.split(command.replace(f"${loop[1]}", value) if loop else command)


def can_be_built(path, job):
    graph = topology.build(job.topology.graph, job.topology.seed)
    head = path.read_text().splitlines()[:2]
    assert all(line.startswith("# ") for line in head)
    script = None
    if job.data.shards:
        powers = ["--powers", ",".join(f"{power:g}" for power in job.hetero.powers)] if job.hetero.powers else []
        wanted = ["RAW", job.data.shards, "--shards", str(len(graph)), *powers]
        (words,) = (words for words in commands(path) if words[2 : 2 + len(wanted)] == wanted)
        assert words[2 + len(wanted) :] in ([], ["--partition", "sorted"]) and ("sorted" in words[-1]) == ("sorted" in job.data.shards)
        script = words[1].removeprefix("data_prep/")
        assert (ROOT / words[1]).exists()
    else:
        assert job.data.dataset == "digits" and "no data_prep command" in head[1]
    shape, classes = DATA[script]
    models.build(job.model.name, shape, classes, norm=job.model.norm, hidden=job.model.hidden)


@pytest.mark.parametrize("name, spec, vertices, edges, values", THESIS, ids=lambda value: value if isinstance(value, str) else "")
def test_a_thesis_row_has_the_thesis_numbers(name, spec, vertices, edges, values):
    job = config.load(ROOT / "jobs" / f"{name}.toml")
    assert {key: job.get(key) for key in values} == values
    assert job.topology.graph == spec
    graph = topology.build(spec)
    assert (graph.number_of_nodes(), graph.number_of_edges()) == (vertices, edges)


def test_the_rate_of_the_cifar_recipe():
    """Warm-up by iteration to 0.1 over 5 epochs, a tenth after epoch 81 and again after epoch 122."""
    per_epoch = 44  # of torus36: ceil(1389 / 32)
    rate = learning_rate(config.load(ROOT / "jobs" / "torus36.toml").training, 36, per_epoch, 164 * per_epoch)
    steps = [0, 109, 219, 220, 81 * 44 - 1, 81 * 44, 122 * 44 - 1, 122 * 44, 164 * 44 - 1]
    rates = [0.1 / 220, 0.05, 0.1, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001]
    assert all(math.isclose(rate(k), expected) for k, expected in zip(steps, rates, strict=True))


def test_ring4_is_the_default_job_written_out():
    job = config.load(ROOT / "jobs" / "ring4.toml")
    changed = {key.name: job.get(key.name) for key in config.KEYS if job.get(key.name) != key.default}
    assert changed.pop("topology.weights") == weights.resolve(topology.net("ring:4", 4), "auto")
    assert changed == {"topology.graph": topology.expand("auto", 4), "model.name": models.default_name("digits", (1, 8, 8))}


def test_expander50_has_fifty_vertices_of_degree_4():
    job = config.load(ROOT / "jobs" / "expander50.toml")
    degrees = dict(topology.build(job.topology.graph, job.topology.seed).degree())
    assert sorted(degrees) == list(range(50)) and set(degrees.values()) == {4}


def runs(path):
    """Return the jobs of a sweep file: the product of its grid, times its runs."""
    sweep = tomllib.loads(path.read_text())
    grid = [dict(zip(sweep["grid"], values)) for values in itertools.product(*sweep["grid"].values())]
    entries = [{key: value for key, value in run.items() if key != "label"} for run in sweep.get("run", [{}])]
    return [config.Job({key: config.check(config.find(key), v) for key, v in {**sweep["set"], **a, **b}.items()}) for a in grid for b in entries]


def test_the_sweeps_are_what_the_page_on_asynchrony_says():
    found = [(j.algorithm.staleness, j.hetero.speed if j.hetero.speed == 1 else tuple(j.hetero.speed)) for j in runs(ROOT / "jobs" / "bounded_staleness.toml")]
    assert len(set(found)) == 21 and {bound for bound, _ in found} == {0, 1, 2, 4, 8, 16, math.inf}
    assert {0 if speed == 1 else speed.count(0.25) for _, speed in found} == {0, 1, 3}
    assert all(j.hetero.slowdown_probability and j.algorithm.name == "bounded-staleness" for j in runs(ROOT / "jobs" / "bounded_staleness.toml"))
    averaged = [(j.algorithm.name, j.algorithm.tau, j.algorithm.tau_growth) for j in runs(ROOT / "jobs" / "periodic_averaging.toml")]
    taus = [1, 2, 4, 8, 16, 32]
    expected = [("local-sgd", tau, growth) for tau in taus for growth in (0, tau)] + [("one-shot", 8, 0)]
    assert sorted(averaged) == sorted(3 * expected)
