"""Rows on a GPU, without one: the probe of MPI in a real child, and copies on streams that run as late as they may."""

import sys
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from mpiconsensus import arithmetic
from mpiconsensus.errors import UserError
from mpiconsensus.placement import Placement
from mpiconsensus.transport import device, onegpu, shared
from mpiconsensus.transport.neighbor import Neighbor, way

GPU = torch.device("cuda", 0)


def child(code, timeout_s=60):
    return device.succeeds([sys.executable, "-c", code], timeout_s)


def test_only_an_answer_in_time_counts():
    assert child("pass")
    assert not child("raise SystemExit(1)")
    assert not child("import os; os.abort()")


def test_a_hanging_child_is_ended_with_all_that_it_started(tmp_path):
    start = "import subprocess, time; pid = subprocess.Popen(['sleep', '300']).pid"
    code = f"{start}; open({str(tmp_path / 'pid')!r}, 'w').write(str(pid)); time.sleep(300)"
    assert not child(code, timeout_s=5)
    time.sleep(0.1)
    stat = Path(f"/proc/{(tmp_path / 'pid').read_text()}/stat")
    assert not stat.exists() or stat.read_text().split()[2] in "ZX"


def test_the_child_of_a_rank_is_a_run_of_its_own_and_really_sends(monkeypatch):
    for name in ("OMPI_COMM_WORLD_SIZE", "OMPI_MCA_pmix", "PMIX_RANK", "PMI_RANK", "SLURM_STEP_ID", "PRTE_LAUNCHED"):
        monkeypatch.setenv(name, "7")
    monkeypatch.setenv("PMIX_SERVER_URI41", "prterun-nowhere@0,0;tcp4://127.0.0.1:1")
    monkeypatch.setenv("OMPI_MCA_btl", "self,sm")
    assert child("import os; assert [k for k in os.environ if k.startswith(('OMPI', 'PM', 'SLURM', 'PRTE'))] == ['OMPI_MCA_btl']")
    assert device.probe.__wrapped__("cpu")
    assert not device.probe.__wrapped__("meta")


def test_bytes_that_do_not_arrive_are_seen(monkeypatch):
    from mpi4py import MPI

    class Lost:
        Irecv = Isend = staticmethod(lambda message, rank: MPI.REQUEST_NULL)

    fake = SimpleNamespace(COMM_SELF=Lost, buffer=MPI.buffer, INT32_T=MPI.INT32_T, Request=MPI.Request)
    monkeypatch.setattr(device, "mpi", lambda: fake)
    assert not device.sends_to_itself("cpu")
    fake.COMM_SELF = MPI.COMM_SELF
    assert device.sends_to_itself("cpu")


def test_one_node_that_cannot_makes_all_go_through_the_host(monkeypatch):
    monkeypatch.setattr(device, "probe", lambda: True)
    world = lambda node_rank, others: SimpleNamespace(node_rank=node_rank, allgather=lambda mine: [mine, *others])
    assert device.gpu_aware(world(0, [True]))
    assert not device.gpu_aware(world(0, [False]))
    monkeypatch.setattr(device, "probe", lambda: False)
    assert device.gpu_aware(world(1, [True]))  # not asked: rank 0 of the node is
    assert not device.gpu_aware(world(0, [True]))


def test_device_pointers_go_point_to_point():
    never = lambda: pytest.fail("asked without need")
    assert way(None, None, False, never) == ("persistent-collective", False)
    assert way("collective", True, False, never) == ("collective", True)
    assert way(None, None, True, lambda: True) == ("point-to-point", False)
    assert way(None, None, True, lambda: False) == ("persistent-collective", True)
    assert way("collective", None, True, never) == ("collective", True)
    with pytest.raises(UserError, match="device pointers"):
        way("collective", False, True, never)
    with pytest.raises(UserError, match="point-to-point, collective"):
        way("pigeon", None, False, never)


class Stream:
    """A stream that does its work only when somebody waits for it."""

    current = None

    def __init__(self, device=None):
        self.queue, self.done = [], 0

    def wait_stream(self, other):
        upto = len(other.queue)
        self.queue.append(lambda: other.run(upto))

    def run(self, upto):
        while self.done < upto:
            self.done += 1
            self.queue[self.done - 1]()


class Event:
    def __init__(self, blocking=False):
        self.stream = None

    def record(self, stream):
        self.stream, self.upto = stream, len(stream.queue)

    def synchronize(self):
        self.stream.run(self.upto)


class Row:
    def __init__(self, value):
        self.value = value

    def copy_(self, other, non_blocking=False):
        assert non_blocking
        Stream.current.queue.append(lambda: setattr(self, "value", other.value))

    def add(self, number):
        Stream.current.queue.append(lambda: setattr(self, "value", self.value + number))


@pytest.fixture
def lazy_gpu(monkeypatch):
    @contextmanager
    def stream(chosen):
        before, Stream.current = Stream.current, chosen
        yield
        Stream.current = before

    Stream.current = Stream()
    fakes = dict(Stream=Stream, Event=Event, stream=stream, current_stream=lambda device=None: Stream.current)
    for name, fake in {**fakes, "synchronize": None}.items():
        monkeypatch.setattr(torch.cuda, name, fake)


def test_rows_go_through_the_host_after_what_writes_them_and_before_what_reads_them(lazy_gpu):
    staging = device.Staging(GPU)
    row, out, received, came = Row(1), Row(0), Row(0), Row(5)
    row.add(1)
    staging.down([(out, row)])
    assert out.value == 2
    staging.up([(came, received)])
    read = Row(0)
    read.copy_(received, non_blocking=True)
    # The next round's message comes into the host row only once the row has gone up.
    staging.down([])
    came.value = 9
    staging.up([(came, received)])
    again = Row(0)
    again.copy_(received, non_blocking=True)
    staging.up([(Row(7), received)])
    # The copies run as early as they may, what reads the rows as late.
    staging._side.run(len(staging._side.queue))
    device.Settle(GPU)()
    assert (read.value, again.value, received.value) == (5, 9, 7)


def test_a_row_is_handed_out_when_the_gpu_has_written_it_and_given_back_when_it_has_read_it(lazy_gpu, monkeypatch):
    row, seen = Row(1), []
    for name in ("start", "release"):
        monkeypatch.setattr(shared.Shared, name, lambda *_: seen.append(row.value))
    exchange = object.__new__(onegpu.OneGpu)
    exchange._settle = device.Settle(GPU)
    row.add(1)
    exchange.start(None)
    row.add(1)
    exchange.release()
    assert seen == [2, 3]


def test_device_pointers_are_given_to_mpi_when_the_gpu_has_written_the_rows(lazy_gpu):
    row, seen = Row(1), []
    exchange = object.__new__(Neighbor)
    exchange.side, exchange._staging, exchange._settle = [0, 0], None, device.Settle(GPU)
    exchange.rows_sent, exchange._plans = 0, {"round": SimpleNamespace(ranks=[1], receives=[], sends=[])}
    exchange._messages = SimpleNamespace(start=lambda plan, sides: seen.append(row.value))
    row.add(1)
    exchange.start("round")
    assert seen == [2]


def test_the_gpu_of_a_rank_is_its_current_one_and_the_one_that_mpi_sees(monkeypatch):
    chosen = []
    fakes = {"is_available": lambda: True, "device_count": lambda: 4, "set_device": chosen.append, "Event": Event}
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    assert arithmetic.pick_device("auto", SimpleNamespace(node_rank=6)) == torch.device("cuda", 2) == chosen.pop()
    assert arithmetic.pick_device("cpu", SimpleNamespace(node_rank=6)) == torch.device("cpu") and not chosen
    node = SimpleNamespace(allgather=lambda mine: [mine])
    world = SimpleNamespace(rank=0, hosts=["a"], comm=SimpleNamespace(Dup=lambda: SimpleNamespace(Get_attr=lambda key: 99)), node_comm=node)
    Neighbor(world, Placement(2), 4, torch.float32, torch.device("cuda", 3), staged=False)
    assert chosen == [torch.device("cuda", 3)]


def test_without_a_gpu_nobody_is_on_one():
    both = lambda mine: [mine, mine]
    world = SimpleNamespace(size=2, rank=0, node_comm=SimpleNamespace(allgather=both), allgather=both)
    assert not onegpu.on_one_gpu(world, "cpu")


@pytest.mark.parametrize("other, same", [(("A", 0), True), (("B", 0), False), (("A", 1), False), (None, False)])
def test_ranks_are_on_one_gpu_when_they_name_the_same_and_have_read_each_other(monkeypatch, lazy_gpu, other, same):
    full = torch.full
    monkeypatch.setattr(torch, "full", lambda *a, device, **k: full(*a, **k))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="A"))
    node = SimpleNamespace(allgather=lambda mine: [mine, other])
    world = SimpleNamespace(size=2, rank=0, node_comm=node, allgather=lambda mine: [mine])
    for theirs, reads in ((1, True), (0, False)):
        monkeypatch.setattr(onegpu, "exchanged", lambda world, mine, theirs=theirs: {0: mine, 1: [full((3,), theirs)]})
        assert onegpu.on_one_gpu(world, GPU) == (same and reads)
    monkeypatch.setattr(onegpu, "exchanged", lambda world, mine: onegpu._opened(RuntimeError("no peer access")))
    assert not onegpu.on_one_gpu(world, GPU)
