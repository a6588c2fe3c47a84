"""Training over directed and changing graphs against few-line matrix versions in float64."""

import numpy as np
import pytest
from reference import matrix
from test_algorithms import LR, STEPS, N, gradients, rows, trainer

from mpiconsensus import config
from mpiconsensus.errors import UserError
from mpiconsensus.runtime import World
from mpiconsensus.wiring import wire

# Unequal degrees, so that columns that sum to 1 leave rows that do not: 0 sends to three, 5 is sent to by two.
ARCS = [(0, 1), (0, 2), (0, 3), (1, 2), (2, 3), (3, 4), (4, 5), (3, 5), (5, 0)]
A = matrix.column_stochastic(N, ARCS)


@pytest.fixture
def arcs(tmp_path):
    path = tmp_path / "arcs.txt"
    path.write_text("# directed\n" + "".join(f"{i} {j}\n" for i, j in ARCS))
    return {"topology__graph": f"file:{path}", "topology__weights": "push-sum", "algorithm__name": "push-sum"}


def push_sum(t, mirror, matrices, q=1, momentum=0.0):
    """Take STEPS steps here and with the matrices A_j of the exchanges; return (trained z, expected z, x, w)."""
    x, g = rows(t), gradients(mirror)
    w, start = np.ones(N), x.copy()
    for k in range(STEPS):
        t.step()
        x, w = matrix.push_sum(k, x, w, g, LR, matrices(k // q) if k % q == 0 else np.eye(N))
    assert np.abs(x - start).max() > 0.05
    return rows(t), x / w[:, None], w


@pytest.mark.parametrize("q", [1, 3])
def test_push_sum_is_its_matrix_version(arcs, q):
    assert np.abs(A.sum(axis=1) - 1).max() > 0.2 and np.abs(A.sum(axis=0) - 1).max() < 1e-15
    keys = {**arcs, "algorithm__period": q}
    z, expected, w = push_sum(trainer(**keys), trainer(**keys), lambda j: A, q)
    assert np.ptp(w) > 0.3
    assert np.abs(z - expected).max() < 1e-12


def test_push_sum_agrees_on_the_mean_of_the_start(arcs):
    t = trainer(**arcs, training__lr=0.0, training__epochs=400, training__max_steps=400)
    mean = rows(t).mean(axis=0)
    seen = set()
    for k in range(400):
        seen.add(id(t.algorithm.rounds(k)[0]))
        t.step()
    assert np.abs(rows(t) - mean).max() < 1e-12
    # The weights settle: from there on one round comes again, and with it its plan.
    assert t.algorithm.rounds(398)[0] is t.algorithm.rounds(399)[0]


def test_push_sum_over_a_graph_that_changes():
    keys = {"topology__graph": f"one-peer-exponential:{N}", "topology__weights": "push-sum", "algorithm__name": "push-sum"}

    def exchange(j):
        hop = 2 ** (j % 3)
        return matrix.column_stochastic(N, [(i, (i + hop) % N) for i in range(N)])

    z, expected, _ = push_sum(trainer(**keys), trainer(**keys), exchange)
    assert np.abs(z - expected).max() < 1e-12


@pytest.mark.parametrize("q, rounds", [(1, 1), (2, 1), (1, 2)])
def test_every_exchange_of_a_changing_graph_has_its_turn(q, rounds):
    """With a period that the graph's own divides, counting steps in place of exchanges would leave graphs out."""
    keys = {
        "topology__graph": f"one-peer-exponential:{N}", "topology__weights": "uniform",
        "algorithm__period": q, "algorithm__rounds": rounds,
    }  # fmt: skip
    t, mirror = trainer(**keys), trainer(**keys)
    x, g, j = rows(t), gradients(mirror), 0
    for k in range(STEPS):
        t.step()
        x = x - LR * g(x, k)
        for _ in range(rounds if k % q == 0 else 0):
            hop, j = 2 ** (j % 3), j + 1
            x = (x + np.roll(x, hop, axis=0)) / 2
    assert np.abs(rows(t) - x).max() < 1e-12


def test_a_directed_exponential_graph_averages_as_its_circulant_matrix():
    t = trainer(topology__graph=f"directed-exponential:{N}", topology__weights="uniform", training__lr=0.0)
    x = rows(t)
    for _ in range(3):
        t.step()
        x = (x + sum(np.roll(x, hop, axis=0) for hop in (1, 2, 4))) / 4
    assert np.abs(rows(t) - x).max() < 1e-14
    assert t.algorithm.describe().endswith("delay 0")
    assert t.wiring.links == "arcs" and t.placement.describe(t.wiring.edges, t.wiring.links).startswith("block; of 18 arcs 0 cross")


def test_matchings_keep_the_mean_and_agree():
    t = trainer(topology__graph=f"matchings:ring:{N}", training__lr=0.0, training__epochs=200, training__max_steps=200)
    x, sent = rows(t), 0
    for _ in range(200):
        t.step()
        sent = t.stepper.bytes_sent.max()
    assert np.abs(rows(t) - x.mean(axis=0)).max() < 1e-9
    assert t.wiring.links == "edges"
    assert sent <= 200 * t.stepper.row_bytes, "a vertex has one partner at most"


def test_rows_that_sum_to_1_alone_drift_and_are_told(arcs):
    t = trainer(**{**arcs, "topology__weights": "uniform", "algorithm__name": "consensus", "training__lr": 0.0})
    before = rows(t).mean(axis=0)
    for _ in range(STEPS):
        t.step()
    assert np.abs(rows(t).mean(axis=0) - before).max() > 1e-3
    assert "the mean drifts" in t.algorithm.describe()


@pytest.mark.parametrize(
    "keys, words",
    [
        ({"algorithm__name": "consensus"}, ["rows", "push-sum", "uniform"]),
        ({"topology__weights": "uniform"}, ["columns", "topology.weights = push-sum"]),
        ({"algorithm__name": "gossip"}, ["gossip", "one direction", "consensus"]),
        ({"algorithm__period": [1, 2, 1, 2, 1, 2]}, ["one number"]),
        ({"algorithm__order": "cta"}, ["algorithm.order", "atc"]),
        ({"topology__weights": "metropolis"}, ["metropolis", "uniform", "push-sum"]),
    ],
)
def test_what_a_directed_graph_does_not_allow_is_named(arcs, keys, words):
    with pytest.raises(UserError) as error:
        trainer(**{**arcs, **keys})
    assert [word for word in words if word not in str(error.value)] == []


@pytest.mark.parametrize(
    "keys, words",
    [
        ({"algorithm__name": "gossip"}, ["gossip", "changes", "consensus"]),
        ({"algorithm__delay": 1}, ["delay", "stays"]),
        ({"topology__weights": "fastest"}, ["fastest", "metropolis"]),
    ],
)
def test_what_a_changing_graph_does_not_allow_is_named(keys, words):
    with pytest.raises(UserError) as error:
        trainer(**{"topology__graph": f"matchings:ring:{N}", **keys})
    assert [word for word in words if word not in str(error.value)] == []


@pytest.mark.parametrize("n, hops", [(6, (1, 2, 4)), (8, (1, 2, 4)), (5, (1, 2, 4))])
def test_the_rate_of_a_changing_graph_is_that_of_its_product(n, hops):
    matrices = [(np.eye(n) + np.roll(np.eye(n), hop, axis=0)) / 2 for hop in hops]
    product, rounds = matrices[2] @ matrices[1] @ matrices[0], 3
    while n != 8 and np.linalg.norm(product - 1 / n) > 1e-6:  # over whole periods, until they agree to six digits
        product, rounds = matrices[2] @ matrices[1] @ matrices[0] @ product, rounds + 3
    topology = config.Job({"topology.graph": f"one-peer-exponential:{n}"}).topology
    wiring = wire(topology, World())
    # Eight vertices: an exact average after three exchanges.
    assert wiring.second_modulus == (0.0 if n == 8 else pytest.approx(np.linalg.norm(product - 1 / n, 2) ** (1 / rounds), rel=1e-6))
    np.testing.assert_allclose(wiring.matrix, sum(matrices) / 3, rtol=0, atol=1e-15)


def test_the_rate_of_matchings_is_that_of_what_they_leave():
    """Per exchange, as the norm of those until they agree to six digits; against the drawn pairs."""
    wiring = wire(config.Job({"topology.graph": "matchings:ring:6", "topology.seed": 3}).topology, World())
    product, k = np.eye(6) - 1 / 6, 0
    while np.linalg.norm(product) > 1e-6:
        for i, j in wiring.changing.at(k):
            product[[i, j]] = product[[i, j]].mean(axis=0)
        k += 1
    assert wiring.second_modulus == pytest.approx(np.linalg.norm(product, 2) ** (1 / k), rel=1e-6)
