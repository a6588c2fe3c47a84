"""Run under mpirun: a Network with a delayed mix, stopped at step 4 and taken up again, ends where it would have ended."""

import copy

import torch

import mpiconsensus


def attached(state=None, model_state=None, optimizer_state=None):
    torch.manual_seed(0)
    model = torch.nn.Linear(5, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    if state:
        model.load_state_dict(model_state)
        optimizer.load_state_dict(optimizer_state)
    net = mpiconsensus.Network(graph="ring", delay=1)
    net.attach(model, optimizer, state=state)
    return net, model, optimizer


def train(net, model, optimizer, steps):
    for k in steps:
        x = torch.randn(4, 5, generator=torch.Generator().manual_seed(100 * k + net.vertex))
        optimizer.zero_grad()
        model(x).square().sum().backward()
        net.step()


whole = attached()
train(*whole, range(4))
states = [copy.deepcopy(part.state_dict()) for part in whole]
train(*whole, range(4, 8))
whole[0].detach()
rest = attached(*states)
train(*rest, range(4, 8))
for a, b in zip(whole[1].parameters(), rest[1].parameters(), strict=True):
    assert torch.equal(a, b)
print("continued")
