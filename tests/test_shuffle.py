"""Who holds which sample: the plans against sets and dictionaries, and what a job may not ask for."""

import json
import re
import sys
import tomllib
from collections import Counter
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ROOT, cli, mpirun, run
from hypothesis import given, settings
from hypothesis import strategies as st

from mpiconsensus import config, topology
from mpiconsensus.data.shuffle import Shuffling, open_shuffling
from mpiconsensus.data.shuffle.plan import along_edges, inverse, offered
from mpiconsensus.data.shuffle.route import route
from mpiconsensus.errors import UserError

PATH = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
GRAPHS = {n: [np.array(sorted(topology.build(spec).edges)) for spec in (f"ring:{n}", f"star:{n}", f"complete:{n}")] for n in range(3, 8)}


@st.composite
def shufflings(draw, modes=("global", "partial", "neighbors")):
    sizes = draw(st.lists(st.integers(1, 25), min_size=3, max_size=7))
    edges = draw(st.sampled_from(GRAPHS[len(sizes)]))
    fraction = draw(st.integers(0, 100).map(lambda percent: percent / 100))
    return Shuffling(draw(st.sampled_from(modes)), sizes, fraction, draw(st.integers(0, 5)), edges), Fraction(round(100 * fraction), 100)


def flows(plan, epoch):
    """Return a Counter of (giver, taker) of the samples that change places, vertex by vertex, counted one by one."""
    source = plan.arrivals(epoch)
    return Counter((int(plan.vertex_of[source[s]]), int(plan.vertex_of[s])) for s in range(len(source)) if source[s] != s)


@given(shufflings(), st.integers(0, 3))
@settings(max_examples=150, deadline=None)
def test_every_epoch_each_sample_is_at_one_vertex_and_each_vertex_keeps_its_size(made, epoch):
    plan, _ = made
    assert sorted(plan.arrivals(epoch).tolist()) == sorted(plan.holding(epoch).tolist()) == list(range(sum(plan.sizes)))
    flow = flows(plan, epoch)
    for v in range(len(plan.sizes)):
        gives, takes = (sum(c for pair, c in flow.items() if pair[end] == v and pair[0] != pair[1]) for end in (0, 1))
        assert gives == takes


@given(shufflings(modes=("partial", "neighbors")), st.integers(0, 3))
@settings(max_examples=150, deadline=None)
def test_no_vertex_stores_more_than_1_plus_q_of_its_size(made, epoch):
    plan, fraction = made
    arriving = Counter()
    for (_, taker), count in flows(plan, epoch).items():
        arriving[taker] += count
    for v, size in enumerate(plan.sizes.tolist()):
        assert size + arriving[v] <= (1 + fraction) * size


@given(shufflings(modes=("neighbors",)), st.integers(0, 3))
@settings(max_examples=100, deadline=None)
def test_neighbors_send_over_edges_alone_and_as_many_one_way_as_the_other(made, epoch):
    plan, _ = made
    flow, edges = flows(plan, epoch), {tuple(sorted(edge)) for edge in plan.edges.tolist()}
    for (i, j), count in flow.items():
        assert tuple(sorted((i, j))) in edges and count == flow[j, i]


@given(shufflings(modes=("neighbors",)), st.integers(0, 100))
@settings(max_examples=100, deadline=None)
def test_edges_use_the_budget_up(made, seed):
    """No edge could carry one more: at one of its ends nothing is left."""
    plan, _ = made
    counts = along_edges(plan.edges, plan.offered, np.random.default_rng(seed))
    left = plan.offered.astype(int)
    for (i, j), count in zip(plan.edges.tolist(), counts.tolist()):
        left[i] -= count
        left[j] -= count
    assert (left >= 0).all() and (counts >= 0).all()
    assert all(left[i] == 0 or left[j] == 0 for i, j in plan.edges.tolist())


def test_on_a_ring_of_equal_vertices_both_edges_carry_half_the_budget():
    counts = along_edges(GRAPHS[6][0], np.full(6, 10), np.random.default_rng(0))
    assert counts.tolist() == [5] * 6


@given(shufflings(modes=("partial", "neighbors")))
@settings(max_examples=60, deadline=None)
def test_who_holds_what_is_the_exchanges_one_after_the_other(made):
    """A dictionary of the samples at each slot, moved one by one."""
    plan, _ = made
    holds = {slot: slot for slot in range(sum(plan.sizes))}
    for epoch in range(5):
        assert plan.holding(epoch).tolist() == [holds[slot] for slot in sorted(holds)]
        before, source = dict(holds), plan.arrivals(epoch).tolist()
        for slot, origin in enumerate(source):
            holds[slot] = before[origin]


@given(shufflings())
@settings(max_examples=60, deadline=None)
def test_between_two_epochs_lie_the_exchanges(made):
    plan, _ = made
    assert np.array_equal(plan.holding(2)[plan.between(2, 4)], plan.holding(4))
    assert np.array_equal(plan.between(2, 3), plan.arrivals(2)) and np.array_equal(plan.between(None, 3), plan.holding(3))
    assert np.array_equal(plan.between(3, 0), inverse(plan.holding(3))[plan.holding(0)])


@pytest.mark.parametrize("mode", ["global", "partial", "neighbors"])
def test_a_plan_is_of_its_seed_and_epoch(mode):
    def plan(seed):
        return Shuffling(mode, [40, 30, 50, 60], 0.5, seed, np.array([(0, 1), (1, 2), (2, 3)]))

    first = plan(1).arrivals(3)
    assert np.array_equal(plan(1).arrivals(3), first)
    for other in (plan(2).arrivals(3), plan(1).arrivals(4)):
        # Of plans drawn apart a few moves agree, not half of them.
        moved = np.flatnonzero(first != np.arange(180))
        assert len(moved) > 20 and (other[moved] == first[moved]).mean() < 0.5


def chi_square(counts, expected):
    return ((counts - expected) ** 2 / expected).sum()


@pytest.mark.parametrize("mode, fraction, epochs", [("global", 1.0, range(600)), ("partial", 1.0, [1])])
def test_the_division_is_uniform(mode, fraction, epochs):
    """Where sample s stands, over 600 independent divisions: chi-square of (N x n) cells; Q = 1 of partial is the same thing."""
    sizes, draws = np.array([3, 6, 9]), 600
    counts = np.zeros((18, 3))
    for draw in range(draws):
        epoch, seed = (draw, 7) if mode == "global" else (1, draw)
        plan = Shuffling(mode, sizes, fraction, seed)
        counts[plan.holding(epoch), plan.vertex_of] += 1
    expected = np.broadcast_to(draws * sizes / sizes.sum(), counts.shape)
    # Row and column sums are fixed: 17 x 2 degrees of freedom. Sampling without replacement scales the sum by N / (N - 1).
    # 34 +- 5 deviations of sqrt(2 x 34).
    found = chi_square(counts, expected) * 17 / 18
    assert abs(found - 34) < 5 * np.sqrt(68), found


def test_what_moves_is_drawn_uniformly():
    """Over 400 seeds each of 40 samples of a vertex leaves it about as often as any other: binomial, five deviations."""
    left = np.zeros(80)
    for seed in range(400):
        plan = Shuffling("partial", [40, 40], 0.25, seed)
        source = plan.arrivals(0)
        left[source[plan.vertex_of[source] != plan.vertex_of]] += 1
    # 10 of 40 are given, and half of these stay: 20 places, 10 of them of the other vertex.
    assert abs(left / 400 - 0.125).max() < 5 * np.sqrt(0.125 * 0.875 / 400)


@pytest.mark.parametrize(
    "size, fraction, count", [(100, 0.29, 29), (10, 0.3, 3), (937, 0.01, 9), (7, 1.0, 7), (3, 0.3, 0), (1_000_000, 0.001, 1000)]
)
def test_q_is_the_decimal_number_that_it_is_written_as(size, fraction, count):
    assert offered([size], fraction).tolist() == [count]


@given(shufflings(), st.data())
@settings(max_examples=100, deadline=None)
def test_both_ends_of_a_message_make_the_same_of_it(made, data):
    """The pieces of all ranks together move each sample once, on time, and match in order."""
    plan, _ = made
    n, ranks, steps, most = len(plan.sizes), data.draw(st.integers(1, 3)), data.draw(st.integers(1, 9)), data.draw(st.integers(1, 5))
    owner = np.array(data.draw(st.lists(st.integers(0, ranks - 1), min_size=n, max_size=n)))
    source = plan.arrivals(1)
    routes = [route(source, plan.vertex_of, owner, rank, ranks, most, steps) for rank in range(ranks)]
    holds = np.arange(len(source))
    for rank, here in enumerate(routes):
        assert [p.due for p in here.pieces] == sorted(p.due for p in here.pieces)
        room = np.full(len(here.target), -1)
        for piece in here.pieces:
            assert 0 <= piece.due < steps and 1 <= len(piece.origin) <= most
            if not piece.sends:
                assert (room[piece.part] == -1).all()
                room[piece.part] = piece.origin
                assert np.array_equal(here.origin[piece.part], piece.origin) and np.array_equal(here.target[piece.part], piece.target)
                assert (owner[plan.vertex_of[piece.target]] == rank).all() and (owner[plan.vertex_of[piece.origin]] == piece.peer).all()
        holds[here.target] = room
        for peer in set(range(ranks)) - {rank}:
            sent = [(p.due, p.origin.tolist(), p.target.tolist()) for p in here.pieces if p.sends and p.peer == peer]
            received = [(p.due, p.origin.tolist(), p.target.tolist()) for p in routes[peer].pieces if not p.sends and p.peer == rank]
            assert sent == received
    assert np.array_equal(holds, source)


def test_pieces_are_spread_over_the_epoch():
    """1,000 samples to each of 3 ranks in pieces of 10 over 50 steps: 2 pieces of each rank a step."""
    plan = Shuffling("partial", [4000] * 4, 1.0, 0)
    here = route(plan.arrivals(0), plan.vertex_of, np.arange(4), 0, 4, 10, 50)
    sent = np.bincount([p.due for p in here.pieces if p.sends], minlength=50)
    # Counts between two ranks are hypergeometric, 1,000 +- 24: 97 to 106 pieces.
    assert sent.min() >= 5 and sent.max() <= 8 and 290 <= sent.sum() <= 320


def opened(partition="iid", graph="ring:4", sizes=(100, 110, 90, 100), **keys):
    job = config.Job({k.replace("__", "."): config.check(config.find(k.replace("__", ".")), v) for k, v in keys.items()})
    net = topology.net(graph, 4)
    return open_shuffling(
        job,
        SimpleNamespace(sizes=list(sizes), partition=partition, streams=lambda vertex, bound: 0 < bound < 5000),
        SimpleNamespace(n=net.n, edges=net.edges, directed=net.directed, spec=net.spec),
    )


@pytest.mark.parametrize(
    "keys, told",
    [
        ({"partition": "dirichlet:0.3", "data__shuffle": "partial"}, ["dirichlet:0.3", "data.mix_owners = true", "data.shuffle = local"]),
        ({"partition": "owners", "data__shuffle": "global"}, ["owners", "data.mix_owners"]),
        ({"partition": "sorted", "data__shuffle": "neighbors"}, ["sorted", "data.mix_owners"]),
        ({"data__exchange_fraction": 0.3}, ["data.exchange_fraction = 0.3", "data.shuffle = local", "partial"]),
        ({"data__shuffle": "global", "data__exchange_fraction": 0.3}, ["data.exchange_fraction = 0.3", "data.shuffle = global"]),
        ({"data__shuffle": "partial", "data__exchange_fraction": 0.001}, ["0.001", "110 samples", "0.009091"]),
        ({"data__shuffle": "neighbors", "graph": "directed-ring:4"}, ["data.shuffle = neighbors", "directed-ring:4", "one way", "partial"]),
    ],
)
def test_what_cannot_be_is_told_in_one_line(keys, told):
    with pytest.raises(UserError) as error:
        opened(**keys)
    assert all(word in str(error.value) for word in told) and "\n" not in str(error.value)


def test_what_moves_nothing_asks_for_nothing():
    for keys in ({}, {"data__shuffle": "partial", "data__exchange_fraction": 0.0}, {"data__exchange_fraction": 0.0}):
        assert opened(partition="dirichlet:0.3", **keys) is None
    assert opened(graph="ring:1", sizes=[10], partition="sorted", data__shuffle="global") is None
    assert opened(partition="sorted", data__shuffle="partial", data__mix_owners=True).offered.tolist() == [10, 11, 9, 10]
    assert opened(data__shuffle="partial", evaluation__validation_fraction=0.5).sizes.tolist() == [50, 55, 45, 50]
    assert opened(data__shuffle="partial", data__exchange_fraction=0.0092).offered.tolist() == [0, 1, 0, 0]


def test_shards_that_are_streamed_are_not_shuffled_between_vertices():
    with pytest.raises(UserError, match="data.memory = 0.001 MiB has shards streamed from their files; raise data.memory"):
        opened(data__shuffle="global", data__memory=0.001)
    assert opened(data__shuffle="global", data__memory=0.1) is not None
    assert opened(data__shuffle="local", data__memory=0.001) is None


def test_the_command_line_refuses_before_anything_is_made(tmp_path):
    keys = ["--set", "data.partition=sorted", "--set", "data.shuffle=partial"]
    for words in (["--out", "run"], ["--dry-run"]):
        done = cli("train", *keys, *words, cwd=tmp_path)
        assert done.returncode == 2 and "data.mix_owners = true" in done.stderr and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "run").exists()


OWNERS = {"three": [2, 0, 1, 0, 1, 2], "two": [0, 1, 1, 1, 1, 1]}
CASES = ("local", "partial", "everything", "neighbors", "global", "features")
SIZES = [30, 34] * 3


@pytest.fixture(scope="module")
def ends(tmp_path_factory):
    """What tests/mpi/shuffled.py leaves of each case: {placement: {case: [of a vertex]}}."""
    found = {}
    for name, owners in {"one": [0] * 6, **OWNERS}.items():
        out = tmp_path_factory.mktemp(name)
        words = [ROOT / "tests" / "mpi" / "shuffled.py", out, json.dumps(owners)]
        done = mpirun(max(owners) + 1, *words, **PATH) if max(owners) else run(sys.executable, *words, **PATH)
        assert done.returncode == 0, done.stderr
        found[name] = {case: [dict(np.load(out / f"{case}-{v}.npz")) for v in range(6)] for case in CASES}
    return found


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("placed", OWNERS)
def test_the_placement_never_changes_what_a_vertex_sees(ends, placed, case):
    for v, (mine, other) in enumerate(zip(ends[placed][case], ends["one"][case])):
        for name in ("row", "ids", "sent", "held_out"):
            assert np.array_equal(mine[name], other[name]), (name, v)


@pytest.mark.parametrize("case", CASES)
def test_vertices_hold_what_the_plan_says(ends, case):
    """The ids of each vertex in each epoch, from the plan and the ids on the disk; every row is the one of its id."""
    at_home = [np.setdiff1d(1000 * v + np.arange(SIZES[v]), ends["one"][case][v]["held_out"]) for v in range(6)]
    sizes, everything = [len(ids) for ids in at_home], np.concatenate(at_home)
    edges = np.array([(v, (v + d) % 6) for v in range(6) for d in (1, 2)])  # of circulant:6,2
    mode, q = {
        "everything": ("partial", 1.0),
        "partial": ("partial", 0.3),
        "features": ("partial", 0.5),
        "neighbors": ("neighbors", 0.5),
    }.get(case, (case, 1.0))
    plan = Shuffling(mode, sizes, q, 1, np.unique(np.sort(edges, axis=1), axis=0))
    for epoch in range(4):
        expected = np.split(everything if case == "local" else everything[plan.holding(epoch)], np.cumsum(sizes)[:-1])
        for v in range(6):
            assert np.array_equal(ends["one"][case][v]["ids"][epoch], expected[v]), (epoch, v)
    for placed in ends:
        assert all(of_vertex["right"] for of_vertex in ends[placed][case])
    gone = [len(np.setdiff1d(of["ids"][3], of["ids"][0])) for of in ends["one"][case]]
    assert (max(gone) == 0) if case == "local" else (min(gone) > 0)


@pytest.mark.parametrize("case", CASES)
def test_sample_bytes_are_those_of_the_samples_that_moved(ends, case):
    """From the ids that each vertex holds in one epoch and in the next: who had them, and where that one is hosted."""
    size = 0 if case == "local" else int(ends["one"][case][0]["record"])
    assert size == {"local": 0, "features": 4 * 64 + 16}.get(case, 64 + 16)
    for placed, owners in {"one": [0] * 6, **OWNERS}.items():
        of = ends[placed][case]
        sent, wire = np.zeros((4, 6), int), np.zeros((4, 6), int)
        for epoch in range(4):
            # The moves behind an epoch count to it, and those ahead of the first, which global has, to that.
            spans = [(epoch, epoch + 1)] if epoch < 3 else []
            had = [{int(k): v for v in range(6) for k in of[v]["ids"][e]} for e, _ in spans]
            if epoch == 0 and case == "global":
                had.append({int(k): int(k) // 1000 for v in range(6) for k in of[v]["ids"][0]})
                spans.append((None, 0))
            for before, (_, after) in zip(had, spans):
                for v in range(6):
                    for k in of[v]["ids"][after]:
                        giver = before[int(k)]
                        sent[epoch, giver] += size * (giver != v)
                        wire[epoch, giver] += size * (owners[giver] != owners[v])
        for v in range(6):
            assert of[v]["sent"].tolist() == sent[:, v].tolist() and of[v]["wire"].tolist() == wire[:, v].tolist()
        assert (sent.sum() > 0) == (case != "local") and (wire.sum() > 0) == (case != "local" and placed != "one")


def test_held_out_samples_stay_and_nobody_trains_on_them(ends):
    held = [of["held_out"] for of in ends["one"]["everything"]]
    assert all((ids // 1000 == v).all() and len(ids) > 0 for v, ids in enumerate(held))
    trained = np.concatenate([of["ids"].ravel() for of in ends["one"]["everything"]])
    assert not np.isin(np.concatenate(held), trained).any()


def test_the_sweep_names_shards_and_graphs_that_fit():
    """Every run of jobs/shuffle_fraction.toml is a job whose shards its head makes, for as many vertices as its graph has."""
    text = (ROOT / "jobs" / "shuffle_fraction.toml").read_text()
    sweep = tomllib.loads(text)
    base = config.load(ROOT / "jobs" / sweep["base"])
    made = {
        f"shards/fashion{kind}-{m}": (int(m), "sorted" if kind else "iid")
        for numbers, kind in re.findall(r"for m in ([\d ]+); do python data_prep/fashion_mnist.py RAW shards/fashion(\S*)-\$m", text)
        for m in numbers.split()
    }
    assert len(made) == len(sweep["run"]) == 6
    for entry in sweep["run"]:
        job = base.replace(**{key.replace(".", "__"): value for key, value in {**sweep["set"], **entry}.items()})
        vertices, partition = made.pop(job.data.shards)
        assert len(topology.build(job.topology.graph)) == vertices
        for name, values in sweep["grid"].items():
            for value in values:
                one = job.replace(**{name.replace(".", "__"): value})
                source = SimpleNamespace(sizes=[60_000 // vertices] * vertices, partition=partition)
                net = topology.net(job.topology.graph, 1)
                found = open_shuffling(one, source, SimpleNamespace(n=vertices, edges=net.edges, directed=False, spec=""))
                assert (found is None) == (one.data.exchange_fraction == 0)
    assert not made


def test_the_small_sweep_names_keys_that_exist():
    sweep = tomllib.loads((ROOT / "jobs" / "shuffle_digits.toml").read_text())
    job = config.Job({}).replace(**{key.replace(".", "__"): value for key, value in sweep["set"].items()})
    for name, values in sweep["grid"].items():
        for value in values:
            job.replace(**{name.replace(".", "__"): value})
    assert [len(topology.build(spec)) for spec in sweep["grid"]["topology.graph"]] == [4, 16, 64]
