"""Streams, the concurrency that auto takes, and what a run says of it."""

import contextlib
import itertools
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch
from conftest import cli, mpirun
from test_concurrency import UNEQUAL, N, state, trainer

from mpiconsensus import concurrency
from mpiconsensus.concurrency.streams import Streams
from mpiconsensus.errors import UserError


def test_streams_need_cuda(tmp_path):
    done = cli("train", "--set", "training.concurrency=streams", cwd=tmp_path)
    assert done.returncode == 2 and "streams needs a CUDA device" in done.stderr and not list(tmp_path.iterdir())


class Stream:
    """Stands for a CUDA stream: notes who waits for whom and which passes run where."""

    log, now = [], None

    def __init__(self, device=None):
        self.number = -1

    def wait_stream(self, other):
        Stream.log.append(("wait", self.number, other.number))

    @staticmethod
    @contextlib.contextmanager
    def within(stream):
        Stream.now = stream.number
        yield
        Stream.now = None


def test_streams_are_the_passes_of_serial_each_on_its_stream(monkeypatch):
    """Against a stand-in: what a GPU makes of it is not seen here."""
    main = Stream()
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", Stream.within)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: main)
    serial, t = trainer(**UNEQUAL), trainer(**UNEQUAL)

    class OnCuda:
        device = torch.device("cuda")

        def __getattr__(self, name):
            return getattr(t, name)

        def draw(self, i):
            Stream.log.append(("draw", i, Stream.now))
            return t.draw(i)

        def backward(self, i, *args):
            Stream.log.append(("pass", i, Stream.now))
            return t.backward(i, *args)

    t.concurrency = Streams(OnCuda())
    for number, stream in enumerate(t.concurrency.streams):
        stream.number = number
    for k in range(6):
        Stream.log.clear()
        losses = t.step()[0]
        assert np.array_equal(losses, serial.step()[0], equal_nan=True)
        trained = [i for i in range(N) if k % UNEQUAL["algorithm__train_every"][i] == 0]
        passes = [[("wait", i, -1), ("pass", i, i)] for i in trained]
        assert Stream.log == [("draw", i, None) for i in trained] + list(itertools.chain(*passes)) + [("wait", -1, i) for i in trained]
    assert torch.equal(state(t), state(serial))


@pytest.mark.parametrize(
    "device, sizes, reason", [("cpu", [8, 8], "no GPU"), ("cuda", [8], "one vertex"), ("cuda", [8, 6], "differ"), ("cuda", [8, 8], "")]
)
def test_auto_takes_batched_where_it_pays(device, sizes, reason, monkeypatch):
    made, others = [], [""]

    class Fake(concurrency.Batched):
        def __init__(self, trainer):
            made.append(self)
            if trainer.refused:
                raise UserError("no such model")

    monkeypatch.setattr(concurrency, "Batched", Fake)
    world = SimpleNamespace(allgather=lambda text: [text, *others])
    job = SimpleNamespace(training=SimpleNamespace(concurrency="auto"))
    loaders = [SimpleNamespace(batch_size=size) for size in sizes]
    t = SimpleNamespace(device=torch.device(device), loaders=loaders, world=world, job=job, refused=False)
    found = concurrency.open_concurrency(t)
    assert found.name == ("serial" if reason else "batched") and reason in found.describe() and len(made) == (not reason)
    if not reason:
        others[:] = ["another rank cannot"]
        assert "serial, one vertex after the other (auto: another rank cannot)" == concurrency.open_concurrency(t).describe()
        others[:], t.refused = [""], True
        assert concurrency.open_concurrency(t).describe().endswith("(auto: no such model)")


JOB = ["--set", "topology.graph=ring:5", "--set", "training.precision=float64", "--set", "training.max_steps=20", "--out", "run"]


def logged(folder):
    with h5py.File(folder / "run" / "run.h5") as file:
        return file["steps/loss"][:]


def test_a_run_says_what_it_takes_and_logs_the_same_losses_on_two_ranks(tmp_path):
    ways = {"auto": None, "batched": None, "two": None}
    for name in ways:
        (tmp_path / name).mkdir()
        words = ["train", *JOB, "--set", f"training.concurrency={'auto' if name == 'auto' else 'batched'}"]
        where = {"cwd": tmp_path / name}
        done = mpirun(2, "-m", "mpiconsensus", *words, **where) if name == "two" else cli(*words, **where)
        assert done.returncode == 0, done.stderr
        ways[name] = logged(tmp_path / name)
        said = "serial, one vertex after the other (auto: no GPU)" if name == "auto" else "batched, the vertices of a rank in one call"
        assert f"gradients  {said}" in done.stdout
    np.testing.assert_allclose(ways["batched"], ways["auto"], rtol=0, atol=1e-10)
    np.testing.assert_allclose(ways["two"], ways["auto"], rtol=0, atol=1e-10)
    assert not np.array_equal(ways["batched"], ways["auto"]) and np.ptp(ways["auto"]) > 0.1
