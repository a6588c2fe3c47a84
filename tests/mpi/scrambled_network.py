"""Run under mpirun on four ranks: a Network whose vertices are not in the order of the ranks."""

import numpy as np
import torch

import mpiconsensus
from mpiconsensus import placement
from mpiconsensus.errors import UserError
from mpiconsensus.runtime import World

OWNERS = [2, 0, 3, 1]
placement.assign = lambda *of_graph: (np.array(OWNERS), "scrambled")
rank = World.start().rank
net = mpiconsensus.Network(graph="ring", placement="auto")
assert OWNERS[net.vertex] == rank
values = np.array([1.0, 10.0, 100.0, 1000.0])
mine = torch.tensor([values[net.vertex]], dtype=torch.float64)
assert abs(float(net.average(mine)) - net.matrix[net.vertex] @ values) < 1e-12 * 1000
assert float(net.mean(mine)) == values.mean()
model = torch.nn.Linear(1, 1, bias=False)
model.weight.data.fill_(float(net.vertex))
net.attach(model, torch.optim.SGD(model.parameters(), lr=1.0), identical=False)
assert abs(net.consensus_distance() - np.arange(4.0).std()) < 1e-7  # float32
net.detach()
net.attach(model, torch.optim.SGD(model.parameters(), lr=1.0))
assert float(model.weight) == 0.0  # that of vertex 0
try:
    net.mean(torch.zeros(2 if net.vertex == 3 else 1))
except UserError as error:
    assert "vertex 3 2 of" in str(error)
    print("done")
