"""Optimizers of a rank's replicas, and learning rates.

flat: a fused pass over a vertex's contiguous row; a step of SGD is within 1 ulp of torch.optim's, whose vector loops
end at other elements, and one of Adam within 8, whose eight roundings come in another order. torch: torch.optim itself, tensor by tensor. Importing torch.optim's classes is cheap, making one
loads the compiler stack (2 s, 80 MB a rank): the flat way calls their functional forms instead.
"""

import math

import torch
from torch.optim.adam import adam
from torch.optim.sgd import sgd

# Optimizer state that is a row like the parameters, in the words of torch.optim.
STATES = {"sgd": ("momentum_buffer",), "adam": ("exp_avg", "exp_avg_sq")}


def state_names(kind, momentum):
    """Return the names of the states that the optimizer `kind` keeps: SGD without momentum keeps none."""
    return STATES[kind] if kind == "adam" or momentum else ()


class FlatOptimizer:
    """SGD with momentum or Adam on the rows of a Block. mixed: the state lies in the rows and mixes with them."""

    def __init__(self, block, kind, *, momentum=0.0, weight_decay=0.0, mixed=False):
        self.block, self.kind, self.momentum, self.weight_decay, self.mixed = block, kind, momentum, weight_decay, mixed
        self.names = state_names(kind, momentum)
        self.steps = [torch.zeros((), dtype=torch.float32, device=block.layout.device) for _ in range(block.m)]
        self._own = {}
        if not mixed:
            for name in self.names:
                self._own[name] = torch.zeros((block.m, block.p), dtype=block.layout.dtype, device=block.layout.device).unbind(0)

    def state(self, i, name):
        """Return the (p,) state `name` of hosted vertex i."""
        return self.block.state(i, self.names.index(name)) if self.mixed else self._own[name][i]

    def decay(self, i):
        """Add the weight decay at the present parameters to the gradient: for orders that update elsewhere."""
        if self.weight_decay:
            self.block.gradients[i].add_(self.block.parameters(i), alpha=self.weight_decay)

    def step(self, i, lr, decay=True):
        """Update hosted vertex i from its row of gradients; decay = False: the weight decay is in them already."""
        self._advance([i], [self.block.parameters(i)], lr, self.weight_decay if decay else 0.0)

    def ahead(self, indices, lrs, rows):
        """Write what step(i, lr) would make of the parameters of hosted vertices into `rows`, (p,) each, in a call for each rate.

        Their states go on; the parameters stay as they are until the caller moves the rows there.
        """
        groups = {}
        for i, lr, row in zip(indices, lrs, rows, strict=True):
            mine, theirs = groups.setdefault(lr, ([], []))
            mine.append(i)
            theirs.append(row)
        for lr, (mine, theirs) in groups.items():
            for i, row in zip(mine, theirs):
                row.copy_(self.block.parameters(i))
            self._advance(mine, theirs, lr, self.weight_decay)

    def _advance(self, indices, rows, lr, weight_decay):
        """Update `rows`, the parameters of the hosted vertices `indices`, in place."""
        gradients = [self.block.gradient(i) for i in indices]
        states = [[self.state(i, name) for i in indices] for name in self.names]
        if self.kind == "sgd":
            buffers = states[0] if states else [None] * len(rows)
            sgd(
                rows, gradients, buffers, fused=True, foreach=False, weight_decay=weight_decay, momentum=self.momentum, lr=lr,
                dampening=0.0, nesterov=False, maximize=False,
            )  # fmt: skip
        else:
            adam(
                rows, gradients, *states, [], [self.steps[i] for i in indices],
                fused=True, foreach=False, amsgrad=False, beta1=0.9, beta2=0.999, lr=lr, weight_decay=weight_decay, eps=1e-8,
                maximize=False,
            )  # fmt: skip

    def reset(self, i):
        """Forget the state of hosted vertex i."""
        for name in self.names:
            self.state(i, name).zero_()
        self.steps[i].zero_()

    def push(self, i):
        """Bring the state into the row ahead of a round: it lies there."""

    pull = push

    def state_dict(self, i):
        state = {name: self.state(i, name).clone() for name in self.names}
        return {**state, "step": self.steps[i].clone()}

    def load_state_dict(self, i, state):
        for name in self.names:
            self.state(i, name).copy_(state[name])
        self.steps[i].copy_(state["step"])


class TorchOptimizers:
    """One torch.optim.Optimizer a hosted vertex, the job's or the user's own. mixed: its state is copied to the rows
    ahead of a round and back behind it."""

    def __init__(self, block, optimizers, mixed=False):
        self.block, self.optimizers, self.mixed = block, optimizers, mixed
        # A user's optimizer may hold more than the model, or name what it keeps differently.
        self.names = next((names for names in STATES.values() if _keeps(optimizers[0], names)), ())

    @classmethod
    def make(cls, block, kind, *, momentum=0.0, weight_decay=0.0, mixed=False):
        options = {"lr": 0.0, "weight_decay": weight_decay}
        if kind == "sgd":
            options["momentum"] = momentum
        build = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[kind]
        return cls(block, [build(_trained(module), **options) for module in block.modules], mixed)

    def decay(self, i):
        if not self._decay_is_gradient(i):
            return
        for group in self.optimizers[i].param_groups:
            # Whoever maximizes turns the gradient round before the decay is added: here it is added before.
            alpha = -group["weight_decay"] if group["maximize"] else group["weight_decay"]
            for parameter in group["params"]:
                if alpha and parameter.grad is not None:
                    parameter.grad.add_(parameter.data, alpha=alpha)

    def step(self, i, lr=None, decay=True, pace=1.0):
        """Update hosted vertex i with learning rate lr; None: with those that the optimizer has, times `pace`."""
        optimizer = self.optimizers[i]
        own = [group["lr"] for group in optimizer.param_groups]
        if lr is not None or pace != 1.0:
            for group in optimizer.param_groups:
                group["lr"] = group["lr"] * pace if lr is None else lr
        self._step(i, optimizer, decay)
        for group, value in zip(optimizer.param_groups, own):
            group["lr"] = value

    def _step(self, i, optimizer, decay):
        if decay or not self._decay_is_gradient(i):
            optimizer.step()
            return
        kept = [group["weight_decay"] for group in optimizer.param_groups]
        for group in optimizer.param_groups:
            group["weight_decay"] = 0.0
        optimizer.step()
        for group, weight_decay in zip(optimizer.param_groups, kept):
            group["weight_decay"] = weight_decay

    def _decay_is_gradient(self, i):
        # Where the weight decay is a part of the gradient it can be added at another point than the update's.
        optimizer = self.optimizers[i]
        decoupled = any(group.get("decoupled_weight_decay") for group in optimizer.param_groups)
        return type(optimizer) in (torch.optim.SGD, torch.optim.Adam) and not decoupled

    def reset(self, i):
        self.optimizers[i].state.clear()

    def push(self, i):
        self._copy(i, lambda row, state: row.copy_(state))

    def pull(self, i):
        self._copy(i, lambda row, state: state.copy_(row))

    def _copy(self, i, copy):
        if not self.mixed:
            return
        state, layout = self.optimizers[i].state, self.block.layout
        parameters = dict(self.block.modules[i].named_parameters())
        for number, name in enumerate(self.names):
            row = self.block.state(i, number)
            for entry in layout.parameters:
                value = state.get(parameters[entry.name], {}).get(name)
                if value is not None:
                    copy(entry.view(row), value)

    def state_dict(self, i):
        return self.optimizers[i].state_dict()

    def load_state_dict(self, i, state):
        self.optimizers[i].load_state_dict(state)


def _trained(module):
    return [p for p in module.parameters() if p.requires_grad]


def _keeps(optimizer, names):
    if isinstance(optimizer, torch.optim.SGD):
        return names == STATES["sgd"] and any(g["momentum"] for g in optimizer.param_groups)
    return names == STATES["adam"] and isinstance(optimizer, (torch.optim.Adam, torch.optim.AdamW, torch.optim.NAdam, torch.optim.RAdam))


def clip(gradients, bound):
    """Scale `gradients` (p,) so that their norm is at most `bound`, as torch.nn.utils.clip_grad_norm_ does."""
    norm = torch.linalg.vector_norm(gradients)
    gradients.mul_(torch.clamp(bound / (norm + 1e-6), max=1.0))


def learning_rate(training, n, steps_per_epoch, total_steps, base=None):
    """Return the function from step k to the learning rate.

    training: the job's table. base: in the place of training.lr. scale_lr multiplies by n, the number of vertices (linear scaling rule, Goyal et al.,
    "Accurate, Large Minibatch SGD", 2017); warm-up then climbs from the unscaled rate, else from 0. Milestones are
    epochs, cosine falls to 0 at the last step (Loshchilov & Hutter, SGDR, ICLR 2017, without restarts).
    """
    base = training.lr if base is None else base
    peak = base * n if training.scale_lr else base
    start = base if training.scale_lr else 0.0
    warmup = round(training.warmup_epochs * steps_per_epoch)
    milestones = [m * steps_per_epoch for m in training.milestones]

    def rate(k):
        if k < warmup:
            return start + (peak - start) * (k + 1) / warmup
        if training.decay == "milestones":
            return peak * training.gamma ** sum(k >= m for m in milestones)
        if training.decay == "cosine":
            return peak * 0.5 * (1.0 + math.cos(math.pi * (k - warmup) / max(1, total_steps - warmup)))
        return peak

    return rate
