"""Decentralised averaging around a user's own PyTorch loop, or of a bare tensor: one vertex a rank."""

import numpy as np
import torch

from mpiconsensus import config, mixing
from mpiconsensus.algorithms import Setting, make
from mpiconsensus.block import Block, Layout, Rows, row_length
from mpiconsensus.errors import UserError, did_you_mean
from mpiconsensus.optim import TorchOptimizers
from mpiconsensus.placement import place
from mpiconsensus.runtime import World
from mpiconsensus.schedule import full
from mpiconsensus.stepper import Stepper
from mpiconsensus.transport import Reduction, open_exchange
from mpiconsensus.wiring import wire

# Keyword -> job key; the keys of [algorithm] go by their own names.
OPTIONS = {
    "weights": "topology.weights",
    "topology_seed": "topology.seed",
    "algorithm": "algorithm.name",
    "transport": "transport.name",
    "reduction": "transport.reduction",
    "momentum_policy": "training.momentum_policy",
    "buffers": "model.buffers",
    "seed": "training.seed",
    "placement": "placement.map",
    **{k.name.split(".")[1]: k.name for k in config.KEYS if k.name.startswith("algorithm.") and k.name != "algorithm.name"},
}


class Network:
    """The graph of a run, with this rank's vertex on it.

    graph: a spec as topology.graph ("ring", "torus:6x6", ...); comm: an mpi4py communicator, default all ranks.
    Keywords are job keys by their last word (period=4, order="cta", algorithm="gossip", pairs=2, weights=...,
    momentum_policy=..., buffers=..., placement=...). n: vertices; vertex: this rank's. Collective, as everything here is; UserError
    for a keyword or value that is not allowed, and where ranks and vertices differ.

        net = mpiconsensus.Network(graph="ring")
        net.attach(model, optimizer)
        for x, y in batches:
            optimizer.zero_grad()
            loss_function(model(x), y).backward()
            net.step()
    """

    def __init__(self, graph="auto", comm=None, **options):
        unknown = set(options) - set(OPTIONS)
        if unknown:
            word = min(unknown)
            raise UserError(f"Network has no option {word!r}; options are {', '.join(OPTIONS)}.{did_you_mean(word, OPTIONS)}")
        values = {OPTIONS[word]: value for word, value in options.items()}
        values["topology.graph"] = graph
        self._job = config.Job({name: config.check(config.find(name), value) for name, value in values.items()})
        self._world = World.from_comm(comm.Dup()) if comm is not None else World.start()
        self._wiring = wire(self._job.topology, self._world, default_vertices=1)
        self.n = self._wiring.n
        if self.n != self._world.size:
            raise UserError(
                f"the graph {self._wiring.spec} has {self.n} vertices, {self._world.size} ranks were started; a Network hosts one "
                f"vertex a rank: start {self.n} ranks, or give the graph without its size (graph='ring')."
            )
        self._placement = place(self._job.placement.map, self._world, self._wiring)
        (self.vertex,) = self._placement.hosted
        self._reduction = Reduction(self._world, self._placement, self._job.transport.reduction)
        self._round, self._varying, self._averages = full(self._wiring.rows), self._wiring.varying, 0
        self._averagers, self._alike = {}, set()
        self._stepper = None

    @property
    def matrix(self):
        """The mixing matrix W, float64 (n, n); of a graph that changes the average over its exchanges."""
        return self._wiring.matrix

    def attach(self, model, optimizer, total_steps=0, identical=True, state=None):
        """Make the parameters of `model` rows that are exchanged; `optimizer` is a torch.optim.Optimizer over them.

        Call it once, with the model on its device. identical: all vertices take the values of vertex 0. total_steps:
        needed by one-shot. state: of state_dict(), to go on where it was taken; model and optimizer are then loaded
        by the user, each vertex its own, and stay as they are. From here on call step() where optimizer.step() was.
        """
        job = self._job
        if self._stepper is not None:
            raise UserError("this Network has a model attached already; make a Network for each model.")
        if job.algorithm.name == "one-shot" and not total_steps:
            raise UserError("algorithm = one-shot averages after the last step; tell which: net.attach(model, optimizer, total_steps=...).")
        setting = Setting.of(self._wiring, job.algorithm, [], job.training.seed, total_steps, job.compression)
        self._algorithm = make(setting)
        if self._algorithm.asynchronous:
            raise UserError(f"algorithm = {job.algorithm.name} has no rounds, and Network.step() is one; take consensus, or `mpiconsensus train`.")
        if self._algorithm.compressed:
            raise UserError(f"algorithm = {job.algorithm.name} compresses, which Network.step() does not; take consensus, or `mpiconsensus train`.")
        layout = Layout(model, buffers=job.model.buffers == "mixed")
        self._reduction.check(layout.dtype)
        mixed = job.training.momentum_policy == "mixed"
        states = len(TorchOptimizers(None, [optimizer]).names) if mixed else 0
        self._exchange = open_exchange(
            job.transport.name, self._world, self._placement, row_length(layout, states), layout.dtype, layout.device, self._algorithm.depth
        )
        self._block = Block(layout, [model], self._exchange.storage(), flat_gradients=False)
        self._exchange.bind(self._block)
        self._gradients = torch.zeros((1, layout.p), dtype=layout.dtype, device=layout.device)
        if identical and state is None:
            self._take_first(model)
        self._optimizers = TorchOptimizers(self._block, [optimizer], mixed)
        self._stepper = Stepper(
            self._algorithm, job.algorithm.order, self._exchange, self._reduction, self._block, self._placement,
            optimizers=self._optimizers, momentum_policy=job.training.momentum_policy,
            on_mixed=(lambda i: restart_buffers(model)) if job.model.buffers == "reset" else None,
        )  # fmt: skip
        if state is not None:
            self._stepper.load_state_dict(state)
        self._stepper.before(resumed=state is not None)

    def step(self):
        """Update with the gradients that are there and run the rounds of this step; in place of optimizer.step()."""
        self._require_model()
        if self._algorithm.averages_gradients:
            self._block.gather_gradients(0, self._gradients[0])
            self._stepper.mean_gradients(self._gradients)
            self._block.scatter_gradients(0, self._gradients[0])
        pace = self._algorithm.pace(self._stepper.k, self.vertex)
        self._stepper.after(lambda i, decay: self._optimizers.step(i, None, decay, pace))
        # What comes ahead of the next gradients: a round to hide behind them, or to take them at the mixed point.
        self._stepper.before()

    @torch.no_grad()
    def average(self, tensor, rounds=1):
        """Return sum_j W[i,j] tensor_j for this vertex i, `rounds` times over; the same shape and type on every rank.

        On a graph that changes each round is the next exchange, counted over all calls.
        """
        self._check_alike(tensor)
        if not tensor.numel():
            return tensor.clone()
        exchange, rows = self._averager(tensor)
        rows.x(0)[: tensor.numel()].copy_(tensor.reshape(-1))
        for _ in range(rounds):
            round_ = self._varying.round(self._averages) if self._varying else self._round
            self._averages += 1
            if round_.rows:
                mixing.run_round(exchange, rows, round_)
        return rows.x(0)[: tensor.numel()].clone().view(tensor.shape)

    @torch.no_grad()
    def mean(self, tensor):
        """Return the average of all vertices' tensors."""
        self._check_alike(tensor)
        return self._reduction.mean([tensor.reshape(-1)]).clone().view(tensor.shape)

    def consensus_distance(self):
        """Return ||X - x_bar||_F / sqrt(n) of the attached model's parameters."""
        self._require_model()
        row = self._block.parameters(0)
        distance = mixing.distances([row], self._reduction.mean([row]))[0, 1]
        squares = self._placement.gather(self._world, distance[None, None] ** 2)
        return self._world.bcast(None if squares is None else float(np.sqrt(squares.sum() / self.n)))

    def mean_state_dict(self):
        """Return the state dict of the mean model: averages of the floating-point parameters and buffers."""
        self._require_model()
        state = self._block.modules[0].state_dict()
        return {name: self.mean(t.contiguous()) if t.is_floating_point() else t.clone() for name, t in state.items()}

    def detach(self):
        """Give the model tensors of its own again and free the exchange; the Network can attach another model.

        What a delayed algorithm has in flight is taken in where the mean lacks it (push-sum).
        """
        self._require_model()
        self._stepper.settle()
        self._stepper.drain()
        self._block.release()
        self._exchange.close()
        self._stepper = None

    def state_dict(self):
        """Return the state of the schedule, for attach(state=...); the model and the optimizer are the user's to save."""
        self._require_model()
        return self._stepper.state_dict()

    def _require_model(self):
        if self._stepper is None:
            raise UserError("this Network has no model; call net.attach(model, optimizer) first.")

    def _take_first(self, model):
        frozen = [p.data for p in model.parameters() if not p.requires_grad]
        tensors, first = [self._block.x(0), *frozen, *model.buffers()], int(self._placement.owner[0])
        for tensor in tensors:
            tensor.copy_(self._world.bcast(tensor.detach().cpu().clone() if self.vertex == 0 else None, first))

    def _check_alike(self, tensor):
        """Raise UserError on all ranks unless every rank brought a floating-point tensor of one size and type."""
        if not isinstance(tensor, torch.Tensor):
            raise UserError(f"only tensors are averaged, this is a {type(tensor).__name__}; make one with torch.tensor(...).")
        if not tensor.is_floating_point():
            raise UserError(f"only floating-point tensors are averaged, this one is {tensor.dtype}; convert it with .float().")
        key = (tensor.numel(), tensor.dtype)
        if key in self._alike:
            return
        of_rank = self._world.allgather((tensor.numel(), str(tensor.dtype)))
        brought = [of_rank[rank] for rank in self._placement.owner]
        if len(set(brought)) > 1:
            other = next(v for v, b in enumerate(brought) if b != brought[0])
            error = UserError(
                f"all vertices must bring tensors of one size and type: vertex 0 brought {brought[0][0]} elements of {brought[0][1]}, "
                f"vertex {other} {brought[other][0]} of {brought[other][1]}."
            )
            error.agreed = True
            raise error
        self._alike.add(key)

    def _averager(self, tensor):
        key = (tensor.numel(), tensor.dtype, tensor.device)
        if key not in self._averagers:
            exchange = open_exchange("auto", self._world, self._placement, tensor.numel(), tensor.dtype, tensor.device)
            rows = Rows(exchange.storage())
            exchange.bind(rows)
            self._averagers[key] = exchange, rows
        return self._averagers[key]


def restart_buffers(model):
    """Restart the running statistics of every batch normalisation of `model`."""
    for layer in model.modules():
        if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm):
            layer.reset_running_stats()
