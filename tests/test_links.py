"""Emulated links in real runs: rows are held back as the virtual clock says, in rounds and without."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import cli, mpirun, small_job

from mpiconsensus import config
from mpiconsensus.block import Rows
from mpiconsensus.hetero import Pace
from mpiconsensus.inference import load_model
from mpiconsensus.placement import Placement
from mpiconsensus.runread import Run
from mpiconsensus.runtime import World
from mpiconsensus.schedule import Round
from mpiconsensus.transport import links
from mpiconsensus.transport.mailbox import held, open_mailbox
from mpiconsensus.transport.mailbox.virtual import VirtualMailbox

N, D = 4, 256
DELAYS = {(0, 1): 0.7, (1, 0): 0.7, (0, 2): 2.6, (2, 0): 0.0}


def delay(i, j, nbytes):
    return DELAYS.get((i, j), 1.3) + nbytes / 1e6


def both():
    """Return [(mailbox, its rows)] of a held one on a clock that is set by hand, and of a virtual one; and what sets the clocks."""
    readers = {v: [u for u in range(N) if u != v] for v in range(N)}
    inner = open_mailbox("auto", World(), Placement(N), D, torch.float64, readers=readers)
    real = held.Held(inner, delay)
    virtual = VirtualMailbox(World(), Placement(N), D, torch.float64, readers=readers, delay=delay)
    made = []
    for box in (real, virtual):
        rows = Rows(box.storage())
        box.bind(rows)
        made.append((box, rows))
    now = [0.0]
    inner._time = lambda: now[0]

    def to(seconds):
        now[0] = seconds
        virtual.virtual.time = round(seconds * 1e9)

    return made, to


def test_what_is_held_back_is_what_the_virtual_clock_holds_back():
    """Random publications, a look after each: clocks and rows are those of the virtual mailbox, the newest and one not newer than asked."""
    draw = np.random.default_rng(3)
    made, to = both()
    clocks, time, seen, first = [-1] * N, 0.0, 0, [True] * N
    for _ in range(400):
        time += float(draw.exponential(0.2))
        to(time)
        v = int(draw.integers(N))
        for box, rows in made:
            if not first[v]:
                rows.flip(v)
            rows.x(v).fill_(1000 * v + clocks[v])
            box.publish(v, clocks[v])
        first[v] = False
        clocks[v] += int(draw.integers(1, 3))
        time += float(draw.exponential(0.05))
        to(time)
        for reader in range(N):
            for vertex in range(N):
                if vertex == reader:
                    continue
                for at_most in (None, clocks[vertex] - 3):
                    one, other = (box.peek(vertex, reader, at_most) for box, _ in made)
                    newest = made[1][0].peek(vertex, reader)
                    if at_most is not None and other is not None and other.version < newest.version - 1:
                        continue  # of what has arrived a mailbox promises the last two
                    assert (one is None) == (other is None)
                    if one is not None:
                        assert one[:3] == other[:3] and torch.equal(one.row, other.row) and made[0][0].intact([one])
                        seen += one.version < made[0][0].unheld.peek(vertex, reader).version
                assert made[0][0].clock(vertex, reader) == made[1][0].clock(vertex, reader)
    assert seen > 1000, "most rows were seen late"


def test_of_what_was_published_between_two_looks_the_last_two_are_seen():
    made, to = both()
    box, rows = made[0]
    for t in range(3):
        to(0.1 * t)
        if t:
            rows.flip(0)
        rows.x(0).fill_(t)
        box.inner.publish(0, t)  # as by another rank
    box.flags()
    to(0.75)  # the first one has been under way for longer, but nobody looked while it was there
    assert box.peek(0, 1) is None and box.clock(0, 1) == -2
    for when, seen in ((0.85, 1), (0.95, 2)):
        to(when)
        letter = box.peek(0, 1)
        assert letter.clock == seen == letter.row[0]


def test_rows_that_were_overtaken_are_used_again_and_letters_say_so():
    made, to = both()
    box, rows = made[0]
    for t in range(40):
        to(float(t))
        if t:
            rows.flip(0)
        rows.x(0).fill_(t)
        box.publish(0, t)
        box.flags()
        if t == 3:
            old = box.peek(0, 1)
            assert old.clock == 2 and box.intact([old])
    assert not box.intact([old])
    assert len(box._kept[0]) + len(box._spare) <= 6, "2.6 s of rows under way, and two that have arrived"


def test_a_round_waits_for_the_slowest_of_its_edges(monkeypatch):
    """On a clock by hand: from the start of the round where all rows were there, from the last one where it had to be waited for."""
    hetero = config.Job({"hetero.link_delay_s": 2.0, "hetero.link_bandwidth": 100.0, "hetero.node_size": 2}).hetero
    pace, clock = Pace(hetero, 4, 1), [0.0]
    monkeypatch.setattr(links, "time", SimpleNamespace(monotonic=lambda: clock[0], sleep=lambda s: clock.__setitem__(0, clock[0] + s)))
    near, far = Round(4, {0: ([0, 1], [0.5, 0.5]), 1: ([0, 1], [0.5, 0.5])}), Round(4, {0: ([0, 1, 3], [0.5, 0.25, 0.25])})
    link = links.Links(pace.delay, SimpleNamespace(hosted=[0, 1]), 50)
    assert (link.seconds(near), link.seconds(far)) == (0.0, 2.5)
    for late, round_, expected in ((0.0, far, 12.5), (0.0, near, 11.0), (4.0, far, 17.5), (4.0, near, 15.0)):
        clock[0] = 11.0
        exchange = SimpleNamespace(waits=3, started_s=10.0, round=round_)

        def finish(exchange=exchange, late=late):
            exchange.waits += late > 0
            clock[0] += late
            return "rows"

        exchange.finish = finish
        assert link.finish(exchange) == "rows" and clock[0] == pytest.approx(expected)


def words(*keys):
    return ["train", *small_job(), "--set", "topology.graph=ring:4", *(word for key in keys for word in ("--set", key))]


def rows(run):
    models = (load_model(run, vertex, "last")[0] for vertex in range(4))
    return np.stack([np.concatenate([p.detach().numpy().ravel() for p in model.parameters()]) for model in models])


def ok(done):
    assert done.returncode == 0, done.stderr


STEP_S, DELAY_S = 0.08, 0.2
LINKS = [f"hetero.link_delay_s={DELAY_S}", "hetero.node_size=2"]


def test_no_row_is_younger_than_its_link_allows(tmp_path):
    keys = ["algorithm.name=bounded-staleness", "algorithm.staleness=inf", *LINKS]
    ok(mpirun(4, "-m", "mpiconsensus", *words(*keys, f"hetero.least_step_s={STEP_S}"), "--out", tmp_path / "real"))
    ok(cli(*words(*keys, f"hetero.step_s={STEP_S}"), "--virtual-clock", "--out", tmp_path / "virtual"))
    with Run(tmp_path / "virtual") as run:
        modelled = [int(np.argmax(np.cumsum(ages) > ages.sum() / 4 * quarter)) for ages in [run.ages.sum(axis=1)] for quarter in (1, 3)]
    assert modelled == [0, 3], "half of the rows come from the same node, half three steps late"
    with Run(tmp_path / "real") as run:
        ended, oldest = run.steps("ended_s"), run.steps("age_max")
    least = []
    for i, far in ((0, 3), (1, 2), (2, 1), (3, 0)):
        for t in range(8, len(ended)):
            # a row that had left by then; its vertex published it behind the end of its step before
            left = ended[t, i] - DELAY_S
            newest = int((ended[:, far] <= left).sum())
            begun = int((ended[:t, i] > left).sum())
            least.append(min(t - newest, begun))
            assert oldest[t, i] >= least[-1], (i, t)
    # On a crowded machine a step may take as long as the delay: not all are late.
    assert max(least) >= 1, "or nothing was proved"


def test_rounds_over_slow_links_wait_and_change_no_bit(tmp_path):
    keys = ["training.max_steps=6", "training.epochs=1"]
    ok(mpirun(2, "-m", "mpiconsensus", *words(*keys), "--out", tmp_path / "plain"))
    ok(mpirun(2, "-m", "mpiconsensus", *words(*keys, *LINKS, "hetero.speed=[1,1,1,0.25]", "hetero.least_step_s=0.02"), "--out", tmp_path / "slow"))
    assert np.array_equal(rows(tmp_path / "plain"), rows(tmp_path / "slow"))
    with Run(tmp_path / "slow") as run:
        # 0 and 3, 1 and 2 are on different nodes: every vertex waits for a link at every step
        assert (np.diff(run.steps("ended_s"), axis=0) >= DELAY_S).all()
        assert (run.steps("compute_s")[:, 3] >= 0.08).all() and (run.steps("compute_s")[:, :3] >= 0.02).all()


def test_a_pair_costs_who_asks_for_it_the_way_there_and_back(tmp_path):
    ok(cli(*words("algorithm.name=adpsgd", "training.max_steps=6", "hetero.link_delay_s=0.01", "hetero.link_bandwidth=1e6"), "--out", tmp_path / "run"))
    with Run(tmp_path / "run") as run:
        size = run.facts["parameters"] * 4
        assert run.complete and (run.steps("wait_s") >= 2 * (0.01 + size / 1e6)).all() and math.isfinite(run.closing["consensus_distance"])
