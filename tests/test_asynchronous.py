"""Asynchronous algorithms against few-line float64 versions, with a history of who published and mixed when; their bounds and what they conserve."""

import math

import numpy as np
import pytest
import torch
from virtual import Run, job, rows, still, trainer

from mpiconsensus import cost
from mpiconsensus.algorithms import Setting, make
from mpiconsensus.errors import TrainingError, UserError
from mpiconsensus.network import Network
from mpiconsensus.randomness import generator
from mpiconsensus.runtime import World
from mpiconsensus.schedule import MEAN
from mpiconsensus.transport.mailbox.base import Mailbox
from mpiconsensus.transport.mailbox.virtual import VirtualMailbox
from mpiconsensus.wiring import wire

EPS = np.finfo(np.float64).eps
LR = 0.3
UNEQUAL = {"hetero__speed": [1.0, 1.0, 0.25, 1.0, 0.3, 1.0], "hetero__slowdown_probability": 0.2}


class Wells(Run):
    """A run whose gradients are x_i - c_i: nothing is drawn, so that a reference needs nothing but x."""

    def __init__(self, steps, **changes):
        super().__init__(steps, **changes)
        self.centre = torch.from_numpy(np.random.default_rng(5).normal(size=(self.block.m, self.block.d)))

    def gradients(self, pairs):
        for i, _ in pairs:
            self.block.gradients[i].copy_(self.block.parameters(i) - self.centre[i])
        return still(pairs)


def all_rows(run):
    return np.stack([run.block.x(i).double().numpy().copy() for i in range(run.block.m)])


def mixing_matrix(run):
    return run.t.wiring.matrix


# Bounded staleness.


@pytest.mark.parametrize("graph", ["ring:6", "ring:2", "directed-exponential:6", "star:5"])
def test_without_staleness_it_is_the_synchronous_run_bit_for_bit(graph):
    keys = dict(topology__graph=graph, training__momentum=0.9, training__precision="float32", training__weight_decay=0.01)
    late = dict(hetero__slowdown_probability=0.3, hetero__link_delay_s=0.7)
    asynchronous = Run(25, algorithm__name="bounded-staleness", algorithm__staleness=0, **keys, **late).run()
    synchronous = trainer(**keys)
    for _ in range(25):
        synchronous.step()
    assert np.array_equal(rows(asynchronous.t), rows(synchronous))
    assert max(asynchronous.ages) == 0 and max(step.wait_s for step in asynchronous.history) > 1


@pytest.mark.parametrize("delay", [0, 1, 3])
def test_a_constant_delay_is_its_matrix_version(delay):
    steps = 20
    run = Wells(steps, algorithm__name="bounded-staleness", algorithm__staleness=math.inf, hetero__link_delay_s=float(delay))
    x, w, c = all_rows(run), mixing_matrix(run), run.centre.numpy()
    published = {-1: x}
    off = w - np.diag(np.diag(w))
    for t in range(steps):
        published[t] = x - LR * (x - c)
        # What was published a delay ago; at first nothing has arrived, and its weight is the vertex's own.
        other = published.get(t - delay, published[t])
        x = np.diag(w)[:, None] * published[t] + (off @ other if t - delay in published else off.sum(axis=1)[:, None] * published[t])
    run.run()
    assert np.abs(all_rows(run) - x).max() < 1e-12
    assert set(run.ages) == {delay}


def replay(run, x, max_age, damping):
    """Return the rows and the ages of every step that the history of a run without waits or gradients implies: who had published
    what when a vertex mixed, by the clock of the run alone."""
    w, mixes = mixing_matrix(run), sorted(run.history, key=lambda step: (step.ended_s, step.i))
    ends = {(step.i, step.t): step.ended_s for step in run.history}
    value, ages = {(i, -1): row for i, row in enumerate(x)}, {}
    x = x.copy()
    moves = [(step.ended_s - step.wait_s, 0, step.i, step.t) for step in mixes] + [(step.ended_s, 1, step.i, step.t) for step in mixes]
    newest = {i: (-1, 0.0) for i in range(len(x))}
    for time, kind, i, t in sorted(moves):
        if kind == 0:
            value[i, t], newest[i] = x[i].copy(), (t, time)
            continue
        found, total, share = [], 0.0 * x[i], 1.0
        begun = [0.0] + [ends[i, u] for u in range(t)]
        for j in np.flatnonzero(w[i]):
            if j == i:
                continue
            clock, stamp = newest[j]
            age = min(max(0, t - clock), sum(b >= stamp for b in begun))
            if age <= max_age:
                found.append(age)
                part = w[i, j] / (1 + age) ** damping
                total, share = total + part * value[j, clock], share - part
        x[i] = total + share * x[i]
        ages[i, t] = found
    return x, ages


@pytest.mark.parametrize("max_age, damping", [(math.inf, 0.0), (2, 0.0), (math.inf, 1.5), (0, 0.0)])
def test_ages_and_weights_are_what_the_history_implies(max_age, damping):
    run = Run(
        60, still, algorithm__name="bounded-staleness", algorithm__staleness=math.inf, algorithm__max_age=max_age,
        algorithm__age_damping=damping, training__lr=0.0, **UNEQUAL,
    )  # fmt: skip
    expected, ages = replay_after(run, max_age, damping)
    assert np.abs(all_rows(run) - expected).max() < 1e-12
    assert {(step.i, step.t): step.ages for step in run.history} == ages
    found = {age for step in run.history for age in step.ages}
    assert found == set(range(int(max_age) + 1)) if max_age < math.inf else found >= {0, 1, 2, 3, 4}
    assert (len(run.ages) < 60 * 12) == (max_age < math.inf)


def replay_after(run, max_age, damping):
    start = all_rows(run)
    run.run()
    return replay(run, start, max_age, damping)


@pytest.mark.parametrize("graph, weights", [("ring:6", "metropolis"), ("directed-exponential:6", "uniform")])
@pytest.mark.parametrize("bound", [1, 2, 4])
def test_nobody_mixes_beyond_the_bound(bound, graph, weights):
    run = Run(
        150, still, algorithm__name="bounded-staleness", algorithm__staleness=bound, hetero__slowdown_probability=0.2,
        hetero__slowdown_factor=6.0, hetero__link_delay_s=0.3, topology__graph=graph, topology__weights=weights,
    ).run()  # fmt: skip
    assert set(run.ages) == set(range(bound + 1))
    published = {(step.i, step.t): step.ended_s - step.wait_s for step in run.history}
    w = mixing_matrix(run)
    for step in run.history:
        for j in np.flatnonzero(w[step.i] + w[:, step.i]):
            if j != step.i and step.t >= bound:
                assert published[j, step.t - bound] + 0.3 <= step.ended_s + 1e-9, "the row that it waits for has arrived"
        ahead = [max((t for t in range(150) if published[j, t] <= step.ended_s), default=-1) for j in range(6) if w[step.i, j]]
        assert max(abs(step.t - t) for t in ahead) <= bound + 1
    assert max(step.wait_s for step in run.history) > 0.5


@pytest.mark.parametrize("bound, seconds", [(0, 400), (3, 400), (math.inf, 100)])
def test_a_permanent_straggler_sets_the_pace_of_any_finite_bound(bound, seconds):
    run = Run(100, still, algorithm__name="bounded-staleness", algorithm__staleness=bound, hetero__speed=[0.25, 1, 1, 1, 1, 1]).run()
    ended = {step.i: step.ended_s for step in run.history}
    # Vertex 3 lies three edges from the straggler: over each of them clocks are s + 1 apart at most.
    assert seconds - (3 * 4 * (bound + 1) if bound < math.inf else 0) <= ended[3] <= seconds and ended[0] == 400


class Torn(VirtualMailbox):
    """Rows are read in place and said to be torn as often as `times`; then they are what they should be."""

    times, asked, reader = 1, 0, None
    letters = Mailbox.letters  # by peek

    def peek(self, vertex, reader, at_most=None):
        letter, self.reader = super().peek(vertex, reader, at_most), reader
        torn = reader == 2 and (self.asked + 1) % (self.times + 1)
        return letter._replace(row=torch.full_like(letter.row, 1e9)) if torn else letter

    def intact(self, letters):
        if self.reader != 2:
            return True
        self.asked += 1
        return self.asked % (self.times + 1) == 0


@pytest.mark.parametrize("times", [1, 2, 3, 5])
@pytest.mark.parametrize("name", ["bounded-staleness", "async-gossip"])
def test_a_row_that_was_overwritten_while_it_was_read_is_read_again(times, name):
    keys = dict(algorithm__name=name, algorithm__staleness=math.inf, hetero__speed=[1.0, 1.1, 1.3, 1.7, 1.9, 2.3])
    whole = Run(20, still, **keys).run()
    torn = Run(20, still, mailbox=type("Torn", (Torn,), {"times": times}), **keys).run()
    assert torn.transport.asked > 20 * times
    assert np.array_equal(all_rows(whole), all_rows(torn))


class Forgetful(VirtualMailbox):
    """Has the initial rows alone, and says that the newest have come."""

    letters = Mailbox.letters  # by peek

    def peek(self, vertex, reader, at_most=None):
        return self._versions[vertex][0].letter._replace(clock=-1)


def test_a_broken_bound_ends_the_run():
    with pytest.raises(TrainingError, match="algorithm.staleness = 2 .*clock -1"):
        Run(9, still, mailbox=Forgetful, algorithm__name="bounded-staleness", algorithm__staleness=2).run()


# Push-sum with running sums.


@pytest.mark.parametrize("graph", ["ring:6", "directed-exponential:6"])
@pytest.mark.parametrize("delay", [0, 2])
def test_async_gossip_with_a_constant_delay_is_its_matrix_version(delay, graph):
    steps = 15
    run = Wells(steps, algorithm__name="async-gossip", topology__graph=graph, topology__weights="auto" if graph == "ring:6" else "push-sum", hetero__link_delay_s=float(delay))
    x, a, c = all_rows(run), mixing_matrix(run), run.centre.numpy()
    m = np.hstack([x, np.ones((6, 1))])
    off, sent = a - np.diag(np.diag(a)), {}
    for t in range(steps):
        z = m[:, :-1] / m[:, -1:]
        m[:, :-1] -= m[:, -1:] * LR * (z - c)
        sent[t] = m.copy()
        m = np.diag(a)[:, None] * m + (off @ sent[t - delay] if t >= delay else 0)
    in_flight = sum((off @ sent[t] for t in range(max(0, steps - delay), steps)), np.zeros_like(m))
    m += in_flight  # drained
    run.run()
    assert np.abs(all_rows(run) - m[:, :-1] / m[:, -1:]).max() < 1e-12
    assert np.abs([run.algorithm.weight(i) for i in range(6)] - m[:, -1]).max() < 1e-13


def total(run, without=()):
    """Return what async-gossip conserves, (d + 1,): masses, and what was sent and not taken up, of all vertices but some."""
    algorithm, w = run.algorithm, mixing_matrix(run)
    sums = torch.stack([algorithm.sums.x(i) for i in range(run.block.m)]).numpy()
    off = w - np.diag(np.diag(w))
    each = algorithm.mass.numpy() + off @ sums - algorithm.taken.numpy()
    return np.delete(each, list(without), axis=0).sum(axis=0)


def rounding(run, exchanges):
    """A mass is rounded a few times an exchange, by half a unit of its last place; a sum of sums, of which only the last counts, once each."""
    largest, sums = float(run.algorithm.mass.abs().max()), max(float(run.algorithm.sums.x(i).abs().max()) for i in range(run.block.m))
    return EPS * (4 * exchanges * max(largest, 4.0) + 8 * run.block.m * sums)


def test_async_gossip_keeps_the_mean_over_ten_thousand_exchanges_under_delay_and_loss():
    run = Run(
        1700, still, loss=0.3, algorithm__name="async-gossip", hetero__link_delay_s=2.5, hetero__slowdown_probability=0.1,
        hetero__speed=[1.0, 0.7, 0.9, 1.1, 0.8, 1.0], training__precision="float32",
    )  # fmt: skip
    start, drift = total(run), []
    spread = np.ptp(all_rows(run), axis=0).max()
    run.engine.on_step = lambda step: drift.append(np.abs(total(run) - start).max()) if step.t % 100 == 99 else None
    run.run()
    assert len(drift) == 6 * 17 and sum(run.engine.done) > 10_000
    assert max(drift) <= rounding(run, 10_200) < 1e-8
    assert abs(start[-1] - 6) < 1e-12
    # float32 rows of a mean that has been agreed on: a unit in the last place of 1 is 1.2e-7, and z is as exact by PRECISION.
    assert np.ptp(all_rows(run), axis=0).max() < 1e-6 < 1e-5 * spread
    assert np.abs(all_rows(run)[0] - start[:-1] / 6).max() < 1e-6


def test_what_a_long_sum_rounds_away_stays_with_its_vertex():
    run = Run(1, still, algorithm__name="async-gossip")
    run.algorithm.sums.x(0)[:-1].fill_(2.0**30)
    before, mass = run.algorithm.sums.x(0).clone(), run.algorithm.mass[0].clone()
    run.algorithm.begin(0, 0)
    run.algorithm.adapted(0, 0)
    # Two thirds are sent, in units of 2^-22; the sum of what is kept and sent is rounded like a mass.
    grown = run.algorithm.sums.x(0) - before
    assert grown[-1] == 1 and 2.0**-25 < (grown - mass).abs().max() <= 2.0**-23
    assert (run.algorithm.mass[0] + 2 / 3 * grown - mass).abs().max() <= 4 * EPS * max(1.0, float(mass.abs().max()))


def test_async_gossip_moves_the_mean_by_its_gradients_alone():
    """A gradient counts w_i times in the sum of x: the mass changes by that and by nothing else."""
    run = Wells(200, algorithm__name="async-gossip", hetero__link_delay_s=1.5, hetero__slowdown_probability=0.2, training__precision="float32")
    start, moved = total(run), np.zeros(run.block.d)

    def update(i, k):
        before = run.block.x(i).double().numpy().copy()
        Run.update(run, i, k)
        nonlocal moved
        moved += run.algorithm.weight(i) * (run.block.x(i).double().numpy() - before)

    run.update = update
    run.run()
    assert np.abs(moved).max() > 1
    assert np.abs(total(run)[:-1] - start[:-1] - moved).max() <= rounding(run, 1200)


def test_what_a_vertex_that_stops_in_the_middle_takes_with_it_is_told():
    run = Run(60, still, stops={4: 20}, algorithm__name="async-gossip", hetero__link_delay_s=0.5, hetero__slowdown_probability=0.2)
    start = total(run)
    run.run()
    assert run.engine.done == [60, 60, 60, 60, 20, 60]
    left = sum(run.algorithm.weight(i) for i in range(6) if i != 4)
    lost = start - total(run, without=[4])
    # The survivors have taken up all that was sent to them, so their weights are the mass that is left; the rest is with vertex 4 or on its way there.
    assert left == pytest.approx(total(run, without=[4])[-1], abs=1e-12) and 6 - left == pytest.approx(lost[-1], abs=1e-12)
    assert 0.5 < lost[-1] < 6 and left > 1e-6
    held = run.algorithm.mass[4].numpy() - run.algorithm.taken[4].numpy()
    held = held + sum(w * run.algorithm.sums.x(j).numpy() for j, w in run.algorithm.weights[4].items() if j != 4)
    assert np.abs(lost - held).max() <= rounding(run, 360)
    survivors = np.delete(all_rows(run), 4, axis=0)
    assert np.isfinite(survivors).all() and np.ptp(survivors, axis=0).max() < 0.1


def test_what_was_sent_last_tells_where_a_vertex_is():
    """Sums of the last two publications differ by the mass behind the update, whose quotient that point is."""
    run = Run(9, algorithm__name="async-gossip", topology__graph="directed-exponential:6", topology__weights="push-sum", hetero__speed=[1, 1, 0.5, 1, 1, 0.3])
    points, adapted, p = {}, run.algorithm.adapted, run.block.p
    out = torch.zeros(p, dtype=torch.float64)
    assert not run.algorithm.look(2, out), "one sum alone tells nothing"

    def noted(i, t):
        point = run.block.x(i).clone()  # behind the update
        adapted(i, t)
        if run.transport.clock(i, i) == t:  # one whose readers have all ended sends nothing more
            points[i] = point
        assert run.algorithm.look(i, out)
        assert (out - points[i][:p]).abs().max() <= 1e3 * EPS * points[i].abs().max()  # of sums a few hundred weights long

    run.algorithm.adapted = noted
    run.run()
    assert len(points) == 6
    out.fill_(7.0)
    assert not run.algorithm.look(2, out) and (out == 7).all(), "the last word of a vertex repeats its sum"


def test_the_newest_row_and_that_of_a_pair_are_what_is_looked_at():
    for name, reads in (("bounded-staleness", lambda run: run.transport.peek(3, 0).row), ("adpsgd", lambda run: run.transport.rows(3))):
        run = Run(5, algorithm__name=name, algorithm__staleness=math.inf)
        if name == "adpsgd":
            run.transport.read = lambda vertex, out, run=run: out.copy_(run.transport.rows(vertex)[: len(out)])
        run.run()
        out = torch.zeros(run.block.p, dtype=torch.float64)
        assert run.algorithm.look(3, out) and torch.equal(out, reads(run)[: run.block.p]) and out.abs().sum() > 0


def test_without_loss_every_weight_comes_back():
    run = Run(40, still, algorithm__name="async-gossip", hetero__link_delay_s=3.3, hetero__speed=[1, 1, 0.2, 1, 1, 0.5]).run()
    weights = [run.algorithm.weight(i) for i in range(6)]
    assert sum(weights) == pytest.approx(6, abs=1e-12) and min(weights) < 0.9


def test_a_vertex_whose_readers_have_ended_keeps_its_mass():
    run = Run(400, still, algorithm__name="async-gossip", hetero__speed=[1, 1, 0.02, 1, 1, 1]).run()
    assert np.isfinite(all_rows(run)).all() and run.algorithm.weight(2) > 0.3


# Pairs.


def test_adpsgd_is_its_few_lines():
    run = Wells(40, algorithm__name="adpsgd", **UNEQUAL)
    x, c = all_rows(run), run.centre.numpy()
    run.run()
    moves = sorted((step.ended_s, kind, step.i, step.t) for step in run.history for kind in (0, 1))
    snapshot, around = x.copy(), [[j for j in range(6) if j != i and mixing_matrix(run)[i, j]] for i in range(6)]
    for _, kind, i, t in moves:
        if kind:
            snapshot[i] = x[i]
            continue
        j = around[i][generator(1, "pairs", i, t).integers(len(around[i]))]
        x[i] = x[j] = (x[i] + x[j]) / 2
        x[i] -= LR * (snapshot[i] - c[i])
    assert np.abs(all_rows(run) - x).max() < 1e-12
    assert {step.ages[0] for step in run.history} == {0}


@pytest.mark.parametrize("graph", ["ring:5", "ring:7", "star:6", "complete:5", "path:4", "ring:2", "ring:1"])
@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_adpsgd_conserves_the_sum_between_gradients_on_any_graph(graph, precision):
    run = Run(200, still, algorithm__name="adpsgd", topology__graph=graph, training__precision=precision, hetero__slowdown_probability=0.2)
    start = all_rows(run)
    run.run()
    n, unit = len(start), np.finfo(precision).eps
    # Two sums are rounded by half a unit of the larger entry a step.
    assert np.abs(all_rows(run).sum(axis=0) - start.sum(axis=0)).max() <= 200 * n * unit * np.abs(start).max()
    # Five steps of each of n vertices make the spread a good deal smaller: forty times five leave rounding.
    assert np.ptp(all_rows(run), axis=0).max() <= 1e-3 * np.ptp(start, axis=0).max()
    assert set(run.engine.done) == {200}


# All of them.


@pytest.mark.parametrize("name", ["bounded-staleness", "async-gossip", "adpsgd"])
def test_one_vertex_is_a_plain_loop(name):
    alone = Run(30, algorithm__name=name, topology__graph="ring:1", training__momentum=0.9).run()
    plain = trainer(topology__graph="ring:1", training__momentum=0.9)
    for _ in range(30):
        plain.step()
    assert np.abs(rows(alone.t) - rows(plain)).max() <= (1e-13 if name != "bounded-staleness" else 0)


def walk(run, moves):
    """Take (what, i, t) moves by hand."""
    for what, i, t in moves:
        if what == "begin":
            run.algorithm.begin(i, t)
            run.gradients([(i, t)])
            run.update(i, t)
            run.algorithm.adapted(i, t)
        else:
            run.algorithm.mix(i, t)


@pytest.mark.parametrize("name", ["bounded-staleness", "async-gossip", "adpsgd"])
def test_a_state_continues_exactly_for_vertices_at_different_steps(name):
    # Vertex 0 is one step ahead and held; the others have finished step 1.
    before = [(what, i, t) for t in range(2) for what in ("begin", "mix") for i in range(6)] + [("begin", 0, 2)]
    behind = [("begin", i, 2) for i in range(1, 6)] + [("mix", i, 2) for i in range(6)] + [(w, i, 3) for w in ("begin", "mix") for i in range(6)]
    keys = dict(algorithm__name=name, algorithm__staleness=1)
    whole, rest = Wells(9, **keys), Wells(9, **keys)
    walk(whole, before)
    states = [whole.algorithm.state_dict(i) for i in range(6)]
    for i in range(6):
        rest.block.x(i).copy_(whole.block.x(i))
        rest.algorithm.load_state_dict(i, states[i])
    assert [rest.algorithm.state_dict(i).get("held") for i in range(6)] == [state.get("held") for state in states]
    walk(whole, behind), walk(rest, behind)
    assert np.array_equal(all_rows(whole), all_rows(rest))
    assert np.abs(all_rows(whole)).max() > 0.1


def test_states_of_different_moments_conserve_all_the_same():
    keys = dict(algorithm__name="async-gossip", training__lr=0.0)
    first, second = Wells(9, **keys), Wells(9, **keys)
    start = total(first)
    moves = [(what, i, t) for t in range(6) for what in ("begin", "mix") for i in range(6)]
    states = {}
    for i in range(6):
        walk(first, moves[i * 7 : (i + 1) * 7])
        states[i] = first.algorithm.state_dict(i), first.block.x(i).clone()
    for i, (state, row) in states.items():
        second.block.x(i).copy_(row)
        second.algorithm.load_state_dict(i, state)
    assert np.abs(total(second) - start).max() < 1e-13


@pytest.mark.parametrize("name", ["bounded-staleness", "async-gossip", "adpsgd"])
@pytest.mark.parametrize(
    "keys, words",
    [
        (dict(algorithm__order="cta"), "algorithm.order"),
        (dict(algorithm__train_every=2), "hetero.speed"),
        (dict(algorithm__delay=1), "algorithm.delay"),
        (dict(topology__graph="one-peer-exponential:8"), "this one changes"),
    ],
)
def test_what_means_nothing_is_refused(name, keys, words):
    with pytest.raises(UserError, match=words):
        trainer(algorithm__name=name, **keys)


@pytest.mark.parametrize(
    "name, graph, weights, words",
    [
        ("adpsgd", "directed-ring:4", "uniform", "arcs of one direction"),
        ("bounded-staleness", "directed-file", "push-sum", "row 0 sums to"),
        ("async-gossip", "directed-file", "uniform", "topology.weights = push-sum"),
        ("async-gossip", "star:6", "best-constant", "positive on the diagonal; row 0"),
    ],
)
def test_weights_that_do_not_fit_are_refused(name, graph, weights, words, tmp_path):
    if graph == "directed-file":
        (tmp_path / "arcs.txt").write_text("# directed\n0 1\n1 0\n1 2\n2 0\n")
        graph = f"file:{tmp_path / 'arcs.txt'}"
    with pytest.raises(UserError, match=words):
        trainer(algorithm__name=name, topology__graph=graph, topology__weights=weights)


def test_a_loop_of_rounds_refuses_them():
    net = Network("ring", algorithm="adpsgd")
    with pytest.raises(UserError, match="has no rounds"):
        net.attach(torch.nn.Linear(2, 2), torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1))


@pytest.mark.parametrize("name, sent", [("bounded-staleness", 12 * 256 * 8), ("async-gossip", 12 * 257 * 8), ("adpsgd", 12 * 256 * 8)])
def test_what_a_step_sends_is_estimated(name, sent):
    t = trainer(algorithm__name=name)
    told = cost.estimate(t.job, t.wiring, t.source, t.placement)
    assert told["sent a step by all vertices"].startswith(f"{sent / 1000:.3g} kB")


@pytest.mark.parametrize("tau, growth", [(3, 0), (1, 1), (2, 3), (8, 8), (5, 1)])
def test_intervals_between_averages_grow(tau, growth):
    made, world = job(algorithm__name="local-sgd", algorithm__tau=tau, algorithm__tau_growth=growth), World()
    algorithm = make(Setting.of(wire(made.topology, world), made.algorithm, [], 1, 2000))
    expected, interval, at = [], tau, tau
    while at <= 2000:
        expected.append(at - 1)
        interval += growth
        at += interval
    assert [k for k in range(2000) if algorithm.rounds(k) == (MEAN,)] == expected
