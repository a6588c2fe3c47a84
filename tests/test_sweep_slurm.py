"""Sweeps and status with Slurm: programs that print what sacct, squeue, sbatch and scancel of Slurm 22.05 print, and slurm/sweep_array.sh."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT, cli, environment, run

from mpiconsensus import slurm, status, sweepdirectory

SCRIPT = ROOT / "slurm" / "sweep_array.sh"
TEXT = '[set]\n"model.name" = "logistic"\n"training.max_steps" = 2\n[grid]\n"training.seed" = [1, 2, 3]\n[[run]]\n"topology.graph" = "ring:4"\n[[run]]\n"topology.graph" = "ring:2"\n'
NAMES = [f"graph=ring-{n}-seed={seed}" for n in (4, 2) for seed in (1, 2, 3)]
DISABLED = "echo 'Slurm accounting storage is disabled' >&2; exit 1"
NO_SUCH_JOB = "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1"


def program(folder, name, *lines):
    """Write a shell script `name` into folder/bin that notes its arguments in folder/NAME.words; return the folder of programs."""
    (folder / "bin").mkdir(exist_ok=True)
    path = folder / "bin" / name
    path.write_text(f"#!/bin/sh\nprintf '%s\\n' \"$*\" >> '{folder}/{name}.words'\nenv > '{folder}/{name}.env'\n" + "\n".join(lines) + "\n")
    path.chmod(0o755)
    return path.parent


def prints(text):
    return f"cat << 'END'\n{text}\nEND"


def words(folder, name):
    path = folder / f"{name}.words"
    return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder with s.toml and a Slurm that takes everything and knows of no job; its programs come first on the PATH."""
    (tmp_path / "s.toml").write_text(TEXT)
    program(tmp_path, "sbatch", "echo 41")
    program(tmp_path, "sacct", DISABLED)
    program(tmp_path, "squeue", NO_SUCH_JOB)
    bin = program(tmp_path, "scancel")
    monkeypatch.setenv("PATH", f"{bin}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def submit(site, *more, **changes):
    return cli("sweep", "s.toml", "--out", "root", *more, cwd=site, **changes)


# What the programs print of array 41: finished, failed, running, waiting tasks in one line, and one cancelled by user 0.
SACCT = "41_0|COMPLETED\n41_1|FAILED\n41_2|RUNNING\n41_3|CANCELLED by 0\n41_[4-5%2]|PENDING"
SQUEUE = "41_2|RUNNING\n41_4|PENDING\n41_5|PENDING"


def test_states_of_an_array_by_sacct(site):
    program(site, "sacct", prints(SACCT))
    assert slurm.states(["41_2", "", "41_5"]) == {
        "41_0": "COMPLETED", "41_1": "FAILED", "41_2": "RUNNING", "41_3": "CANCELLED", "41_4": "PENDING", "41_5": "PENDING",
    }  # fmt: skip
    assert words(site, "sacct") == ["--parsable2 --noheader --allocations --format=JobID,State --jobs 41"] and words(site, "squeue") == []


def test_without_accounts_squeue_tells(site):
    program(site, "squeue", prints(SQUEUE))
    assert slurm.states(["41_2"]) == {"41_2": "RUNNING", "41_4": "PENDING", "41_5": "PENDING"}
    assert words(site, "squeue") == ["--noheader --array --states=all --format=%i|%T --jobs 41"]


def test_a_job_that_the_accounts_do_not_know_yet_is_asked_of_squeue(site):
    program(site, "sacct", prints("40|TIMEOUT"))
    program(site, "squeue", prints(SQUEUE))
    assert slurm.states(["40", "41_4"]) == {"40": "TIMEOUT", "41_2": "RUNNING", "41_4": "PENDING", "41_5": "PENDING"}
    assert words(site, "squeue")[0].endswith("--jobs 41")


def test_without_slurm_nothing_is_known(site, monkeypatch):
    assert slurm.states(["41_2"]) == {}
    monkeypatch.setenv("PATH", "/nowhere")
    assert slurm.states(["41_2"]) == {} and slurm.states([""]) == {}


def test_pending_tasks_come_as_ranges():
    assert slurm._tasks("7_[0-6:2,9%4]") == ["7_0", "7_2", "7_4", "7_6", "7_9"]
    assert slurm._tasks("7_[3]") == ["7_3"] and slurm._tasks("7_3") == ["7_3"] and slurm._tasks("7") == ["7"]


def test_submit_files_one_array_of_what_is_missing(site):
    around = {"SLURM_JOB_ID": "5", "SLURM_NTASKS": "9", "SLURM_CONF": "/etc/slurm.conf"}
    done = submit(site, "--at-once", "2", "--submit", "--partition=short", "-t", "10", **around)
    assert done.returncode == 0, done.stderr
    assert "job array 41 of 6 runs" in done.stdout and "mpiconsensus status root" in done.stdout and "mpiconsensus cancel root" in done.stdout
    (filed,) = words(site, "sbatch")
    assert filed.split() == [
        "--parsable", "--job-name=s", "--array=0-5%2", "--ntasks=4", f"--output={site}/root/output/%A_%a.log",
        "--partition=short", "-t", "10", str(SCRIPT), f"{site}/root/jobs/array-1.txt",
    ]  # fmt: skip
    inherited = [line for line in (site / "sbatch.env").read_text().splitlines() if line.startswith("SLURM_")]
    assert inherited == ["SLURM_CONF=/etc/slurm.conf"]
    assert (site / "root" / "jobs" / "array-1.txt").read_text().splitlines() == [f"{name[11]} {name}" for name in NAMES]
    assert sweepdirectory.read(site / "root")["arrays"][0]["job"] == "41"


def test_what_waits_or_runs_is_not_filed_again(site):
    assert submit(site, "--submit").returncode == 0
    program(site, "sacct", prints(SACCT))
    (site / "root" / NAMES[0] / "model").mkdir(parents=True)
    (site / "root" / NAMES[0] / "model" / "index.json").write_text('{"last": {}, "best": {}}')
    shutil.copy(site / "root" / "jobs" / f"{NAMES[0]}.toml", site / "root" / NAMES[0] / "job.toml")
    program(site, "sbatch", "echo 42")
    done = submit(site, "--ranks", "1", "--submit")
    assert done.returncode == 0 and "3 of 6 runs wait or run in Slurm already" in done.stdout
    assert words(site, "sbatch")[1].split()[2:4] == ["--array=0-1", "--ntasks=1"]
    assert (site / "root" / "jobs" / "array-2.txt").read_text().splitlines() == [f"1 {NAMES[1]}", f"1 {NAMES[3]}"]
    # the second array is the one that counts for its runs
    assert [status.job_of(site / "root" / name) for name in NAMES] == ["41_0", "42_0", "41_2", "42_1", "41_4", "41_5"]
    program(site, "sacct", prints(f"{SACCT}\n42_0|RUNNING\n42_1|PENDING"))
    done = submit(site, "--submit")
    assert done.returncode == 0 and "nothing is missing" in done.stdout and len(words(site, "sbatch")) == 2


def test_what_sbatch_refuses_is_told_in_one_line(site):
    program(site, "sbatch", "echo 'sbatch: error: invalid partition specified: none' >&2", "echo 'sbatch: error: Batch job submission failed: Invalid partition name specified' >&2", "exit 1")
    done = submit(site, "--submit", "--partition=none")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert "sbatch refuses: invalid partition specified: none; Batch job submission failed: Invalid partition name specified." in done.stderr
    assert list((site / "root" / "jobs").glob("array-*")) == [] and sweepdirectory.read(site / "root")["arrays"] == []


@pytest.mark.parametrize("option, told", [("--array=0-3", "--at-once"), ("-n", "--ranks"), ("--wrap=x", "slurm/sweep_array.sh")])
def test_options_that_the_sweep_gives_itself_are_refused(site, option, told):
    done = submit(site, "--submit", option)
    assert done.returncode == 2 and told in done.stderr and len(done.stderr.splitlines()) == 1 and not (site / "root").exists()


def test_without_sbatch_it_says_so(site):
    done = submit(site, "--submit", PATH="/nowhere")
    assert done.returncode == 2 and "no sbatch on the PATH" in done.stderr and "--local" in done.stderr and not (site / "root").exists()


def test_status_tells_what_slurm_knows(site):
    assert submit(site, "--submit").returncode == 0
    program(site, "sacct", prints(SACCT))
    (site / "root" / "output" / "41_1.log").write_text("graph ...\nmpiconsensus: run directory 'x' is full.\n")
    done = cli("status", "root", "--json", cwd=site)
    found = json.loads(done.stdout)
    assert [(f["run"], f["state"], f["slurm"], f["job"]) for f in found] == [
        (NAMES[0], "missing", "COMPLETED", "41_0"), (NAMES[1], "missing", "FAILED", "41_1"), (NAMES[2], "running", "RUNNING", "41_2"),
        (NAMES[3], "missing", "CANCELLED", "41_3"), (NAMES[4], "queued", "PENDING", "41_4"), (NAMES[5], "queued", "PENDING", "41_5"),
    ]  # fmt: skip
    lines = status.table(found)
    assert lines[0].split()[-1] == "slurm" and [line.split()[-1] for line in lines[1:7]] == [f["slurm"] for f in found]
    assert lines[7:] == [f"{NAMES[1]}: run directory 'x' is full."]
    # without accounts and without Slurm: the files alone
    program(site, "sacct", DISABLED)
    found = status.look([site / "root"])
    assert {f["state"] for f in found} == {"missing"} and "slurm" not in status.table(found)[0]


def test_a_run_of_slurm_says_which_job_it_is(site):
    run = site / "lone"
    (run / "log").mkdir(parents=True)
    (run / "job.toml").write_text("")
    (run / "log" / "rank-0000.h5").write_bytes(b"")
    (run / "process.json").write_text(json.dumps({"host": "n7", "boot": "", "pid": 1, "start": 1, "slurm": "50", "at": time.time()}))
    program(site, "sacct", prints("50|RUNNING"))
    assert [(f["state"], f["slurm"], f["job"]) for f in status.look([run])] == [("running", "RUNNING", "50")]
    program(site, "sacct", prints("50|NODE_FAIL"))
    assert [(f["state"], f["slurm"]) for f in status.look([run])] == [("ended", "NODE_FAIL")]


def test_cancel_ends_tasks_of_an_array(site):
    assert submit(site, "--submit").returncode == 0
    program(site, "sacct", prints(SACCT))
    done = cli("cancel", f"root/{NAMES[4]}", cwd=site)
    assert done.returncode == 2 and "no directory" in done.stderr, "a run that has not begun is known to its sweep alone"
    done = cli("cancel", "root", cwd=site)
    assert done.returncode == 0 and words(site, "scancel") == ["41_2 41_4 41_5"]
    assert [line.partition(": ")[2] for line in done.stdout.splitlines()] == [
        "scancel 41_2, which was RUNNING", "scancel 41_4, which was PENDING", "scancel 41_5, which was PENDING",
    ]  # fmt: skip
    program(site, "sacct", prints("41_[0-5]|CANCELLED by 0"))
    done = cli("cancel", "root", cwd=site)
    assert done.returncode == 2 and "not under way" in done.stderr and "Slurm tells of no job" in done.stderr
    program(site, "sacct", prints(SACCT))
    program(site, "scancel", "echo 'scancel: error: Kill job error on job id 41_2: Access/permission denied' >&2", "exit 1")
    done = cli("cancel", "root", cwd=site)
    assert done.returncode == 2 and "Access/permission denied" in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.fixture
def task(site):
    """The site with a filed sweep and a launcher called mpirun that only takes notes."""
    assert submit(site, "--submit").returncode == 0
    program(site, "mpirun", '[ "$1" = --version ] && { echo "mpirun (Open MPI) 5.0"; exit; }', f'[ ! -e "{site}/behaviour" ] || . "{site}/behaviour"')
    program(site, "scontrol")
    path = os.pathsep.join([str(site / "bin"), os.path.dirname(sys.executable), os.environ["PATH"]])
    return site, {"VENV": "", "PATH": path, "LAUNCHER": "mpirun"}


def launched(site):
    return [line for line in words(site, "mpirun") if line != "--version"]


def test_a_task_of_the_array_trains_its_run(task):
    site, env = task
    listed = site / "root" / "jobs" / "array-1.txt"
    allocation = {"SLURM_JOB_ID": "44", "SLURM_ARRAY_JOB_ID": "41", "SLURM_ARRAY_TASK_ID": "4", "SLURM_SUBMIT_DIR": str(site)}
    copy = shutil.copy(SCRIPT, site / "slurm_script")  # Slurm runs a copy
    done = run("bash", copy, listed, "--set", "log.flush_s=1", cwd="/", **env, **allocation)
    assert done.returncode == 0, done.stderr
    root = site / "root"
    train = f"python3 -m mpiconsensus train {root}/jobs/{NAMES[4]}.toml --out {root}/{NAMES[4]} --resume auto --set log.flush_s=1"
    assert launched(site) == [f"--bind-to none -n 2 {train}"]
    assert f"PWD={site}" in (site / "mpirun.env").read_text().splitlines()
    done = run("bash", copy, listed, cwd="/", **env, **allocation | {"SLURM_ARRAY_TASK_ID": "6"})
    assert done.returncode == 2 and "no task 6, but 6" in done.stderr


def test_without_slurm_the_script_trains_all_runs_of_the_list(task):
    site, env = task
    (site / "behaviour").write_text('case "$*" in *ring-2-seed=1*) exit 3;; esac\n')
    done = run("bash", SCRIPT, "root/jobs/array-1.txt", cwd=site, RANKS="3", **env)
    assert done.returncode == 3, "of one that failed"
    assert [line.split()[:5] for line in launched(site)] == [["--bind-to", "none", "--oversubscribe", "-n", n] for n in "333222"]
    assert [line.partition("--out ")[2].split()[0] for line in launched(site)] == [f"{site}/root/{name}" for name in NAMES]
    done = run("bash", SCRIPT, "nowhere.txt", cwd=site, **env)
    assert done.returncode == 2 and "no list nowhere.txt" in done.stderr
    done = run("bash", SCRIPT, "root/jobs/array-1.txt", cwd=site, **env | {"LAUNCHER": "no-such-mpirun"})
    assert done.returncode == 2 and "no no-such-mpirun on the PATH" in done.stderr


@pytest.mark.parametrize("restarts, requeued", [("0", ["requeue 41_4"]), ("5", [])])
def test_a_launcher_that_lost_a_node_and_ends_with_0_is_not_believed(task, restarts, requeued):
    site, env = task
    (site / "root" / NAMES[4] / "log").mkdir(parents=True)
    allocation = {"SLURM_JOB_ID": "44", "SLURM_ARRAY_JOB_ID": "41", "SLURM_ARRAY_TASK_ID": "4", "SLURM_RESTART_COUNT": restarts}
    done = run("bash", SCRIPT, site / "root" / "jobs" / "array-1.txt", cwd=site, **env, **allocation)
    assert done.returncode == 1 and f"the run in {site}/root/{NAMES[4]} is not finished" in done.stderr
    assert words(site, "scontrol") == requeued


def test_the_script_needs_what_it_shares_with_the_others(site):
    (site / "slurm").mkdir()
    shutil.copy(SCRIPT, site / "slurm" / SCRIPT.name)
    done = submit(site, "--submit")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and "needs run.bash beside it" in done.stderr
    assert not (site / "root").exists()
    done = run("bash", site / "slurm" / SCRIPT.name, "nowhere.txt", cwd=site)
    assert done.returncode == 2 and "no ./run.bash; submit by: mpiconsensus sweep" in done.stderr


@pytest.mark.parametrize("number, requeued", [(signal.SIGUSR2, ["requeue 41_4"]), (signal.SIGTERM, [])])
def test_a_signal_reaches_the_launcher_and_time_alone_asks_for_a_requeue(task, number, requeued):
    site, env = task
    (site / "behaviour").write_text(f"trap 'kill $!; exit 75' USR2; trap '' TERM INT; sleep 60 & touch '{site}/trained'; wait; exit 9\n")
    allocation = {"SLURM_JOB_ID": "44", "SLURM_ARRAY_JOB_ID": "41", "SLURM_ARRAY_TASK_ID": "4", "SLURM_SUBMIT_DIR": str(site)}
    shell = subprocess.Popen(["bash", SCRIPT, site / "root" / "jobs" / "array-1.txt"], env=environment(**env, **allocation))
    until = time.monotonic() + 30
    while not (site / "trained").exists():
        assert shell.poll() is None and time.monotonic() < until
        time.sleep(0.02)
    shell.send_signal(number)
    assert shell.wait(30) == 75 and words(site, "scontrol") == requeued


@pytest.mark.parametrize("number", [signal.SIGUSR2, signal.SIGTERM])
def test_a_signal_that_a_run_does_not_live_to_see_still_ends_the_list(task, number):
    site, env = task
    (site / "behaviour").write_text(f"trap 'kill $!; exit 0' USR2; trap '' TERM INT; sleep 60 & touch '{site}/trained'; wait; exit 9\n")
    shell = subprocess.Popen(["bash", SCRIPT, site / "root" / "jobs" / "array-1.txt"], env=environment(**env))
    until = time.monotonic() + 30
    while not (site / "trained").exists():
        assert shell.poll() is None and time.monotonic() < until
        time.sleep(0.02)
    shell.send_signal(number)
    assert shell.wait(30) == 75 and len(launched(site)) == 1 and words(site, "scontrol") == []


def test_the_script_trains_for_real_and_slurm_knows_better_than_the_clock(task, monkeypatch):
    site, env = task
    (site / "behaviour").write_text('while [ "$1" != python3 ]; do shift; done; shift; exec "$PYTHON" "$@"\n')
    listed = site / "root" / "jobs" / "array-9.txt"
    listed.write_text(f"2 {NAMES[3]}\n")
    done = run("bash", SCRIPT, listed, cwd=site, **env, PYTHON=sys.executable)
    assert done.returncode == 0, done.stderr
    (found,) = [f for f in status.look([site / "root"]) if f["state"] == "finished"]
    assert found["run"] == NAMES[3] and found["step"] == 2
    # As a run without an end on another machine, whose log was written to a moment ago.
    trained = site / "root" / NAMES[3]
    (trained / "model" / "index.json").unlink()
    monkeypatch.setattr(status.socket, "gethostname", lambda: "another")
    (trained / "log" / "rank-0000.h5").touch()
    told = {word: status.figures(trained, "41_3", word)["state"] for word in ("", "RUNNING", "PENDING", "NODE_FAIL")}
    assert told == {"": "running", "RUNNING": "running", "PENDING": "queued", "NODE_FAIL": "ended"}


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="shellcheck is not installed")
def test_the_script_is_clean():
    done = run("shellcheck", "--external-sources", SCRIPT, cwd=ROOT)
    assert done.returncode == 0, done.stdout
