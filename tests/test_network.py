"""A user's own loop with `Network`, under a real mpirun, against torch.optim and a matrix of weights in this process."""

import json
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT, cli, mpirun, run
from reference.matrix import column_stochastic, weights

from mpiconsensus import Network
from mpiconsensus.errors import UserError
from mpiconsensus.runread import Run

SCRIPT = ROOT / "tests" / "mpi" / "loop.py"
RING = weights(4, [(0, 1), (1, 2), (2, 3), (0, 3)])


FULL = np.full((4, 4), 0.25)
ARCS = [(0, 1), (0, 2), (0, 3), (1, 2), (2, 3), (3, 0)]
# Options of Network; k -> W_k, None where nothing is mixed; whether gradients are averaged.
CASES = {
    "period": ({"period": 2}, lambda k: RING if k % 2 == 0 else None, False),
    "cta": ({"order": "cta"}, lambda k: RING, False),
    "dpsgd": ({"order": "dpsgd"}, lambda k: RING, False),
    "interrupted": ({"period": 2, "interrupted": True}, lambda k: RING if k % 2 == 0 else None, False),
    "cta interrupted": ({"order": "cta", "period": 2, "interrupted": True}, lambda k: RING if k % 2 == 0 else None, False),
    "dpsgd interrupted": ({"order": "dpsgd", "interrupted": True, "transport": "neighbor"}, lambda k: RING, False),
    "local-sgd": ({"algorithm": "local-sgd", "tau": 3}, lambda k: FULL if (k + 1) % 3 == 0 else None, False),
    "one-shot": ({"algorithm": "one-shot"}, lambda k: FULL if k == 6 else None, False),
    "allreduce": ({"algorithm": "allreduce"}, lambda k: None, True),
}


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    """What each vertex of four told, {case: [of vertex 0, ...]}: one launch, since each rank of one loads torch anew."""
    arcs = tmp_path_factory.mktemp("graph") / "arcs.txt"
    arcs.write_text("# directed\n" + "".join(f"{i} {j}\n" for i, j in ARCS))
    cases = {name: options for name, (options, _, _) in CASES.items()}
    cases |= {"one-peer": {"graph": "one-peer-exponential"}, "push-sum": {"graph": f"file:{arcs}", "weights": "push-sum", "algorithm": "push-sum"}}
    return loop(4, cases)


def loop(ranks, cases):
    """Return {case: [what a vertex told, vertices ascending]} of cases {name: options}; on a ring where they name no graph."""
    done = mpirun(ranks, SCRIPT, json.dumps({name: {"graph": "ring", **options} for name, options in cases.items()}))
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    found = {name: sorted((out for out in told if out["case"] == name), key=lambda out: out["vertex"]) for name in cases}
    assert all([out["vertex"] for out in outs] == list(range(ranks)) for outs in found.values())
    return found


def replay(outs, mix, gradients_averaged=False, order="atc", pace=lambda k, i: 1.0):
    """Train the same models on the same batches in one process; mix(k) gives W_k, or None, pace(k, i) scales a step."""
    models, optimizers = [], []
    for out in outs:
        model = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.BatchNorm1d(8), torch.nn.ReLU(), torch.nn.Linear(8, 3)).double()
        for p, value in zip(model.parameters(), out["start"]):
            p.data = torch.tensor(value, dtype=torch.float64)
        models.append(model)
        decay = 0.0 if order == "dpsgd" else 0.01
        optimizers.append(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=decay))

    def combine(k):
        w = mix(k)
        if w is not None:
            columns = list(zip(*(list(m.parameters()) for m in models)))
            for parameters in columns:
                mixed = np.einsum("ij,j...->i...", w, np.stack([p.detach().numpy() for p in parameters]))
                for p, value in zip(parameters, mixed):
                    p.data = torch.from_numpy(value.copy())

    for k in range(7):
        if order == "cta":
            combine(k)
        for model, optimizer, out in zip(models, optimizers, outs):
            x, y = out["batches"][k]
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(torch.tensor(x, dtype=torch.float64)), torch.tensor(y)).backward()
            if order == "dpsgd":
                for p in model.parameters():
                    p.grad += 0.01 * p.data
        if gradients_averaged:
            for parameters in zip(*(list(m.parameters()) for m in models)):
                mean = sum(p.grad for p in parameters) / len(parameters)
                for p in parameters:
                    p.grad = mean.clone()
        if order == "dpsgd":
            combine(k)
        for i, optimizer in enumerate(optimizers):
            optimizer.param_groups[0]["lr"] = 0.1 * pace(k, i)
            optimizer.step()
        if order == "atc":
            combine(k)
    if order == "cta":
        combine(7)  # the round ahead of the next gradients is done by step()
    return [[p.detach().numpy() for p in m.parameters()] for m in models]


@pytest.mark.parametrize("name", CASES)
def test_a_users_loop_is_its_matrix_version(four, name):
    (options, mix, averaged), outs = CASES[name], four[name]
    for p, first in [(p, first) for out in outs for p, first in zip(out["start"], outs[0]["start"])]:
        assert np.abs(np.array(p) - np.array(first)).max() < 1e-15, "all vertices start from vertex 0's values"
    ends = replay(outs, mix, averaged, options.get("order", "atc"))
    for out, end in zip(outs, ends):
        for value, expected in zip(out["end"], end):
            assert np.abs(np.array(value) - expected).max() < 1e-12
    flat = np.array([np.concatenate([np.ravel(p) for p in end]) for end in ends])
    distance = np.linalg.norm(flat - flat.mean(axis=0)) / 2
    assert outs[0]["distance"] == pytest.approx(distance, abs=1e-12)
    assert np.abs(np.array(outs[2]["mean_state"]["3.bias"]) - np.mean([o["end"][-1] for o in outs], axis=0)).max() < 1e-14


def test_a_changing_directed_graph_serves_loop_and_averages(four):
    """Four vertices on a one-peer exponential graph: hops 1, 2, 1, ...; two rounds average exactly."""
    hop = lambda k: np.stack([(np.eye(4)[i] + np.eye(4)[(i - 2 ** (k % 2)) % 4]) / 2 for i in range(4)])
    outs = four["one-peer"]
    ends = replay(outs, hop)
    for out, end in zip(outs, ends):
        for value, expected in zip(out["end"], end):
            np.testing.assert_allclose(value, expected, rtol=0, atol=1e-12)
    values = np.array([[v, 2.0 * v + 1] for v in range(4)])
    np.testing.assert_allclose([o["average"] for o in outs], hop(0) @ values, rtol=0, atol=1e-15)
    np.testing.assert_allclose([o["twice"] for o in outs], hop(0) @ hop(1) @ values, rtol=0, atol=1e-15)


def test_the_log_and_the_measurements_know_directions(tmp_path):
    done = cli("train", "--set", "topology.graph=one-peer-exponential:4", "--set", "training.max_steps=2", "--out", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with Run(tmp_path / "run") as run_:
        assert (run_.graph["directed"], run_.graph["changing"]) == (True, True)
        assert run_.graph["edges"].tolist() == [[i, j] for i in range(4) for j in sorted({(i + 1) % 4, (i + 2) % 4})]
        assert run_.graph["lambda2_modulus"] == 0.0
    for graph in ("directed-ring", "matchings:ring:4"):
        refused = cli("bench", "round", "--graph", graph, "--parameters", "1000")
        assert refused.returncode == 2 and len(refused.stderr.splitlines()) == 1
        assert f"--graph {graph}: what is measured is an undirected graph that stays" in refused.stderr


def test_push_sum_paces_a_users_optimizer(four):
    """Vertex 0 is heard by all and hears one: its push-sum weight, and so its learning rate, is not that of the others."""
    outs = four["push-sum"]
    a, w = column_stochastic(4, ARCS), [np.ones(4)]
    for _ in range(7):
        w.append(a @ w[-1])
    assert np.ptp(w[-1]) > 0.3
    ends = replay(outs, lambda k: a * w[k] / w[k + 1][:, None], pace=lambda k, i: 1 / w[k][i])
    for out, end in zip(outs, ends):
        for value, expected in zip(out["end"], end):
            np.testing.assert_allclose(value, expected, rtol=0, atol=1e-12)


def test_a_bare_tensor_is_averaged(four):
    outs, w4 = loop(3, {"three": {}})["three"], four["cta"]
    w, values = weights(3, [(0, 1), (1, 2), (0, 2)]), np.array([[v, 2 * v + 1] for v in range(3)], float)
    values4 = np.array([[v, 2 * v + 1] for v in range(4)], float)
    assert np.allclose([o["average"] for o in outs], w @ values, atol=1e-15)
    assert np.allclose([o["average"] for o in w4], RING @ values4, atol=1e-15)
    assert np.allclose([o["twice"] for o in w4], RING @ RING @ values4, atol=1e-15)
    assert np.allclose([o["mean"] for o in w4], values4.mean(axis=0), atol=1e-15)


def test_one_process_is_a_plain_loop():
    done = run(sys.executable, SCRIPT, json.dumps({"alone": {"graph": "auto"}}))
    assert done.returncode == 0, done.stderr
    out = json.loads(done.stdout)
    (end,) = replay([out], lambda k: None)
    assert all(np.array_equal(value, expected) for value, expected in zip(out["end"], end))


@pytest.mark.parametrize(
    "options, words",
    [
        ({"priod": 3}, "period"),
        ({"period": 0}, "smallest value is 1"),
        ({"graph": "ring:4"}, "one vertex a rank|hosts one"),
        ({"algorithm": "gosip"}, "gossip"),
    ],
)
def test_wrong_options_are_named(options, words):
    with pytest.raises(UserError, match=words):
        Network(**options)


HALF = """
import os, torch, mpiconsensus
net = mpiconsensus.Network(graph="ring")
torch.manual_seed(net.vertex)
model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2), torch.nn.Linear(2, 1)).to(torch.bfloat16)
model[0].requires_grad_(False)
torch.manual_seed(0)
first = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2), torch.nn.Linear(2, 1)).to(torch.bfloat16)
net.attach(model, torch.optim.SGD(model[2].parameters(), lr=1.0))
assert all(torch.equal(p, q) for p, q in zip(model.parameters(), first.parameters())), "frozen ones too"
model[1].weight.grad, model[2].weight.grad, model[2].bias.grad = None, torch.zeros(1, 2).bfloat16(), torch.tensor([float(net.vertex)]).bfloat16()
bias = model[2].bias.item()
net.step()
assert abs(model[2].bias.item() - (bias - 0.5)) < 0.01, (bias, model[2].bias)
mean = net.mean_state_dict()["2.bias"]
assert mean.dtype == torch.bfloat16 and abs(mean.item() - (bias - 0.5)) < 0.01 and net.consensus_distance() < 0.01
net.detach()
for dtype in (torch.float16, torch.bfloat16):
    tensor = torch.tensor([1.0, 3.0], dtype=dtype) * net.vertex
    assert net.mean(tensor).tolist() == net.average(tensor).tolist() == [0.5, 1.5]
assert net.average(torch.ones(2, 0)).shape == net.mean(torch.ones(2, 0)).shape == (2, 0)
for tensor in (torch.ones(3, dtype=torch.int64), [1.0]):
    try:
        net.average(tensor)
    except mpiconsensus.errors.UserError as error:
        assert "tensors are averaged" in str(error)
try:
    mpiconsensus.Network(graph="ring", reduction="mpi").attach(model, torch.optim.SGD(model.parameters(), lr=1.0))
except mpiconsensus.errors.UserError as error:
    assert "reduction = ordered" in str(error)
    os.write(1, b"all\\n")  # in one piece, whoever else writes
"""


def test_types_of_two_bytes_frozen_parameters_and_empty_tensors(tmp_path):
    (tmp_path / "half.py").write_text(HALF)
    done = mpirun(2, tmp_path / "half.py", timeout=60)
    assert done.returncode == 0 and done.stdout.count("all") == 2, done.stderr


@pytest.mark.parametrize("order", ["atc", "dpsgd"])
@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.3, weight_decay=0.1, maximize=True),
        lambda p: torch.optim.Adam(p, lr=0.1, weight_decay=0.1, maximize=True),
        lambda p: torch.optim.Adam(p, lr=0.1, weight_decay=0.1, decoupled_weight_decay=True),
        lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.1, amsgrad=True),
        lambda p: torch.optim.RMSprop(p, lr=0.1, weight_decay=0.1),
    ],
    ids=["nesterov", "maximize", "adam maximize", "adam decoupled", "adamw", "rmsprop"],
)
def test_a_loop_alone_with_any_optimizer_is_torchs(make, order):
    start = torch.randn(6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ours, theirs = torch.nn.Linear(6, 1, bias=False).double(), torch.nn.Linear(6, 1, bias=False).double()
    for model in (ours, theirs):
        model.weight.data = start.clone()[None]
    net, optimizer, plain = Network(order=order), make(ours.parameters()), make(theirs.parameters())
    net.attach(ours, optimizer)
    for k in range(20):
        for model, step in ((ours, net.step), (theirs, plain.step)):
            model.zero_grad()
            (model.weight @ torch.linspace(-1, 1, 6).double() - k % 3).square().sum().backward()
            step()
    assert (ours.weight - theirs.weight).abs().max() < 1e-12 and not torch.equal(theirs.weight[0], start)
    net.detach()


def test_tensors_that_differ_by_rank_end_all_ranks_with_one_line(tmp_path):
    script = tmp_path / "uneven.py"
    script.write_text("import torch, mpiconsensus\nnet = mpiconsensus.Network()\nnet.average(torch.ones(3 + net.vertex))\n")
    done = mpirun(2, script, timeout=60)
    assert done.returncode == 2 and done.stderr.count("all vertices must bring tensors of one size") == 1 and "Traceback" not in done.stderr


def test_an_error_on_one_rank_ends_the_others(tmp_path):
    script = tmp_path / "fails.py"
    script.write_text("import torch, mpiconsensus\nnet = mpiconsensus.Network()\nassert net.vertex == 0\nnet.mean(torch.ones(3))\n")
    done = mpirun(2, script, timeout=60)
    assert done.returncode != 0 and "AssertionError" in done.stderr


def test_a_network_without_a_model_says_so():
    with pytest.raises(UserError, match="attach"):
        Network().step()


def test_one_shot_needs_the_number_of_steps():
    model = torch.nn.Linear(2, 2)
    with pytest.raises(UserError, match="total_steps"):
        Network(algorithm="one-shot").attach(model, torch.optim.SGD(model.parameters(), lr=0.1))


def test_a_delayed_network_continues_where_its_state_was_taken():
    done = mpirun(3, ROOT / "tests" / "mpi" / "resumed_delay.py")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("continued") == 3
