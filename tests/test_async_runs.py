"""Asynchronous runs from job to directory, under a real mpirun and under the virtual clock."""

import json

import numpy as np
import pytest
from conftest import ROOT, cli, mpirun, small_job

from mpiconsensus.inference import load_model
from mpiconsensus.runread import Run

# Five vertices of a ring, three epochs of nine steps.
RING = ["--set", "topology.graph=ring:5"]


def words(*keys, base=RING):
    return ["train", *small_job(), *base, *(word for key in keys for word in ("--set", key))]


def rows(run, n=5, which="last"):
    """Return the parameters of the vertices of a run, (n, p)."""
    models = (load_model(run, vertex, which)[0] for vertex in range(n))
    return np.stack([np.concatenate([p.detach().numpy().ravel() for p in model.parameters()]) for model in models])


def ok(done):
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def synchronous(tmp_path_factory):
    out = tmp_path_factory.mktemp("synchronous") / "run"
    ok(cli(*words(), "--out", out))
    return rows(out)


@pytest.mark.parametrize(("ranks", "transport"), [(0, "virtual"), (3, "shared"), (2, "rma"), (3, "p2p")])
def test_staleness_0_is_the_synchronous_run_bit_for_bit(synchronous, tmp_path, ranks, transport):
    job = words("algorithm.name=bounded-staleness", "algorithm.staleness=0", "hetero.slowdown_probability=0.2", "hetero.link_delay_s=0.05")
    if ranks:
        ok(mpirun(ranks, "-m", "mpiconsensus", *job, "--set", f"transport.name={transport}", "--out", tmp_path / "run"))
    else:
        ok(cli(*job, "--virtual-clock", "--out", tmp_path / "run"))
    assert np.array_equal(rows(tmp_path / "run"), synchronous)
    with Run(tmp_path / "run") as run:
        assert run.complete and run.ages[0].tolist() == [54] * 5 and not run.ages[1:].any()


def test_in_a_real_run_no_clock_is_beyond_the_bound_and_rows_of_every_age_are_mixed(tmp_path):
    bound, n = 3, 8
    job = words(
        "algorithm.name=bounded-staleness", f"algorithm.staleness={bound}", "hetero.slowdown_probability=0.25", "hetero.slowdown_factor=8",
        "hetero.least_step_s=0.004", "transport.name=shared", base=["--set", f"topology.graph=ring:{n}", "--set", "training.epochs=12"],
    )  # fmt: skip
    ok(mpirun(n, "-m", "mpiconsensus", *job, "--out", tmp_path / "run"))
    with Run(tmp_path / "run") as run:
        ended, ages = run.steps("ended_s"), run.ages
        assert ended.shape == (60, n) and (run.steps("age_max")[1:] <= bound).all()
    assert (np.diff(ended, axis=0) > 0).all()
    for i in range(n):
        for j in ((i - 1) % n, (i + 1) % n):
            # i mixed at step t once j had published step t - s, so once j had ended the one before
            assert (ended[bound + 1 :, i] >= ended[: -bound - 1, j]).all()
    # 60 steps of two neighbours, but for the initial row where step 0 came first
    assert ages.sum(axis=0).tolist() == [120] * n and not ages[bound + 1 :].any()
    assert (ages[: bound + 1].sum(axis=1) > 0).all(), ages[:6].sum(axis=1)


@pytest.mark.parametrize(("name", "transport"), [("bounded-staleness", "shared"), ("adpsgd", "shared"), ("async-gossip", "rma")])
def test_a_run_that_stood_still_for_a_checkpoint_goes_on_elsewhere(tmp_path, name, transport):
    keys = [f"algorithm.name={name}", "algorithm.staleness=0", f"transport.name={transport}", "hetero.least_step_s=0.05"]
    ok(mpirun(3, "-m", "mpiconsensus", *words(*keys, "checkpoint.every_epochs=1"), "--set", "training.max_steps=20", "--out", tmp_path / "run"))
    names = [path.name for path in (tmp_path / "run" / "checkpoint").glob("step-*")]
    assert names and all(0 < int(name.removeprefix("step-")) < 20 for name in names), names
    ok(mpirun(2, "-m", "mpiconsensus", "train", "--resume", tmp_path / "run", "--set", "training.max_steps=27"))
    with Run(tmp_path / "run") as run:
        assert run.complete and run.steps("step").tolist() == list(range(27)) and np.isfinite(run.steps("loss")).all()
        assert (np.diff(run.steps("ended_s"), axis=0) > 0).all()
        distances, accuracy = run.network("consensus_distance"), run.network("mean_accuracy")
        # of the last epoch, which is a few steps long here, async-gossip may find vertices ended that rank 0 never looked at
        assert ((distances > 0) & (distances < 2))[:2].all() and (accuracy[:2] > 0.2).all(), (distances, accuracy)
        assert run.closing["mass"] == pytest.approx(1, abs=1e-9)
        # A row to either neighbour, or one there and one back; a running sum is in float64.
        least = 2 * run.facts["parameters"] * (8 if name == "async-gossip" else 4)
        # Whose readers are all through sends no more sums; else all steps count, those that a checkpoint found half done too.
        sent = run.steps("bytes_sent")[: 15 if name == "async-gossip" else 26]
        assert (sent >= least).all() and (sent == sent[0, 0]).all()


@pytest.mark.parametrize("name", ["bounded-staleness", "adpsgd"])
def test_ranks_that_have_ended_come_to_every_meeting_of_those_that_have_not(tmp_path, name):
    keys = [f"algorithm.name={name}", "algorithm.staleness=inf", "hetero.speed=[0.1,1,1]", "hetero.least_step_s=0.005", "checkpoint.every_epochs=1"]
    job = words(*keys, "training.epochs=4", base=["--set", "topology.graph=ring:3"])
    done = ok(mpirun(3, "-m", "mpiconsensus", *job, "--out", tmp_path / "run"))
    assert "are those of rank 0's own vertices" in done.stdout
    with Run(tmp_path / "run") as run:
        ended, per_epoch = run.steps("ended_s"), run.facts["steps_per_epoch"]
        # Rates are of the samples of all vertices: epochs of them last as long as the run.
        assert (run.epochs("samples").sum(axis=1) / run.network("samples_per_s")).sum() == pytest.approx(ended.max())
        # Both others were through ahead of the checkpoints behind the second and the third epoch of vertex 0.
        assert run.complete and (ended[-1, 1:] < ended[2 * per_epoch - 1, 0]).all()


def test_stopped_by_a_signal_staleness_0_ends_with_the_same_bits_on_another_number_of_ranks(synchronous, tmp_path):
    script = ROOT / "tests" / "mpi" / "async_signal.py"
    keys = ["algorithm.name=bounded-staleness", "algorithm.staleness=0"]
    done = mpirun(3, script, *words(*keys), "--out", tmp_path / "run", FAULT=json.dumps({"rank": 1, "step": 9}))
    assert done.returncode == 75, done.stderr
    assert "SIGUSR2 received: stopped at step" in done.stderr and "goes on" in done.stderr
    ok(mpirun(2, "-m", "mpiconsensus", "train", "--resume", tmp_path / "run"))
    assert np.array_equal(rows(tmp_path / "run"), synchronous)
    with Run(tmp_path / "run") as run:
        assert run.complete and run.ages[0].tolist() == [54] * 5


def test_the_first_vertex_that_is_through_ends_the_run_and_all_are_averaged_once(tmp_path):
    job = words("algorithm.name=async-gossip", "hetero.speed=[1,1,1,1,0.25]", "hetero.step_s=0.01", "algorithm.ends=first", "algorithm.final_average=true")
    done = ok(cli(*job, "--virtual-clock", "--out", tmp_path / "run"))
    assert "means nothing" not in done.stdout
    ends = rows(tmp_path / "run")
    assert (ends == ends[0]).all()
    with Run(tmp_path / "run") as run:
        losses, ended = run.steps("loss"), run.steps("ended_s")
        # The last vertex ends its part of the first epoch behind the others' second: no rate, where no time passed.
        rates, seconds = run.network("samples_per_s"), run.network("seconds")
        assert np.isnan(rates[1]) and rates[0] < 1e6 and (np.diff(seconds) >= 0).all()
        # that of the vertices ahead of their average: behind it rounding leaves 1e-7 of the norm
        assert run.complete and run.closing["consensus_distance"] > 1e-3 * np.linalg.norm(ends[0])
    assert f"{run.closing['consensus_distance']:.3g} apart" in done.stdout
    assert np.isfinite(losses[:, :4]).all()
    # at a quarter of the speed 6 of 27 steps are through by then, or one more that was begun
    assert np.isfinite(losses[:, 4]).sum() in (6, 7) and np.isnan(losses[7:, 4]).all()
    np.testing.assert_allclose(ended[:, 0], 0.01 * np.arange(1, 28), rtol=1e-9)


def test_on_ranks_too_the_first_vertex_that_is_through_ends_the_run_and_all_are_averaged(tmp_path):
    keys = ["algorithm.name=adpsgd", "hetero.speed=[0.1,1,1,1,1]", "hetero.least_step_s=0.01", "algorithm.ends=first", "algorithm.final_average=true"]
    ok(mpirun(2, "-m", "mpiconsensus", *words(*keys), "--out", tmp_path / "run"))
    ends = rows(tmp_path / "run")
    assert (ends == ends[0]).all()
    with Run(tmp_path / "run") as run:
        taken = np.isfinite(run.steps("loss")).sum(axis=0)
        # that of the vertices ahead of their average: behind it rounding leaves 1e-7 of the norm
        assert run.complete and run.closing["consensus_distance"] > 1e-3 * np.linalg.norm(ends[0])
    # each gradient of vertex 0 lasts ten times as long
    assert taken.max() == 27 and 0 < taken[0] < 27, taken


def test_under_the_virtual_clock_a_slow_vertex_takes_its_modelled_time(tmp_path):
    job = words("algorithm.name=bounded-staleness", "algorithm.staleness=inf", "hetero.speed=[1,1,0.5,1,1]", "hetero.step_s=2", "hetero.clock=virtual")
    ok(cli(*job, "--out", tmp_path / "run"))
    with Run(tmp_path / "run") as run:
        ended, seconds = run.steps("ended_s"), run.network("seconds")
        distances = run.network("consensus_distance")
    expected = np.arange(1, 28)[:, None] * np.array([2.0, 2, 4, 2, 2])
    np.testing.assert_allclose(ended, expected, rtol=1e-12)
    assert seconds[-1] == 108 and np.isfinite(distances).all()


WRONG = [
    (["hetero.clock=virtual"], "hetero.clock = virtual is for asynchronous algorithms (bounded-staleness, async-gossip, adpsgd)"),
    (["algorithm.name=adpsgd", "training.momentum_policy=mixed"], "mixes parameters alone; take local"),
    (["algorithm.name=adpsgd", "model.buffers=mixed"], "or model.norm = group"),
    (["algorithm.name=async-gossip", "data.shuffle=global"], "samples change vertices between epochs of all"),
    (["algorithm.name=bounded-staleness", "transport.name=neighbor"], "rma (one-sided reads between all ranks) or p2p"),
    (["algorithm.name=bounded-staleness", "transport.name=rma"], "needs MPI ranks"),
    (["algorithm.name=bounded-staleness", "algorithm.staleness=-1"], "the smallest value is 0"),
    (["algorithm.name=bounded-staleness", "hetero.speed=[1,2]"], "hetero.speed has 2 entries, the graph has 5 vertices"),
    (["transport.name=p2p"], "asynchronous"),
]


@pytest.mark.parametrize(("keys", "told"), WRONG)
def test_what_cannot_be_is_told_in_one_line_ahead_of_any_work(tmp_path, keys, told):
    done = cli(*words(*keys), "--out", tmp_path / "run")
    assert done.returncode == 2 and told in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
    assert not (tmp_path / "run").exists()
