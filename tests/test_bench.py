"""The measurements: what they count, what they write, what they refuse, and that a wrong sum is no figure."""

import importlib.util
import json
import math
import statistics
import sys

import pytest
import torch
from conftest import ROOT, cli, mpirun, run
from synthetic import source
from test_data import write as write_shards_of

from mpiconsensus import cli as commands
from mpiconsensus.bench import loader as loading
from mpiconsensus.bench import round as rounds
from mpiconsensus.bench import step as steps
from mpiconsensus.bench import timing
from mpiconsensus.limits import usable_cores
from mpiconsensus.placement import Placement
from mpiconsensus.runtime import World

WRONG = ROOT / "tests" / "mpi" / "wrong_round.py"
COPIES = {"copy, torch", "copy, memcpy"}


def near(value):
    return pytest.approx(value, rel=1e-12)


def check_passes(sides, repeats):
    for side in sides.values():
        assert len(side["passes_s"]) == repeats and all(0 < p < 60 for p in side["passes_s"])
        assert (side["median_s"], side["min_s"], side["max_s"]) == tuple(f(side["passes_s"]) for f in (statistics.median, min, max))


def check_machine(found, kind, ranks):
    assert (found["format"], found["version"], found["kind"]) == ("mpiconsensus bench", 1, kind)
    machine = found["machine"]
    assert machine["ranks"] == machine["ranks_on_node"] == ranks and machine["nodes"] == machine["threads"] == 1
    assert machine["cores"] == usable_cores() and machine["cpu"] and machine["memory"] > 1 << 28 and machine["date"].startswith("20")
    assert {"python", "torch", "numpy", "mpi4py", "mpiconsensus"} <= set(machine["versions"])
    assert ("none" in machine["mpi"]) == (ranks == 1)
    assert bool(found["warnings"]) == (ranks > machine["cores"])


def check_round(found, ranks, n, moved_rows, itemsize, names):
    """Every figure of a round from the passes alone; moved_rows: rows that a round reads and writes."""
    assert [size["parameters"] for size in found["figures"]] == found["settings"]["parameters"]
    assert (found["settings"]["vertices"], found["settings"]["edges"]) == (n, (moved_rows - 2 * n) // 2)
    for size in found["figures"]:
        row = -(-size["parameters"] // 256) * 256 * itemsize
        assert (size["row_bytes"], size["elements"]) == (row, row // itemsize)
        assert (size["moved_bytes"], size["footprint_bytes"]) == (moved_rows * row, 2 * n * row)
        copied_s = {name: size["sides"][name]["median_s"] for name in COPIES}
        assert copied_s[size["floor_by"]] == min(copied_s.values())
        assert size["copy_bytes_per_s"] == near(2 * n * row / min(copied_s.values()))
        assert size["floor_s"] == near(size["moved_bytes"] / size["copy_bytes_per_s"])
        assert set(size["sides"]) == COPIES | names
        check_passes(size["sides"], found["settings"]["repeats"])
        for name in names:
            side = size["sides"][name]
            assert side["over_floor"] == near(side["median_s"] / size["floor_s"])
            if ranks > 1:
                assert side["over_neighbor_allgather"] == near(side["median_s"] / size["sides"]["Neighbor_allgather"]["median_s"])
            else:
                assert side["over_neighbor_allgather"] is None
        caches = found["machine"]["caches"]
        assert size["footprint_in"] == ("not known" if not caches else "memory" if 2 * n * row > caches[max(caches)] else "cache")
    assert found["recommendation"]["transport"] in names - {"Neighbor_allgather"}
    assert (found["switch"] is not None) == (ranks > found["machine"]["cores"])
    if found["switch"]:
        check_passes({"switch": found["switch"]}, len(found["switch"]["passes_s"]))
        assert found["switch"]["in_a_round"] == math.ceil(ranks / found["machine"]["cores"]) - 1
        for size in found["figures"]:
            assert size["floor_and_switches_s"] == near(size["floor_s"] + found["switch"]["in_a_round"] * found["switch"]["median_s"])
            assert size["allowed_s"] == near(2 * size["floor_s"] + ranks * found["switch"]["median_s"])


def test_rounds_of_uneven_ranks_against_floor_and_allgather(tmp_path):
    words = ("--graph", "star:5", "--parameters", "1k", "--parameters", "5.5k", "--repeats", "2", "--dtype", "float64")
    done = mpirun(3, "-m", "mpiconsensus", "bench", "round", *words, "--json", "found.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    check_machine(found, "round", 3)
    # The centre reads five rows, each leaf two, and each of the five writes one.
    check_round(found, 3, 5, 5 + 4 * 2 + 5, 8, {"Neighbor_allgather", "shared", "neighbor"})
    assert list(found["left_out"]) == ["inprocess"] and found["recommendation"]["auto"] == "shared"
    assert f"take       {found['recommendation']['transport']}: " in done.stdout
    assert done.stdout.count("measured ") == 1 and done.stdout.count("\ntake ") == 1, "rank 0 alone speaks"
    for size in found["figures"]:
        (line,) = [line for line in done.stdout.splitlines() if line.startswith(f"{size['parameters']:,} ")]
        assert f"{1e3 * size['floor_s']:.4g}" in line
        for name in ("Neighbor_allgather", "shared", "neighbor"):
            side = size["sides"][name]
            cells = [name, f"{1e3 * side['median_s']:.4g}", f"{side['over_floor']:.2f}", f"{side['over_neighbor_allgather']:.2f}"]
            assert any(set(cells) <= set(line.split()) for line in done.stdout.splitlines()), cells
        told = [line for line in done.stdout.splitlines() if line.startswith(f"switches   {size['parameters']:,}: of twice the floor and 3 switches")]
        assert bool(told) == bool(found["switch"])
        if told:
            assert f"{1e3 * size['allowed_s']:.4g} ms" in told[0]
            assert all(f"{name} {size['sides'][name]['median_s'] / size['allowed_s']:.2f}" in told[0] for name in ("Neighbor_allgather", "shared", "neighbor"))
    assert ("warning: 3 ranks x 1 thread" in done.stdout) == ("floor + " in done.stdout) == (found["machine"]["cores"] < 3)


def test_one_process_hosts_all_vertices(tmp_path):
    done = cli("bench", "round", "--graph", "torus", "--vertices", "6", "--parameters", "300", "--repeats", "1", "--json", "found.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    check_machine(found, "round", 1)
    check_round(found, 1, 6, 6 * 5, 4, {"inprocess"})
    assert set(found["left_out"]) == {"shared", "neighbor"} and found["settings"]["graph"] == "torus:2x3"


def test_one_transport_of_several_and_one_vertex_a_rank(tmp_path):
    done = mpirun(2, "-m", "mpiconsensus", "bench", "round", "--transport", "neighbor", "--parameters", "2k", "--repeats", "1", "--json", "found.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    check_round(found, 2, 2, 2 * 3, 4, {"Neighbor_allgather", "neighbor"})
    assert found["left_out"] == {}
    advice = found["recommendation"]
    assert (advice["transport"], advice["auto"]) == ("neighbor", "shared") and "--set transport.name=neighbor" in done.stdout


@pytest.mark.parametrize("fault, ranks", [("wrong_weight", 1), ("lost_element", 2), ("not_a_number", 2), ("nothing_done", 1), ("allgather", 2)])
def test_a_wrong_sum_is_an_error_and_no_figure(fault, ranks, tmp_path):
    words = (WRONG, fault, "bench", "round", "--parameters", "9k", "--repeats", "1", "--json", "found.json")
    done = mpirun(ranks, *words, cwd=tmp_path) if ranks > 1 else run(sys.executable, *words, cwd=tmp_path)
    assert done.returncode == 3 and done.stderr.count("wrong sum") == 1, done.stderr
    assert ("Neighbor_allgather" if fault == "allgather" else "shared" if ranks > 1 else "inprocess") + " gives" in done.stderr
    assert done.stdout == "" and not (tmp_path / "found.json").exists()


def sizes(**passes):
    """Figures of sizes with these seconds of each transport and a floor of one second."""
    return [
        {"sides": {name: {"passes_s": list(each[i]), "over_floor": statistics.median(each[i])} for name, each in passes.items()}}
        for i in range(len(next(iter(passes.values()))))
    ]


@pytest.mark.parametrize(
    "figures, auto, expected, words",
    [
        (sizes(shared=[(2, 2), (3, 3)], neighbor=[(4, 4), (6, 6)]), "shared", "shared", "shared 2.45 x the floor (geometric mean of 2 sizes), neighbor 4.90 x and slower in 4 of 4"),
        (sizes(shared=[(2, 2), (7, 7)], neighbor=[(4, 4), (4, 4)]), "neighbor", "neighbor", "slower in 2 of 4 passes, which does not"),
        (sizes(shared=[(2, 2)], neighbor=[(4, 4)]), "neighbor", "shared", "neighbor 4.00 x and slower in 2 of 2 passes"),
        (sizes(shared=[(4, 4, 4, 4)], neighbor=[(3, 3, 3, 9)]), "shared", "shared", "slower in 3 of 4 passes, which does not"),
        (sizes(shared=[(5,)], neighbor=[(4,)], inprocess=[(3,)]), "shared", "inprocess", "inprocess 3.00 x the floor, shared 5.00 x"),
        (sizes(shared=[(5,)], neighbor=[(4,)], inprocess=[(3,)]), "rma", "inprocess", "neighbor 4.00 x"),
        (sizes(neighbor=[(4,)]), "shared", "neighbor", "no other one was measured"),
        (sizes(shared=[(2,)]) + sizes(neighbor=[(2,)]), "neighbor", None, "no transport works at every size"),
    ],
)  # fmt: skip
def test_the_transport_to_take(figures, auto, expected, words):
    found = rounds.recommend(figures, auto)
    assert (found["transport"], found["auto"]) == (expected, auto) and words in found["reason"]


def test_what_makes_faults_makes_none_unasked(tmp_path):
    done = run(sys.executable, WRONG, "none", "bench", "round", "--parameters", "9k", "--repeats", "1", cwd=tmp_path)
    assert done.returncode == 0 and "take       inprocess" in done.stdout, done.stderr


@pytest.mark.parametrize("ranks", [1, 2])
def test_loading_against_a_model_step(ranks, tmp_path):
    write_shards_of(tmp_path / "set", n=2, count=23)
    words = ("bench", "loader", "--shards", "set", "--model", "digits-cnn", "--batch", "8", "--repeats", "2", "--json", "found.json")
    done = mpirun(ranks, "-m", "mpiconsensus", *words, cwd=tmp_path) if ranks > 1 else cli(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    check_machine(found, "loader", ranks)
    sides = found["figures"]["sides"]
    assert list(sides) == ["Loader and Augment", "plain indexing", "model step"]
    check_passes(sides, 2)
    for side in sides.values():
        assert side["samples_per_s"] == near(8 * ranks / side["median_s"])
    loading, step = sides["Loader and Augment"]["median_s"], sides["model step"]["median_s"]
    assert found["figures"]["share"] == near(loading / (loading + step)) and found["settings"]["augment"] == "crop-flip"
    assert f"{100 * loading / (loading + step):.1f} % of a training step" in done.stdout


def test_loading_embedded_data_alone(tmp_path):
    done = cli("bench", "loader", "--dataset", "mushrooms", "--repeats", "1", "--batch", "9000", "--json", "found.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["settings"]["model"] == "logistic" and found["figures"]["batch"] == found["figures"]["samples"] < 9000


@pytest.mark.parametrize("ranks, vertices", [(1, 1), (1, 3), (2, 3)])
def test_steps_against_plain_and_with_averaging(ranks, vertices, tmp_path):
    words = ("bench", "step", "--model", "digits-cnn", "--batch", "4", "--vertices", vertices, "--repeats", "3", "--json", "found.json")
    done = mpirun(ranks, "-m", "mpiconsensus", *words, cwd=tmp_path) if ranks > 1 else cli(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    check_machine(found, "step", ranks)
    sides, ratios = found["figures"]["sides"], found["figures"]["ratios"]
    check_passes(sides, 3)
    pairs = {"plain / no exchange": ("plain PyTorch", "mpiconsensus, no exchange")}
    if vertices > 1:
        pairs["averaging / no exchange"] = ("mpiconsensus, averaging", "mpiconsensus, no exchange")
    assert set(sides) == {side for pair in pairs.values() for side in pair} and set(ratios) == set(pairs)
    for name, (over, under) in pairs.items():
        expected = [a / b for a, b in zip(sides[over]["passes_s"], sides[under]["passes_s"], strict=True)]
        assert ratios[name]["median"] == near(statistics.median(expected)) and f"{name}: {ratios[name]['median']:.3f}" in done.stdout
        assert (ratios[name]["min"], ratios[name]["max"]) == (near(min(expected)), near(max(expected)))
    assert found["figures"]["transport"] == (None if vertices == 1 else "inprocess" if ranks == 1 else "shared")


def test_a_step_is_one_at_every_vertex_and_averaging_averages(monkeypatch):
    plain_steps, trainers, make = [], {}, steps.trainer

    def trainer(*words, **keys):
        made = make(*words, **keys)
        trainers[keys.get("algorithm.name", "consensus")] = made
        return made

    monkeypatch.setattr(steps, "trainer", trainer)
    monkeypatch.setattr(steps, "plain", lambda source, model, batch, vertex: lambda: plain_steps.append(vertex))
    steps.measure(World(), "ring:3", Placement(3), "digits-cnn", 4, "auto", 1)
    # Two passes, one that warms up, of twenty steps; the Trainer that exchanges nothing took one ahead.
    assert plain_steps == [0, 1, 2] * 40 and (trainers["consensus"].k, trainers["one-shot"].k) == (40, 41)
    # On three vertices Metropolis weights are thirds: a round makes all of them alike.
    apart = {}
    for name, made in trainers.items():
        first, last = (torch.cat([p.detach().flatten() for p in made.block.modules[i].parameters()]) for i in (0, 2))
        apart[name] = float((first - last).abs().max())
    assert apart["consensus"] < 1e-6 and apart["one-shot"] > 1e-3


def test_what_is_timed_as_loading(monkeypatch):
    taken = {}

    def in_turn(sides, repeats, world):
        taken.update({name: side() for name, side in sides.items()})
        return {name: [1.0] for name in sides}

    monkeypatch.setattr(timing, "in_turn", in_turn)
    data = source(2)
    loading.measure(World(), data, "digits-cnn", 8, 1)
    shard = data.load(0)
    whole = {((image / 255 - 0.5) / 0.25).astype("f4").round(3).tobytes(): label for image, label in zip(shard.x, shard.y, strict=True)}
    images, labels = taken["Loader and Augment"]
    assert [whole[image.numpy().round(3).tobytes()] for image in images] == labels.tolist() and len(labels) == 8
    rows = {image.tobytes(): label for image, label in zip(shard.x, shard.y, strict=True)}
    images, labels = taken["plain indexing"]
    assert [rows[image.tobytes()] for image in images] == labels.tolist() and len(labels) == 8
    losses, _, compute_s = taken["model step"]
    assert 0 < losses[0] < 10 and compute_s[0] > 0


ROUND = ("bench", "round", "--parameters", "300", "--repeats", "1")
REFUSED = [
    (("bench",), "round"),
    (("bench", "rounds"), "Did you mean 'round'?"),
    (("bench", "round", "--parameters", "1.5X"), "'1.5X' is not allowed; give a whole number"),
    (("bench", "round", "--parameters", "0"), "at least 1"),
    (("bench", "round", "--parameters", "-3k"), "at least 1"),
    (("bench", "round", "--parameters", "1.0005k"), "whole number"),
    (("bench", "round", "--parameters", "900G"), "GiB on a node"),
    (("bench", "round", "--parameters", "9" * 400), "at most 1000000G"),
    ((*ROUND, "--transport", "share"), "Did you mean 'shared'?"),
    ((*ROUND, "--transport", "auto"), "choose one of"),
    ((*ROUND, "--transport", "shared"), "mpirun -n 2"),
    ((*ROUND, "--graph", "tours:2x2"), "Did you mean 'torus'?"),
    ((*ROUND, "--graph", "torus", "--vertices", "7"), "the nearest sizes that work"),
    ((*ROUND, "--graph", "ring:4", "--vertices", "5"), "--vertices says 5"),
    ((*ROUND, "--vertices", "1"), "two vertices or more"),
    ((*ROUND, "--vertices", "0"), "--vertices"),
    ((*ROUND, "--dtype", "float16"), "float32"),
    ((*ROUND, "--repeats", "0"), "--repeats"),
    ((*ROUND, "--json", "there.json"), "not written over"),
    ((*ROUND, "--plot", "there.png"), "not written over"),
    ((*ROUND, "--json", "nowhere/found.json"), "no directory 'nowhere'"),
    ((*ROUND, "--json", "a" * 300 + ".json"), "cannot be made"),
    ((*ROUND, "--plot", "there.json/found.png"), "no directory 'there.json'"),
    ((*ROUND, "--plot", "found.jpg"), "choose one of .png"),
    ((*ROUND, "--plot", "found.png", "--json", "found.png"), "a file of its own"),
    (("bench", "loader", "--dataset", "digit"), "Did you mean 'digits'?"),
    (("bench", "loader", "--dataset", "digits", "--shards", "set"), "give one"),
    (("bench", "loader", "--shards", "nowhere"), "no such directory of shards"),
    (("bench", "loader", "--model", "resnet19"), "resnet19"),
    (("bench", "loader", "--json", "there.json"), "not written over"),
    (("bench", "step", "--model", "digits-cn"), "Did you mean 'digits-cnn'?"),
    (("bench", "step", "--model", "digits-cnn", "--batch", "513"), "at most 512"),
    (("bench", "step", "--model", "digits-cnn", "--transport", "rma"), "'rma'"),
    (("bench", "step", "--model", "digits-cnn", "--transport", "shared", "--vertices", "2"), "mpirun -n 2"),
    (("bench", "step", "--plot", "there.png"), "not written over"),
]


def refused(words, capsys, monkeypatch):
    """Return the one line that the command says when it ends with code 2."""
    monkeypatch.setattr(sys, "argv", ["mpiconsensus", *words])
    with pytest.raises(SystemExit) as end:
        commands.main()
    said = capsys.readouterr()
    assert end.value.code == 2 and said.out == ""
    return said.err


@pytest.mark.parametrize("words, message", REFUSED, ids=lambda v: " ".join(v) if isinstance(v, tuple) else "")
def test_a_wrong_value_is_named_ahead_of_any_measurement(words, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("there.json", "there.png"):
        (tmp_path / name).write_text("mine")
    said = refused(words, capsys, monkeypatch)
    assert message in said and "measuring" not in said
    assert words == ("bench",) or said.count("\n") == 1
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"there.json": "mine", "there.png": "mine"}


def test_more_ranks_than_vertices_or_shards_are_refused(tmp_path):
    done = mpirun(3, "-m", "mpiconsensus", *ROUND, "--graph", "ring:2", cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    assert [line for line in done.stderr.splitlines() if "mpiconsensus:" in line] == [
        "mpiconsensus: 3 ranks were started for a graph of 2 vertices; start at most 2 (mpirun -n 2), or take a larger graph (--vertices 3)."
    ]
    write_shards_of(tmp_path / "set", n=2)
    done = mpirun(3, "-m", "mpiconsensus", "bench", "loader", "--shards", "set", cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.count("start at most 2 (mpirun -n 2)") == 1, done.stderr


def test_a_picture_needs_matplotlib(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "matplotlib" else find(name))
    assert "pictures need matplotlib; install it: pip install matplotlib." in refused((*ROUND, "--plot", "found.png"), capsys, monkeypatch)


BEGINS = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}


@pytest.mark.parametrize(
    "words, suffix",
    [(ROUND, "png"), (("bench", "loader", "--repeats", "1"), "pdf"), (("bench", "step", "--model", "digits-cnn", "--repeats", "1"), "svg")],
)
def test_a_picture_is_drawn_and_never_over_another(words, suffix, tmp_path):
    pytest.importorskip("matplotlib")
    path = tmp_path / f"found.{suffix}"
    done = cli(*words, "--plot", path, cwd=tmp_path)
    drawn = path.read_bytes()
    assert done.returncode == 0 and drawn.startswith(BEGINS[suffix]), done.stderr
    assert cli(*words, "--plot", path, cwd=tmp_path).returncode == 2 and path.read_bytes() == drawn


@pytest.mark.parametrize("ranks, script", [(1, "step.py"), (2, "ring.py")])
def test_the_scripts_of_the_performance_page_run(ranks, script):
    words = (ROOT / "benchmarks" / script, "--model", "digits-cnn", "--batch", "4", "--repeats", "2")
    done = mpirun(ranks, *words) if ranks > 1 else run(sys.executable, *words)
    assert done.returncode == 0, done.stderr
    first, second, last = done.stdout.splitlines()
    times = [float(line.split()[-4]) for line in (first, second)]
    assert all(t > 0 for t in times) and last.startswith(f"{first[:13].split()[0]} / ") and "median of 2" in last
