"""Mailboxes: what a letter says in one process, and the protocols of all of them under a real mpirun with random delays."""

import json
import re
import shutil
import threading
import time
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ROOT, mpirun

from mpiconsensus import config, transport
from mpiconsensus.block import Rows
from mpiconsensus.errors import UserError
from mpiconsensus.placement import Placement
from mpiconsensus.runtime import World
from mpiconsensus.transport import mailbox as mailboxes
from mpiconsensus.transport import waiting
from mpiconsensus.transport.mailbox import board, clock, open_mailbox, p2p
from mpiconsensus.transport.mailbox.pairs import Pairs

MPI = ROOT / "tests" / "mpi"
D = 512
needs_mpi = pytest.mark.skipif(not shutil.which("mpirun"), reason="no mpirun")


def opened(n=3, staged=None):
    readers = {v: [u for u in range(n) if u != v] for v in range(n)}
    box = open_mailbox("auto", World(), Placement(n), D, torch.float64, readers=readers, staged=staged)
    rows = Rows(box.storage())
    box.bind(rows)
    return box, rows


def publish(box, rows, i, clock):
    if box.clock(i, 0) > -2:
        rows.flip(i)
    rows.x(i).fill_(100 * i + clock)
    box.publish(i, clock)


@pytest.mark.parametrize("staged", [False, True])
def test_letters_are_the_last_two_publications(staged):
    box, rows = opened(staged=staged)
    assert box.clock(1, 0) == -2 and box.peek(1, 0) is None
    for number, clock_ in enumerate((-1, 0, 3, 4, 9)):
        before = box.now()
        publish(box, rows, 1, clock_)
        letter = box.peek(1, 0)
        assert letter[:3] == (1, number, clock_) == (1, number, box.clock(1, 0))
        assert before <= letter.stamp <= box.now()
        assert (letter.row == 100 + clock_).all() and len(letter.row) == D
    assert box.peek(1, 0, 9).clock == 9 and box.peek(1, 0, 8).clock == 4 and box.peek(1, 0, 3) is None
    both = [box.peek(1, 0, 9), box.peek(1, 0, 8)]
    assert box.intact(both) and [row.unique().tolist() for *_, row in both] == [[109.0], [104.0]]
    assert box.bytes_sent.tolist() == [0, 5 * 2 * D * 8, 0] and box.rows_wire == 0
    assert box.title.startswith("inprocess")
    box.close()


@pytest.mark.parametrize("staged", [False, True])
def test_a_letter_is_intact_until_its_buffer_may_be_written(staged):
    box, rows = opened(staged=staged)
    publish(box, rows, 0, 0)
    publish(box, rows, 2, 0)
    letters = [box.peek(0, 1), box.peek(2, 1)]
    publish(box, rows, 0, 1)
    # The vertex works in the third buffer now: the first one still is what it was.
    rows.other(0).fill_(-1)
    assert box.intact(letters) and (letters[0].row == 0).all()
    publish(box, rows, 0, 2)
    rows.other(0).fill_(-1)
    if staged:
        assert box.intact(letters) and (letters[0].row == 0).all()  # a copy, until two others were taken
        box.peek(0, 1), publish(box, rows, 0, 3), box.peek(0, 1)
    else:
        assert (letters[0].row == -1).all()
    assert not box.intact(letters) and box.intact(letters[1:]) and box.intact([])
    box.close()


def test_a_row_that_is_overwritten_while_it_is_looked_for_is_looked_for_again():
    box, rows = opened()
    publish(box, rows, 0, 0)
    publish(box, rows, 0, 1)
    looks, plain = [], box._letter

    def late(*arguments):
        letter = plain(*arguments)
        looks.append(letter.clock)
        if len(looks) == 1:
            publish(box, rows, 0, 2)
            publish(box, rows, 0, 3)
        return letter

    box._letter = late
    letter = box.peek(0, 1)
    assert looks == [1, 3] and letter.clock == 3 and box.intact([letter])
    box.close()


def test_what_would_tear_a_row_is_refused():
    box, rows = opened()
    publish(box, rows, 0, 0)
    with pytest.raises(RuntimeError, match="flips once"):
        box.publish(0, 1)
    rows.flip(0)
    rows.flip(0)
    with pytest.raises(RuntimeError, match="flips once"):
        box.publish(0, 1)
    publish(box, rows, 1, 5)
    rows.flip(1)
    with pytest.raises(RuntimeError, match="clocks rise"):
        box.publish(1, 5)
    box.close()


def test_waiting_ends_with_the_clock_with_a_flag_or_with_time():
    cell = memoryview(bytearray(64)).cast("q")[0:1]
    counter, asked = waiting.Counter(cell), []
    wait = lambda value, seconds, stop: counter.wait_some(value, time.monotonic() + seconds, True, stop)
    assert wait(0, 0.0, None) and not wait(1, 0.01, lambda: asked.append(0))
    timer = threading.Timer(0.2, counter.raise_to, [2])
    timer.start()
    assert wait(1, 60, lambda: False)
    flag = threading.Event()
    timer = threading.Timer(0.1, lambda: (flag.set(), counter.wake()))
    timer.start()
    assert not wait(3, 60, flag.is_set)
    times = iter((False, False, True))
    assert waiting.poll(lambda: next(times), 60, lambda: False)
    assert not waiting.poll(lambda: False, 0.01, lambda: False) and not waiting.poll(lambda: False, 60, lambda: True)
    with pytest.raises(ZeroDivisionError):
        wait(3, 60, lambda: 1 / 0)


def test_of_what_is_due_the_older_of_the_last_two_goes_first(monkeypatch):
    sent = []

    def issend(message, rank, tag):
        sent.append((rank, tag, SimpleNamespace(done=False), torch.frombuffer(message[0], dtype=torch.float64, offset=p2p.START)[0].item()))
        return sent[-1][2]

    testsome = lambda requests: [j for j, request in enumerate(requests) if request.done]
    monkeypatch.setattr(p2p, "mpi", lambda: SimpleNamespace(Request=SimpleNamespace(Testsome=testsome)))
    monkeypatch.setattr(p2p, "element", lambda itemsize: None)
    box = p2p.P2P.__new__(p2p.P2P)
    board.Board.__init__(box, World(), Placement(1), D, torch.float64, readers={0: []})
    box.lay(0, board.aligned(box.part(0).size))
    vars(box).update(
        comm=SimpleNamespace(Issend=issend), _edges=[[p2p.Edge(1), p2p.Edge(2)]], _parcels=[[]], _requests=[], _then=[], _is_send=[],
        _closing=False, _moved_s=0.0,
    )
    rows = Rows(box.storage())
    box.bind(rows)
    for number in range(5):
        publish(box, rows, 0, number)
    # The first went out to both ranks and is under way: nothing else is, whatever was published.
    assert [(rank, value) for rank, _, _, value in sent] == [(1, 0.0), (2, 0.0)]
    sent[1][2].done = True
    box._move()
    sent[2][2].done = True
    box._move()
    assert [(rank, value) for rank, _, _, value in sent[2:]] == [(2, 3.0), (2, 4.0)]
    publish(box, rows, 0, 5)
    sent[0][2].done = True
    box._move()
    assert [(rank, value) for rank, _, _, value in sent[4:]] == [(1, 4.0)] and len(box._parcels[0]) == 2


def test_flags_stay():
    box, _ = opened()
    assert box.flags() == 0
    box.raise_flag(2)
    box.raise_flag(5)
    assert box.flags() == 7
    assert box.wait({}, 0) and not box.wait({0: 1}, 0.01)
    box.close()


def test_parts_do_not_overlap_and_rows_start_at_lines():
    for count, d, itemsize in ((1, 256, 4), (40, 512, 8), (33, 256, 2)):
        part = board.Part(count, d, itemsize)
        spans = [(0, board.PAGE)] + [(part.head_at(i), board.HEAD_BYTES) for i in range(count)]
        spans += [(part.row_at(i, slot), d * itemsize) for slot in range(3) for i in range(count)]
        spans.sort()
        assert all(a + size <= b for (a, size), (b, _) in pairwise(spans)) and sum(spans[-1]) <= part.size
        assert all(start % 64 == 0 for start, _ in spans)


@pytest.mark.parametrize("ahead", [0.0, 1000.0, -5000.0])
def test_the_clocks_of_two_nodes_are_one(monkeypatch, ahead):
    """Rank 1's node is `ahead`; its messages take 1 ms each way, now and then 50 ms one way."""
    real = [0.0]
    monkeypatch.setattr(clock, "time", SimpleNamespace(monotonic=lambda: real[0] + ahead))
    trips = iter(range(10**6))

    class Comm:
        def send(self, value, rank, tag):
            real[0] += 0.05 if next(trips) % 3 == 1 else 0.001

        def recv(self, source, tag):
            told = real[0]  # rank 0's clock is the true time
            real[0] += 0.001
            return told

    node = SimpleNamespace(bcast=lambda value: value)
    world = SimpleNamespace(rank=1, nodes=2, comm=Comm(), node_comm=node, node_of_rank=np.array([0, 1]))
    zero = 0.25
    world.bcast = lambda value: zero if isinstance(value, float) else value
    assert abs(clock.Clock(world)() - (real[0] - zero)) < 1e-3


def choose(name="auto", size=4, nodes=1, d=1000, **more):
    world = SimpleNamespace(size=size, nodes=nodes, fullest_node=-(-size // nodes), comm=object() if size > 1 else None)
    return mailboxes.choose(name, world, Placement(8, size, 0), d, torch.float32, **more)


def test_auto_takes_the_fastest_that_fits():
    assert choose(size=1) == "inprocess" and choose() == choose(nodes=2) == "shared" and choose(nodes=4) == "rma"
    assert choose(free=50_000) == "rma" and [choose(name) for name in ("rma", "p2p", "shared")] == ["rma", "p2p", "shared"]


@pytest.mark.parametrize(
    "case, words",
    [
        (dict(name="neighbor"), "rounds.*rma"),
        (dict(name="inprocess"), "one process, 4 ranks"),
        (dict(name="rma", size=1), "mpirun"),
        (dict(name="shared", free=50_000), "/dev/shm"),
        (dict(name="rms"), "Did you mean 'rma'"),
    ],
)
def test_a_mailbox_that_cannot_work_is_refused(case, words):
    with pytest.raises(UserError, match=words) as refused:
        choose(**case)
    assert "\n" not in str(refused.value)


def test_a_round_refuses_what_is_a_mailbox_alone():
    world = SimpleNamespace(size=4, nodes=1, fullest_node=4, comm=object())
    for name in ("rma", "p2p"):
        assert name in config.find("transport.name").choices
        with pytest.raises(UserError, match="asynchronous.*auto, inprocess, shared, neighbor"):
            transport.choose(name, world, Placement(8, 4, 0), 100, torch.float32)


@pytest.fixture(scope="module")
def stressed():
    """What the stress of each mailbox told, by its title."""
    # Small rows: MPI libraries send them off unasked, and would let them pile up.
    done = mpirun(4, MPI / "mailbox_stress.py", "--seconds", 1.5, "--elements", 400, "--transport", "shared", "rma", "p2p", "shared:2")
    assert done.returncode == 0, done.stderr
    return {told["title"]: told for told in map(json.loads, done.stdout.splitlines())}


@needs_mpi
@pytest.mark.parametrize("title", ["shared", "rma", "p2p", "shared in a node, rma between nodes"])
def test_no_row_is_torn_and_no_version_goes_back(stressed, title):
    told = stressed[title]
    # Not in vain: rows were read, older ones asked for, and some were overwritten in the reader's hands, but for messages,
    # which come into a buffer that nobody reads.
    assert told["ranks"] == 4 and told["read"] > 100 and told["older"] > 20 and told["waited"] > 0
    assert (told["lapped"] > 0) == (title != "p2p")


@needs_mpi
def test_pairs_lose_no_update_and_do_not_deadlock():
    done = mpirun(3, MPI / "pairs_stress.py", 200, 1, 2)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["operations"] for line in done.stdout.splitlines()] == [4 * 200 * 3] * 2


@needs_mpi
@pytest.mark.parametrize("name", ["shared", "rma", "p2p"])
def test_who_died_while_waited_for_is_named_within_a_second(name):
    done = mpirun(2, MPI / "mailbox_death.py", name)
    assert done.returncode == 3 and "rank 1" in done.stderr and "died while others waited" in done.stderr
    found = re.findall(r"named after ([0-9.]+) s", done.stdout)
    assert found and min(map(float, found)) < 1


@needs_mpi
def test_who_died_with_a_row_in_its_hands_is_named():
    done = mpirun(2, MPI / "mailbox_death.py", "pairs")
    assert done.returncode == 3 and "rank 1" in done.stderr and "died while it changed the row of vertex 1" in done.stderr


def test_threads_of_one_process_take_turns_on_pairs():
    pairs = Pairs(World(), Placement(3), 1000, torch.float64)

    def move(v, w):
        for _ in range(300):
            with pairs.hold(v, w) as (row_v, row_w):
                before = row_v[0].item()
                time.sleep(0)
                row_v.fill_(before - 1)
                row_w.add_(1)

    threads = [threading.Thread(target=move, args=pair) for pair in ((0, 1), (1, 2), (2, 0), (1, 0))]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    # 0 gives 300 and gets 600, 1 gives 600 and gets 300, 2 gives and gets 300.
    assert [pairs.rows(i).unique().tolist() for i in range(3)] == [[300.0], [-300.0], [0.0]]
    with pairs.hold(2) as (row,):
        row.fill_(7)
    assert (pairs.rows(2) == 7).all()
    with pytest.raises(ZeroDivisionError), pairs.hold(0, 1):
        raise ZeroDivisionError
    with pairs.hold(1, 0):
        pass  # given back
    pairs.close()
