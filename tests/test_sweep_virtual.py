"""A sweep of runs by modelled time, which keep no checkpoints: one killed, one told to stop, and the sweep called again."""

import os
import signal

import pytest
from conftest import cli
from test_sweep_local import models, start, under_way, wait_for

from mpiconsensus import modelfiles, process, report, status, trace, watch
from mpiconsensus.errors import UserError
from mpiconsensus.runread import Run

STEPS = 1000
TEXT = f"""
[set]
"model.name" = "logistic"
"topology.graph" = "ring:4"
"training.epochs" = 1000
"training.max_steps" = {STEPS}
"evaluation.samples" = 10
"log.flush_s" = 0.2
"algorithm.name" = "bounded-staleness"
"hetero.clock" = "virtual"
"hetero.slowdown_probability" = 0.1
[grid]
"algorithm.staleness" = [1, 4]
"""
KILLED, STOPPED = NAMES = ["staleness=1", "staleness=4"]
WORDS = ["sweep", "s.toml", "--out", "root", "--local", "--at-once", "1"]


def logged(run):
    """Return whether a run is under way and has epochs in its log."""
    return under_way(run) and bool(status.figures(run)["epoch"])


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """The folder; of the first call (code, output, errors), a view within it and how the runs stood behind it; of the second the CompletedProcess."""
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "s.toml").write_text(TEXT)
    first = start(folder, *WORDS)
    wait_for(lambda: logged(folder / "root" / KILLED), first, "the first run does not start")
    os.kill(process.owner(folder / "root" / KILLED)["pid"], signal.SIGKILL)
    wait_for(lambda: logged(folder / "root" / STOPPED), first, "the second run does not start")
    seen = "\n".join(watch.frame([folder / "root" / STOPPED])[0])
    first.send_signal(signal.SIGINT)
    said = first.communicate(timeout=60)
    between = {f["run"]: f for f in status.look([folder / "root"])}
    return folder, (first.returncode, *said), seen, between, cli(*WORDS, cwd=folder)


def test_who_was_told_to_stop_did_not_fail(swept):
    _, (code, stdout, stderr), _, between, _ = swept
    ends = [line.split()[:2] for line in stdout.splitlines() if line.split()[:1] in (["failed"], ["stopped"])]
    assert ends == [["failed", KILLED], ["stopped", STOPPED]]
    assert "SIGKILL" in stdout and "a run by modelled time keeps no checkpoints and ends here" in stdout
    assert code == 75 and "SIGINT received: 2 of 2 runs are not finished" in stderr
    assert [f["state"] for f in between.values()] == ["ended", "ended"]
    assert all(0 < f["step"] < STEPS for f in between.values())


def test_a_view_of_modelled_time_says_so(swept):
    *_, seen, _, _ = swept
    assert "running" in seen and "of modelled time, " in seen and "left at this pace" in seen


def test_called_again_it_begins_them_anew_and_keeps_what_there_was(swept):
    folder, _, _, between, second = swept
    assert second.returncode == 0 and "2 runs, 0 finished, 2 to do" in second.stdout, second.stderr
    root = folder / "root"
    assert [(f["run"], f["state"], f["step"]) for f in status.look([root])] == [(name, "finished", STEPS) for name in NAMES]
    for name in NAMES:
        assert f"root/{name} ended ahead of its first checkpoint and is kept as root/{name}.1; starting afresh." in (root / "output" / f"{name}.log").read_text()
        with Run(root / f"{name}.1") as kept, Run(root / name) as run:
            assert not kept.complete and (kept.step == between[name]["step"] or name == KILLED), "who is killed loses what was not flushed"
            assert run.complete and run.facts["resumed"] == []


def test_the_end_is_that_of_the_run_left_alone(swept):
    folder, *_ = swept
    done = cli("train", f"root/jobs/{KILLED}.toml", "--out", "alone", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert models(folder / "root" / KILLED) == models(folder / "alone") != models(folder / "root" / STOPPED)


def test_what_was_interrupted_and_what_was_not_are_read_alike(swept, tmp_path):
    folder, *_ = swept
    kept, whole = folder / "root" / f"{STOPPED}.1", folder / "root" / STOPPED
    for run in (kept, whole):
        with Run(run) as log:
            text, steps = report.text([log], "markdown"), log.step
        assert ("incomplete" in text) == (run is kept) and f"steps 0 to {steps - 1}" in trace.write(run, tmp_path / f"{run.name}.json")
    with pytest.raises(UserError, match="train it anew"):
        modelfiles.export(kept, "mean", tmp_path / "mean.safetensors")
