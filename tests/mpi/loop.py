"""Run under mpirun: a user's own loop with Network, as the README shows it, for each case of argv[1], a JSON object {case: options}.

Prints what the test checks, a line a case and rank.
"""

import json
import sys

import torch

import mpiconsensus


def loop(options):
    interrupted = options.pop("interrupted", False)
    net = mpiconsensus.Network(**options)
    torch.manual_seed(5 + net.vertex)
    model = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.BatchNorm1d(8), torch.nn.ReLU(), torch.nn.Linear(8, 3)).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    net.attach(model, optimizer, total_steps=7)
    start = [p.detach().clone() for p in model.parameters()]
    batches = []
    for _ in range(7):
        x, y = torch.randn(5, 6, dtype=torch.float64), torch.randint(3, (5,))
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        net.step()
        batches.append((x, y))
        if interrupted and len(batches) == 3:
            state = net.state_dict()
            net.detach()
            net = mpiconsensus.Network(**options)
            net.attach(model, optimizer, total_steps=7, state=state)
    end = [p.detach().clone() for p in model.parameters()]
    value = torch.tensor([float(net.vertex), 2.0 * net.vertex + 1], dtype=torch.float64)
    out = {
        "vertex": net.vertex, "n": net.n, "matrix": net.matrix.tolist(), "distance": net.consensus_distance(),
        "start": [p.tolist() for p in start], "end": [p.tolist() for p in end], "batches": [(x.tolist(), y.tolist()) for x, y in batches],
        "average": net.average(value).tolist(), "twice": net.average(value, rounds=2).tolist(), "mean": net.mean(value).tolist(),
        "mean_state": {name: t.tolist() for name, t in net.mean_state_dict().items()},
        "buffers": [b.tolist() for b in model.buffers()],
    }  # fmt: skip
    net.detach()
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), end))
    return out


for case, options in json.loads(sys.argv[1]).items():
    print(json.dumps({"case": case, **loop(options)}), flush=True)
