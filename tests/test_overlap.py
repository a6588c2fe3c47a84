"""Overlap SGP (push-sum with algorithm.delay = 1) against its few-line matrix version in float64."""

import numpy as np
import pytest
from reference import matrix
from test_algorithms import LR, STEPS, N, gradients, rows, trainer
from test_directed import ARCS

from mpiconsensus.errors import UserError
from mpiconsensus.topology import net

OVERLAP = {"algorithm__name": "push-sum", "algorithm__delay": 1, "topology__weights": "push-sum"}
SEED = 4


@pytest.fixture
def graph(request, tmp_path):
    """Return (keys of a job, A of exchange j): a directed graph of unequal degrees, or one of those that change."""
    if request.param == "directed":
        path = tmp_path / "arcs.txt"
        path.write_text("# directed\n" + "".join(f"{i} {j}\n" for i, j in ARCS))
        return {**OVERLAP, "topology__graph": f"file:{path}"}, lambda j: matrix.column_stochastic(N, ARCS)
    keys = {**OVERLAP, "topology__graph": request.param, "topology__seed": SEED}
    if request.param.startswith("one-peer"):
        return keys, lambda j: matrix.column_stochastic(N, [(i, (i + 2 ** (j % 3)) % N) for i in range(N)])
    pairs = net(request.param, N, SEED).changing
    return keys, lambda j: matrix.column_stochastic(N, [arc for i, k in pairs.at(j) for arc in ((i, k), (k, i))])


GRAPHS = ["directed", f"one-peer-exponential:{N}", f"matchings:star:{N}"]


@pytest.mark.parametrize("graph", GRAPHS, indirect=True)
@pytest.mark.parametrize("q", [1, 2, 3])
def test_every_step_is_that_of_the_matrix_version_and_so_is_the_end(graph, q):
    keys, exchange = graph
    t, mirror = (trainer(**keys, algorithm__period=q) for _ in range(2))
    x, g = rows(t), gradients(mirror)
    start, w, flight = x.copy(), np.ones(N), (np.zeros_like(x), np.zeros(N))
    total, least = [], 1.0
    for k in range(STEPS):
        t.step()
        x, w, flight = matrix.overlap_push_sum(k, x, w, flight, g, LR, exchange(k // q), k % q == 0)
        assert np.abs(rows(t) - x / w[:, None]).max() < 1e-12, k
        np.testing.assert_allclose(t.algorithm.weights(k + 1), w, rtol=0, atol=1e-13)
        np.testing.assert_allclose(t.algorithm.in_flight(k + 1), flight[1], rtol=0, atol=1e-13)
        total.append((w + flight[1]).sum())
        least = min(least, w.min())
    assert np.abs(x - start).max() > 0.05 and least < 0.7
    np.testing.assert_allclose(total, N, rtol=1e-13)
    # Behind the last step what is in flight is taken in.
    t.stepper.settle()
    x, w = x + flight[0], w + flight[1]
    assert np.abs(rows(t) - x / w[:, None]).max() < 1e-12
    before = rows(t)
    t.stepper.settle()
    assert np.array_equal(rows(t), before)


@pytest.mark.parametrize("graph", GRAPHS, indirect=True)
@pytest.mark.parametrize("steps", [1, 2, 40, 41])
def test_no_mass_is_lost_at_the_end_whatever_the_last_step(graph, steps):
    keys, _ = graph
    t = trainer(**keys, training__lr=0.0, training__epochs=100, training__max_steps=steps, algorithm__period=2)
    whole = rows(t).sum(axis=0)
    for _ in range(steps):
        t.step()
    t.stepper.settle()
    w = t.algorithm.weights(steps) + t.algorithm.in_flight(steps)
    assert np.abs(w @ rows(t) - whole).max() < 1e-13 * N * max(1, np.abs(whole).max())


@pytest.mark.parametrize("graph", GRAPHS, indirect=True)
def test_all_agree_on_the_mean_of_the_start(graph):
    t = trainer(**graph[0], training__lr=0.0, training__epochs=300, training__max_steps=300)
    mean, spread, rounds = rows(t).mean(axis=0), np.ptp(rows(t), axis=0).max(), set()
    for k in range(300):
        rounds.add(t.algorithm.rounds(k)[0])
        t.step()
    assert np.abs(rows(t) - mean).max() < 1e-6 * spread
    if t.algorithm.setting.varying is None:
        # The weights settle: from there on one round comes again, and with it its plan.
        assert t.algorithm.rounds(298)[0] is t.algorithm.rounds(299)[0] and len(rounds) < 290


@pytest.mark.parametrize("graph", GRAPHS, indirect=True)
def test_a_run_goes_on_where_its_state_was_taken(graph):
    keys = {**graph[0], "training__momentum": 0.9}
    for at in (4, 5):  # with a round in flight over the graph of each exchange
        whole, rest = trainer(**keys), trainer(**keys)
        for _ in range(at):
            whole.step()
        state = whole.state_dict()
        assert set(state["late"]) == set(range(N))
        rest.load_state_dict(state)
        for _ in range(STEPS - at):
            whole.step(), rest.step()
        whole.stepper.settle(), rest.stepper.settle()
        assert np.array_equal(rows(whole), rows(rest))


def test_the_rate_of_a_vertex_follows_the_weight_that_it_holds():
    """x moves by a g whatever the weight is: of doubly stochastic A with diagonal 1/2 two thirds are held once it settles."""
    t = trainer(**{**OVERLAP, "topology__graph": f"one-peer-exponential:{N}"})
    assert [t.algorithm.pace(k, 3) for k in (0, 1, 2)] == [1.0, 2.0, pytest.approx(4 / 3)]
    assert t.algorithm.pace(200, 3) == pytest.approx(1.5, rel=1e-12)


@pytest.mark.parametrize(
    "keys, words",
    [
        ({"algorithm__order": "cta"}, ["algorithm.order", "atc"]),
        ({"training__momentum_policy": "mixed"}, ["momentum_policy = local"]),
        ({"algorithm__name": "local-sgd", "topology__weights": "auto"}, ["algorithm.delay = 1", "consensus and push-sum", "algorithm.delay = 0"]),
    ],
)
def test_what_cannot_overlap_is_refused(keys, words):
    with pytest.raises(UserError) as error:
        trainer(**{**OVERLAP, "topology__graph": f"one-peer-exponential:{N}", **keys})
    assert [word for word in words if word not in str(error.value)] == []
