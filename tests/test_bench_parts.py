"""What measurements are made of: rows moved, the floor of a round, sides in turn, caches, warnings."""

import os

import pytest
import torch
from test_bench import near

from mpiconsensus.bench import floor, setting, timing
from mpiconsensus.errors import UserError
from mpiconsensus.runtime import World
from mpiconsensus.topology import build, edges
from mpiconsensus.weights import mixing_matrix, rows


@pytest.mark.parametrize("spec", ["ring:2", "ring:7", "star:6", "torus:3x4", "complete:5"])
def test_the_rows_that_a_round_moves(spec):
    graph = build(spec)
    found = floor.rows_moved(rows(mixing_matrix(len(graph), edges(graph), "metropolis")))
    assert found == sum(degree + 2 for _, degree in graph.degree())


def test_the_least_switches_of_a_round():
    assert [floor.least_switches(ranks, 2) for ranks in (1, 2, 3, 4, 5, 50)] == [0, 0, 1, 1, 2, 24]


@pytest.mark.parametrize("cache, own, running", [(100, 30, 2), (100, 500, 1), (32 << 20, 12 << 20, 2)])
def test_copies_pass_twice_the_cache_with_the_ranks_that_run(cache, own, running):
    sets = floor.sets_beyond(cache, own, running)
    assert sets * own * running >= 2 * cache > (sets - 1) * own * running


def test_a_copy_copies_its_rows():
    copy = floor.Copy(2, 5, torch.float64, sets=3)
    assert copy.bytes == 3 * 2 * 2 * 5 * 8
    for way in copy.ways.values():
        for _, target in copy.pairs:
            target.fill_(2.0)
        for done in range(3):
            assert [bool((target == source).all()) for source, target in copy.pairs] == [i < done for i in range(3)]
            way()
        assert all((side == 1).all() for pair in copy.pairs for side in pair)


def test_sides_take_turns_and_the_first_pass_is_not_kept():
    calls = []
    sides = {name: lambda name=name: calls.append(name) for name in "ab"}
    times = timing.in_turn(sides, 3, World(), calls=2)
    assert calls == list("aabb" * 4) and {name: len(found) for name, found in times.items()} == {"a": 3, "b": 3}


def test_a_pass_without_a_count_is_long_enough(monkeypatch):
    clock, calls = [0.0], {"quick": 0, "slow": 0}

    def side(name, seconds):
        def call():
            clock[0] += seconds
            calls[name] += 1

        return call

    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])
    times = timing.in_turn({"quick": side("quick", 1e-4), "slow": side("slow", 1.0)}, 2, World())
    assert times == {"quick": [near(1e-4)] * 2, "slow": [near(1.0)] * 2}
    # Three passes of a tenth of a second, and the calls by which their length was found.
    assert calls["quick"] == 3 * 1000 + 4 + 16 + 64 + 256 and calls["slow"] == 3 * 1 + 4


def test_caches_are_counted_once(tmp_path):
    shared = {"index0": ("1", "Data", "32K", "{}"), "index1": ("1", "Instruction", "64K", "0-2"), "index2": ("2", "Unified", "1024K", "{}"),
              "index3": ("3", "Unified", "16M", "0-1")}  # fmt: skip
    for cpu in (0, 1, 2):
        for index, values in shared.items():
            folder = tmp_path / f"cpu{cpu}" / "cache" / index
            folder.mkdir(parents=True)
            for name, value in zip(("level", "type", "size", "shared_cpu_list"), values, strict=True):
                (folder / name).write_text(value.format(cpu) + "\n" if cpu < 2 or index != "index3" or name[0] != "s" or name == "size" else "2-3\n")
    found = setting.caches({0, 1, 2}, str(tmp_path / "cpu{}" / "cache"))
    assert found == {"L1": 3 << 15, "L2": 3 << 20, "L3": 32 << 20} and setting.last_level(found) == 32 << 20
    assert setting.caches({0, 1}, str(tmp_path / "cpu{}" / "cache"))["L3"] == 16 << 20
    assert setting.caches({7}, str(tmp_path / "cpu{}" / "cache")) == {} and setting.last_level({}) is None


@pytest.mark.parametrize("ranks, threads, cores, nodes, said", [(4, 1, 4, 1, []), (4, 2, 4, 1, ["4 ranks x 2 threads"]), (5, 1, 4, 2, ["5 ranks x 1 thread ", "2 nodes"])])
def test_what_the_figures_suffer_from_is_told(ranks, threads, cores, nodes, said):
    found = list(setting.warnings({"ranks_on_node": ranks, "threads": threads, "cores": cores, "nodes": nodes}))
    assert len(found) == len(said) and all(words in sentence for words, sentence in zip(said, found, strict=True))


def test_a_graph_without_its_size_takes_vertices_then_ranks_then_the_default():
    alone = [setting.graph_of(World(), "ring", vertices, alone=4)[0].spec for vertices in (None, 6)]
    assert alone == ["ring:4", "ring:6"]
    with pytest.raises(UserError, match="--vertices says 6"):
        setting.graph_of(World(), "ring:4", 6, alone=4)


def test_the_switch_is_between_two_processes_on_one_core():
    switch = floor.Switch(World())
    before = switch.cores
    switch.measure()
    child = switch.child.pid
    assert child != 0 and len(switch.found) == floor.PARTS and all(0 < s < 1 for s in switch.found)
    with open(f"/proc/{child}/status") as file:
        status = dict(line.split(":", 1) for line in file)
    assert status["Cpus_allowed_list"].strip() == str(max(before))
    # Each trip wakes the child once: it gave its core away at least as often.
    assert int(status["voluntary_ctxt_switches"]) > 100
    assert os.sched_getaffinity(0) == before
    switch.close()
    assert switch.child.returncode == 0
