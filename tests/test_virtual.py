"""The virtual clock: modelled time, exact replay, gradients in one call, arrivals, losses, ends; and the table [hetero]."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from synthetic import source
from virtual import Run, job, rows, still, trainer

from mpiconsensus.asynchronous.postal import Learner
from mpiconsensus.block import Rows
from mpiconsensus.concurrency.batched import draw_alike
from mpiconsensus.errors import TrainingError, UserError
from mpiconsensus.hetero import Pace
from mpiconsensus.transport.mailbox.virtual import NS, VirtualMailbox, VirtualPairs

NAMES = ["bounded-staleness", "async-gossip", "adpsgd"]
UNEQUAL = dict(
    hetero__speed=[1.0, 0.7, 0.25, 1.0, 0.9, 1.1], hetero__slowdown_probability=0.2, hetero__link_delay_s=0.4, algorithm__staleness=math.inf
)  # fmt: skip


def pace(n=6, seed=1, **keys):
    return Pace(job(**{f"hetero__{name}": value for name, value in keys.items()}).hetero, n, seed)


# How long things take.


def test_a_gradient_takes_as_long_as_the_speed_says():
    found = pace(speed=[1.0, 0.25, 2.0, 1.0, 1.0, 0.5])
    assert [found.seconds(i, 7, 0.2) for i in range(6)] == [0.2, 0.8, 0.1, 0.2, 0.2, 0.4]
    assert pace(speed=0.5).seconds(3, 0, 1.0) == 2.0
    with pytest.raises(UserError, match="hetero.speed has 2 entries, the graph has 6 vertices"):
        pace(speed=[1.0, 2.0])
    with pytest.raises(UserError, match="hetero.link_bandwidth = 1e-300 is not allowed; give 1 byte a second or more, or 0"):
        pace(link_bandwidth=1e-300)


def test_slow_downs_are_drawn_from_seed_vertex_and_step():
    found = pace(slowdown_probability=0.3, slowdown_factor=5.0)
    factors = np.array([[found.factor(i, t) for t in range(2000)] for i in range(6)])
    assert set(factors.ravel()) == {1.0, 5.0}
    # 12,000 draws: four standard deviations.
    assert abs((factors == 5).mean() - 0.3) < 4 * np.sqrt(0.3 * 0.7 / 12_000)
    again = pace(slowdown_probability=0.3, slowdown_factor=5.0)
    assert all(again.factor(i, t) == factors[i, t] for t in (1999, 3, 700, 3) for i in (5, 0))
    other = pace(seed=2, slowdown_probability=0.3, slowdown_factor=5.0)
    assert 0.3 < np.mean([other.factor(0, t) != factors[0, t] for t in range(500)]) < 0.55
    assert not np.array_equal(factors[0], factors[1])


def test_slow_downs_last_as_long_as_they_are_told():
    long = pace(slowdown_probability=0.3, slowdown_steps=10)
    factors = np.array([long.factor(2, t) for t in range(400)]).reshape(40, 10)
    assert (factors == factors[:, :1]).all() and len(set(factors[:, 0])) == 2


def test_a_row_takes_as_long_as_the_edge_says():
    found = pace(n=8, link_delay_s=0.01, link_bandwidth=1e6, node_size=4)
    assert found.delay(0, 4, 5000) == pytest.approx(0.015) and found.delay(7, 3, 0) == 0.01
    assert found.delay(0, 3, 5000) == 0.0 and found.delay(5, 6, 5000) == 0.0
    assert pace(n=8, link_delay_s=0.01).delay(0, 1, 10**9) == 0.01


# The engine.


@pytest.mark.parametrize("name", NAMES)
def test_a_run_replays_exactly(name):
    first, second = (Run(25, algorithm__name=name, training__precision="float32", **UNEQUAL).run() for _ in range(2))
    assert first.history == second.history
    assert np.array_equal(rows(first.t), rows(second.t))
    other = Run(25, algorithm__name=name, training__precision="float32", **UNEQUAL, training__seed=2).run()
    assert other.history != first.history


@pytest.mark.parametrize("name, kept", [("bounded-staleness", 0.0), ("async-gossip", 0.0), ("adpsgd", 0.8)])
def test_steps_take_their_modelled_seconds(name, kept):
    """Without a bound nobody waits for anything but, with pairs, the way there and back."""
    run = Run(20, still, algorithm__name=name, **UNEQUAL | dict(hetero__slowdown_probability=0.0)).run()
    for i, speed in enumerate(UNEQUAL["hetero__speed"]):
        mine = [step for step in run.history if step.i == i]
        assert [step.t for step in mine] == list(range(20))
        assert mine[-1].ended_s == pytest.approx(20 * (1 / speed + kept), abs=1e-6)
        assert [(step.compute_s, step.wait_s) for step in mine] == 20 * [pytest.approx((1 / speed, kept), abs=1e-9)]


@pytest.mark.parametrize("name", NAMES)
def test_gradients_of_a_moment_are_taken_in_one_call(name):
    """The row of a vertex stays as it is until its gradient is through, so it does not matter when it is taken."""
    run, calls = Run(30, algorithm__name=name, **UNEQUAL), []

    def gradients(pairs):
        calls.append(len(pairs))
        taken.update((i, run.block.x(i).clone()) for i, _ in pairs)
        return Run.gradients(run, pairs)

    def update(i, k):
        assert torch.equal(run.block.x(i), taken[i])
        Run.update(run, i, k)

    taken, run.gradients, run.update = {}, gradients, update
    run.run()
    assert sum(calls) == 180 and len(calls) < 120 and max(calls) == 6
    single = Run(30, algorithm__name=name, **UNEQUAL)
    single.engine.learner = SimpleNamespace(gradients=lambda pairs: [Run.gradients(single, [pair])[0] for pair in pairs], update=single.update)
    assert single.run().history == run.history
    assert np.array_equal(rows(single.t), rows(run.t))


@pytest.mark.parametrize("name", NAMES)
def test_batched_gradients_are_the_serial_ones_to_rounding(name):
    serial, batched = (
        Run(30, algorithm__name=name, data=source(6, (1, 3, 3), 3, each=24), training__concurrency=way, training__momentum=0.9, **UNEQUAL).run()
        for way in ("serial", "batched")
    )
    assert np.abs(rows(serial.t) - rows(batched.t)).max() < 1e-12
    assert [step._replace(loss=0) for step in serial.history] == [step._replace(loss=0) for step in batched.history]
    assert np.abs(np.subtract(*([step.loss for step in run.history] for run in (serial, batched)))).max() < 1e-12


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("keys", [dict(training__momentum=0.9, training__weight_decay=0.01, training__warmup_epochs=1), dict(training__optimizer="adam", training__clip=0.05)])
def test_updates_that_are_made_ahead_are_those_of_their_time(name, keys):
    """Bit for bit, and the rows are as they were until then."""
    changes = dict(algorithm__name=name, training__precision="float32", **UNEQUAL | keys)
    plain, ahead = Run(30, **changes), Run(30, **changes)

    def clipped(i, t):
        plain.t.clip([i])
        Run.update(plain, i, t)

    plain.engine.learner = SimpleNamespace(gradients=plain.gradients, update=clipped)
    ahead.t.t, ahead.t.rate_of = [0] * 6, lambda i, t: ahead.t.rate(t) * ahead.algorithm.pace(t, i)
    learner = ahead.engine.learner = Learner(ahead.t)
    assert plain.run().history == ahead.run().history
    assert learner._rows and np.array_equal(rows(plain.t), rows(ahead.t))
    for i in range(6):
        mine, theirs = (run.t.optimizers.state_dict(i) for run in (plain, ahead))
        assert mine.keys() == theirs.keys() and all(torch.equal(mine[word], theirs[word]) for word in mine)


def test_features_drawn_together_are_those_drawn_one_by_one():
    one, other = (trainer(source(6, (5,), 3, each=20), training__precision="float32") for _ in range(2))
    for t in (one, other):
        t.augment._factor, t.augment._offset, t.augment._plain = torch.full((5,), 0.3), torch.full((5,), -0.7), False
    for indices in ([0, 2, 3], [1], [2, 3, 5], [0, 1, 2]):
        x, y = draw_alike(one, indices)
        for i, mine, label in zip(indices, x, y, strict=True):
            wanted = other.draw(i)
            assert torch.equal(mine, wanted[0]) and torch.equal(label, wanted[1])
            assert all(map(torch.equal, one.last_batch[i], wanted))
    assert one.batches_drawn == other.batches_drawn == [2, 2, 3, 2, 0, 1]


def test_at_one_moment_all_publish_before_any_mixes():
    run = Run(10, still, algorithm__name="bounded-staleness", algorithm__staleness=math.inf).run()
    assert set(run.ages) == {0} and len(run.ages) == 10 * 12


@pytest.mark.parametrize("bound", [2, math.inf])
def test_when_the_first_is_through_all_end_behind_the_step_they_are_at(bound):
    run = Run(
        40, still, algorithm__name="bounded-staleness", algorithm__staleness=bound, algorithm__ends="first",
        hetero__speed=[1.0, 1.0, 1.0, 0.25, 1.0, 1.0], hetero__slowdown_probability=0.1,
    )  # fmt: skip
    ended, end = [], run.algorithm.end
    run.algorithm.end = lambda i: (ended.append(i), end(i))
    run.run()
    closed = min(step.ended_s for step in run.history if step.t == 39)
    last = {step.i: step for step in run.history}
    assert sorted(ended) == list(range(6)) and run.engine.done == [last[i].t + 1 for i in range(6)]
    assert max(run.engine.done) == 40 and run.engine.done[3] < (40 if bound == 2 else 20)
    # Nobody begins behind that moment.
    assert all(step.ended_s - step.wait_s - step.compute_s <= closed + 1e-9 for step in run.history)


def test_who_waits_for_ever_is_named():
    with pytest.raises(TrainingError, match="vertex 1 waits for ever at its step 7, for vertices 0 at clock 5, 2 at clock 5"):
        Run(40, still, algorithm__name="bounded-staleness", algorithm__staleness=2, stops={0: 5}).run()


# The mailbox.


def mailbox(n=3, readers=None, **keys):
    world, placement = None, SimpleNamespace(n=n, hosted=list(range(n)), index={v: v for v in range(n)})
    box = VirtualMailbox(world, placement, 4, torch.float64, readers=readers or {0: [1, 2], 1: [0], 2: [0]}, **keys)
    box.bind(Rows(box.storage()))
    return box


def publish(box, i, clock, at=None):
    if at is not None:
        box.virtual.time = round(at * NS)
    box.rows.x(i).fill_(100 * i + clock)
    box.publish(i, clock)
    box.rows.flip(i)


def test_rows_arrive_behind_their_delay():
    box = mailbox(delay=lambda i, j, nbytes: 0.5 * j + nbytes / 32)
    publish(box, 0, -1, at=0.0)
    publish(box, 0, 0, at=1.0)
    publish(box, 0, 1, at=2.0)
    # delay to 1: 1.5 s, to 2: 2 s
    box.virtual.time = round(3.2 * NS)
    letter = box.peek(0, 1)
    assert (letter.clock, letter.version, letter.stamp, letter.row.tolist()) == (0, 1, 1.0, [0.0] * 4)
    assert box.clock(0, 2) == 0 and box.arrives(0, 2, 1) == 4 * NS and box.arrives(0, 2, 2) is None
    box.virtual.time = 4 * NS
    assert [box.clock(0, 1), box.clock(0, 2), box.clock(1, 0)] == [1, 1, -2]
    assert box.peek(0, 1, at_most=0).clock == 0 and box.peek(0, 1, at_most=-2) is None
    assert [letter[:3] for letter in box.letters([0, 1], 1)] == [(0, 2, 1)] and box.letters([0], 1, at_most=-2) == []
    assert [letter.clock for letter in box.letters([0], 1, at_most=0)] == [0] and [letter.clock for letter in box.letters([0], 2)] == [1]
    assert box.bytes_sent.tolist() == [3 * 2 * 32, 0, 0] and box.settled() == 4 * NS


def test_versions_are_kept_while_they_are_wanted_and_no_longer():
    box = mailbox(delay=lambda i, j, nbytes: 10.0)
    for t in range(300):
        publish(box, 0, t, at=float(t))
        if t >= 10:
            assert box.peek(0, 1).clock == t - 10 and box.peek(0, 1).row[0] == t - 10
        if t >= 11:
            assert box.peek(0, 1, at_most=t - 11).row[0] == t - 11, "the last but one that has arrived"
    assert len(box._versions[0]) <= 14 and len(box._spare) <= 1


def test_messages_are_lost_as_often_as_told_and_alike_every_time():
    lost = [[mailbox(loss=0.25, seed=seed).lost(0, reader, v) for v in range(1, 2001)] for seed, reader in ((1, 1), (1, 1), (1, 2), (2, 1))]
    assert lost[0] == lost[1] != lost[2] and lost[0] != lost[3]
    assert abs(np.mean(lost[0]) - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 2000)
    box = mailbox(loss=0.25, seed=1)
    for t in range(-1, 400):
        publish(box, 0, t, at=float(t + 1))
        # Version t + 1 has clock t.
        newest = next(v for v in range(t + 1, -1, -1) if v == 0 or not lost[0][v - 1])
        assert box.peek(0, 1).clock == newest - 1
    assert len(box._versions[0]) < 30


def test_nobody_waits_for_a_lock_while_holding_one():
    placement = SimpleNamespace(n=3, hosted=[0, 1, 2])
    pairs = VirtualPairs(None, placement, 4, torch.float64, delay=lambda i, j, nbytes: 0.25)
    with pairs.hold(2, 0) as (mine, theirs):
        mine.fill_(2.0), theirs.fill_(1.0)
        with pytest.raises(RuntimeError, match="are locked"), pairs.hold(1):
            pass
    assert pairs.rows(2)[0] == 2.0 and pairs.rows(0)[0] == 1.0
    assert pairs.spent() == NS // 2 and pairs.spent() == 0
    with pairs.hold(1) as (mine,):
        assert mine[0] == 0.0
    assert pairs.spent() == 0 and pairs.bytes_sent.tolist() == [0, 0, 64]
