"""The front door: commands as a user types them, their output, their errors and exit codes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from conftest import ROOT, cli, environment, mpirun
from conftest import run as start

from mpiconsensus.inference import load_model
from mpiconsensus.runread import Run

QUICK = ("--set", "data.dataset=mushrooms", "--set", "training.epochs=2")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A directory with one run of 6 vertices on 3 ranks, and what it said."""
    where = tmp_path_factory.mktemp("runs")
    done = mpirun(3, "-m", "mpiconsensus", "train", "--set", "topology.graph=ring:6", "--set", "training.epochs=4", "--out", "net", cwd=where)
    assert done.returncode == 0, done.stderr
    return where, done.stdout


def test_a_run_says_what_it_does_line_by_line(runs):
    where, said = runs
    assert said.count("mpiconsensus 0") == 1, "rank 0 alone speaks"
    for words in ("ring:6", "|lambda_2| = 0.6667", "digits, 1437 training samples", "19,258 parameters", "3 ranks x 1 thread", "Open MPI"):
        assert words in said
    lines = [line.split() for line in said.splitlines() if line.split() and line.split()[0].isdigit()]
    assert [line[0] for line in lines] == ["1", "2", "3", "4"]
    assert float(lines[-1][2]) > 90 and float(lines[-1][1]) < float(lines[0][1])
    assert "closing evaluation" in said and "model" in said
    assert (where / "net" / "stdout.log").read_text() == said


def test_the_directory_holds_job_log_and_models(runs):
    where, _ = runs
    run = Run(where / "net")
    assert run.complete and run.config["topology"]["graph"] == "ring:6"
    assert run.steps("loss").shape == (4 * 15, 6) and np.isfinite(run.steps("loss")).all()
    assert list(run.rank_of_vertex) == [0, 0, 1, 1, 2, 2]
    # Metropolis on a ring: one round a step, to two neighbours, in rows of padded float32.
    rows = run.steps("bytes_sent") / (2 * 4)
    assert (rows == rows[0, 0]).all() and 19_258 <= rows[0, 0] < 19_258 * 1.05
    # Of the six vertices in pairs, each rank sends its two outer rows: half of what the vertices send. On top come the
    # averages that the log and the evaluations need: fewer than eight an epoch, of at most two rows a rank.
    extra = run.epochs("bytes_wire").sum() - run.epochs("bytes_sent").sum() / 2
    assert 0 < extra < 4 * 8 * 3 * 2 * 4 * rows[0, 0]
    assert (run.epochs("sample_bytes_sent") == 0).all()
    assert (run.network("mean_drift") < 1e-5).all() and (run.network("consensus_distance") > 0).all()
    assert sorted(p.name for p in (where / "net" / "model" / "last").iterdir()) == ["mean.safetensors"] + [
        f"vertex-{v:04d}.safetensors" for v in range(6)
    ]


def test_the_mean_model_is_the_mean_of_the_vertices(runs):
    where, _ = runs
    states = [load_model(where / "net", str(v))[0].state_dict() for v in range(6)]
    mean = load_model(where / "net", "mean")[0].state_dict()
    for name, value in mean.items():
        if value.is_floating_point():
            expected = torch.stack([s[name].double() for s in states]).mean(0)
            assert (value.double() - expected).abs().max() < 1e-6 * expected.abs().max().clamp(min=1), name


def test_report_export_and_evaluate_agree_with_the_run(runs):
    where, _ = runs
    report = cli("report", "net", cwd=where)
    closing = Run(where / "net").closing
    mean, sd = 100 * closing["accuracy"].mean(), 100 * closing["accuracy"].std(ddof=1)
    assert report.returncode == 0 and f"{mean:.2f} +- {sd:.2f}" in report.stdout
    exported = cli("export", "net", "--vertex", "3", "--out", "three.safetensors", cwd=where)
    assert exported.returncode == 0 and (where / "three.safetensors").stat().st_size > 4 * 19_258
    for vertex, expected in (("3", closing["accuracy"][3]), ("mean", closing["mean_accuracy"])):
        evaluated = cli("evaluate", "net", "--vertex", vertex, cwd=where)
        assert f"accuracy {100 * expected:.2f} %" in evaluated.stdout, evaluated.stderr
    again = cli("export", "net", "--vertex", "3", "--out", "three.safetensors", cwd=where)
    assert again.returncode == 2 and "is there already" in again.stderr


def test_a_job_file_and_overrides(tmp_path):
    (tmp_path / "mine.toml").write_text('[topology]\ngraph = "star:3"\n[data]\ndataset = "mushrooms"\n[training]\nepochs = 9\n')
    done = cli("train", "mine.toml", "--set", "training.epochs=1", "--set", "algorithm.name=gossip", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = Run(tmp_path / "runs" / "mine-0001")
    assert run.config["training"]["epochs"] == 1 and run.config["algorithm"]["name"] == "gossip" and run.graph["spec"] == "star:3"
    again = cli("train", str(tmp_path / "runs" / "mine-0001" / "job.toml"), "--out", "again", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert np.array_equal(Run(tmp_path / "again").steps("loss"), run.steps("loss"), equal_nan=True), "the resolved job is the job"


def test_a_dry_run_trains_nothing(tmp_path):
    done = cli("train", "--dry-run", "--set", "topology.graph=torus:6x6", cwd=tmp_path)
    assert done.returncode == 0 and not list(tmp_path.iterdir())
    assert '[training]\nepochs = 30' in done.stdout
    for words in ("19,258 parameters", "36 vertices, 72 edges", "|lambda_2| = 0.8000", "memory a rank, 36 ranks"):
        assert words in done.stdout
    # Every step each of 36 vertices sends a row to 4 neighbours; the row is padded to multiples of 256 elements.
    row = -(-19_258 * 1.01 // 256) * 256 * 4
    assert f"{36 * 4 * row / 1e6:.2g}"[:2] in done.stdout


def test_held_out_samples_choose_and_the_test_set_waits(tmp_path):
    done = cli("train", *QUICK, "--set", "topology.graph=ring:3", "--set", "evaluation.validation_fraction=0.2", "--out", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = Run(tmp_path / "run")
    index = json.loads((tmp_path / "run" / "model" / "index.json").read_text())
    assert index["best"]["selected_by"] == "validation" and index["last"]["selected_by"] == "test"
    # A fifth of 6,499 samples over three vertices is held out: 4 in 5 are trained on, in whole batches of 16.
    assert run.epochs("samples").max() <= 0.8 * 6499 / 3 + 1
    assert run.closing["samples"] == 1625 and "held-out" in done.stdout


@pytest.mark.parametrize(
    "words, told",
    [
        (("train", "--set", "training.epoch=3"), "Did you mean 'training.epochs'"),
        (("train", "--set", "training.epochs=three"), "whole number"),
        (("train", "--set", "training.epochs"), "table.key=value"),
        (("train", "--set", "algorithm.name=gosip"), "Did you mean 'gossip'"),
        (("train", "nowhere.toml"), "does not exist"),
        (("train", "broken.toml"), "not TOML"),
        (("train", "wrong.toml"), "unknown table [trainig]"),
        (("train", "--set", "topology.graph=torus:6"), "torus"),
        (("train", "--set", "data.shards=nowhere"), "nowhere"),
        (("train", "--set", "model.name=resnet2O"), "resnet20"),
        (("train", "--set", "hetero.powers=[1, 2]"), "4"),
        (("train", "--set", "topology.graph=ring:1500"), "1437"),
        (("train", "--set", "training.device=cuda"), "CUDA"),
        (("train", "--set", "transport.name=shared"), "mpirun"),
        (("train", "--out", "taken"), "is there already"),
        (("train", "--sett", "a"), "--sett"),
        (("trian",), "Did you mean 'train'"),
        (("report", "nowhere"), "does not exist"),
        (("report", "taken"), "not a run directory"),
        (("export", "taken"), "model/"),
        (("evaluate", "taken"), "model/"),
        (("evaluate", "nowhere"), "does not exist"),
        (("config", "trainig"), "Did you mean"),
    ],
)
def test_a_mistake_is_one_clear_line_and_exit_code_2(tmp_path, words, told):
    (tmp_path / "broken.toml").write_text("[training\n")
    (tmp_path / "wrong.toml").write_text("[trainig]\nepochs = 3\n")
    (tmp_path / "taken").mkdir()
    done = cli(*words, cwd=tmp_path)
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert told in done.stderr and done.stderr.startswith("mpiconsensus: ")
    assert len(done.stderr.strip().splitlines()) == 1 and "Traceback" not in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["broken.toml", "taken", "wrong.toml"]
    assert not list((tmp_path / "taken").iterdir())


def test_wrong_threads_in_the_environment_are_named(tmp_path):
    done = cli("train", cwd=tmp_path, OMP_NUM_THREADS="many")
    assert done.returncode == 2 and "OMP_NUM_THREADS='many'" in done.stderr and not list(tmp_path.iterdir())


def test_more_ranks_than_vertices_and_a_bad_key_under_mpirun(tmp_path):
    for words, told in ((("topology.graph=ring:2",), "3 ranks were started for a graph of 2 vertices"), (("training.lr=-1",), "smallest")):
        done = mpirun(3, "-m", "mpiconsensus", "train", "--set", *words, cwd=tmp_path)
        assert done.returncode == 2, done.stderr
        lines = [line for line in done.stderr.splitlines() if line.startswith("mpiconsensus: ")]
        assert len(lines) == 1 and told in lines[0] and "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_loss_that_is_not_finite_ends_the_run_and_names_vertex_and_step(tmp_path):
    done = mpirun(2, "-m", "mpiconsensus", "train", *QUICK, "--set", "training.lr=1e30", "--out", "run", cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    (line, *_) = [line for line in done.stderr.splitlines() if line.startswith("mpiconsensus: ")]
    assert "the loss at vertex" in line and "at step" in line and "training.lr" in line
    report = cli("report", "run", cwd=tmp_path)
    assert report.returncode == 0 and "incomplete" in report.stdout


def test_a_test_set_that_cannot_be_read_ends_all_ranks_before_the_first_step(tmp_path):
    raw = tmp_path / "raw"
    raw.write_text("".join(f"{1 + k % 2} {1 + k % 3}:1 4:0.5\n" for k in range(40)))
    prepared = start(sys.executable, ROOT / "data_prep" / "libsvm.py", raw, tmp_path / "shards", "--shards", 2)
    assert prepared.returncode == 0, prepared.stderr
    test = tmp_path / "shards" / "test.h5"
    test.write_bytes(test.read_bytes()[:1500])
    for more in ((), ("--set", "evaluation.validation_fraction=0.2")):
        words = ("train", "--set", f"data.shards={tmp_path / 'shards'}", *more, "--out", f"run{len(more)}")
        done = mpirun(2, "-m", "mpiconsensus", *words, cwd=tmp_path, timeout=60)
        assert done.returncode == 2, done.stderr
        assert "test.h5" in done.stderr and "Traceback" not in done.stderr and "\n    1 " not in done.stdout


def test_no_rank_needs_another_s_shards(tmp_path):
    """Each rank sees a directory in which only its own vertices' shards lie: the run is the one with all of them."""
    raw = tmp_path / "raw"
    raw.write_text("".join(f"{1 + k % 2} {1 + k % 3}:1 {4 + k % 5}:0.5\n" for k in range(80)))
    start(sys.executable, ROOT / "data_prep" / "libsvm.py", raw, tmp_path / "shards", "--shards", 4)
    for rank in range(2):
        own = tmp_path / f"rank{rank}" / "shards"
        shutil.copytree(tmp_path / "shards", own)
        for vertex in range(4):
            if vertex // 2 != rank:
                (own / f"shard-{vertex:04d}.h5").unlink()
    words = ["train", "--set", "data.shards=shards", "--set", "training.epochs=2", "--set", "training.batch_size=4", "--out"]
    whole = cli(*words, "whole", "--set", "topology.graph=ring:4", cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    code = "import os; from mpiconsensus.cli import main; os.chdir('rank' + os.environ['OMPI_COMM_WORLD_RANK']); main()"
    apart = mpirun(2, "-c", code, *words, tmp_path / "apart", "--set", "topology.graph=ring:4", cwd=tmp_path)
    assert apart.returncode == 0, apart.stderr
    assert np.array_equal(Run(tmp_path / "apart").steps("loss"), Run(tmp_path / "whole").steps("loss"))


def test_every_vertex_must_have_something_to_hold_out(tmp_path):
    words = ("train", "--set", "hetero.powers=[1000, 1000, 1000, 0.001]", "--set", "evaluation.validation_fraction=0.1")
    done = cli(*words, cwd=tmp_path)
    assert done.returncode == 2 and "vertex 3 has one sample" in done.stderr and not list(tmp_path.iterdir())


def test_a_model_that_fails_in_training_is_told_in_one_line(tmp_path):
    (tmp_path / "mine.py").write_text(
        "import torch\n\n\nclass Net(torch.nn.Linear):\n    def forward(self, x):\n        if self.training:\n"
        "            raise ValueError('no such layer')\n        return super().forward(x.flatten(1))\n\n\n"
        "def build(shape, classes):\n    return Net(64, classes)\n"
    )
    done = cli("train", "--set", "model.name=mine:build", cwd=tmp_path)
    assert done.returncode == 3 and "Traceback" not in done.stderr
    assert "vertex 0, step 0" in done.stderr and "no such layer" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_run_behind_a_checkpoint_and_keeps_its_log(tmp_path, number):
    words = [sys.executable, "-m", "mpiconsensus", "train", "--set", "training.epochs=5000", "--out", "run"]
    process = subprocess.Popen(words, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for line in process.stdout:
        if line.split()[:1] == ["2"]:
            break
    for _ in range(4):  # a scheduler may send it more than once
        os.kill(process.pid, number)
        time.sleep(0.001)
    since = time.monotonic()
    _, stderr = process.communicate(timeout=60)
    assert time.monotonic() - since < 30
    assert process.returncode == 75 and number.name in stderr and "mpiconsensus train --resume run" in stderr
    run = Run(tmp_path / "run")
    assert not run.complete and len(run.epochs("epoch")) >= 2
    assert f"at step {len(run.steps('step'))} of" in stderr, "every step taken is in the log"


def test_lists(tmp_path):
    keys = cli("config").stdout
    assert "epochs = 30" in keys and "passes over the data" in keys and "(atc, cta, dpsgd)" in keys
    algorithms = cli("algorithms").stdout
    for name in ("consensus", "gossip", "local-sgd", "one-shot", "allreduce", "Stich 2019"):
        assert name in algorithms
    models = cli("models").stdout
    assert "resnet20" in models and "package:builder" in models and "mobilenet_v3_small" in models


def test_ones_own_model_from_the_current_directory(tmp_path):
    (tmp_path / "mine.py").write_text(
        "import torch\n\n\ndef build(shape, classes):\n    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, classes))\n"
    )
    done = cli("train", "--set", "model.name=mine:build", "--set", "training.max_steps=3", cwd=tmp_path)
    assert done.returncode == 0 and "650 parameters" in done.stdout, done.stderr
