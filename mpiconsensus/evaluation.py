"""Accuracy and loss of every vertex, of the mean model, and of the mean model with recalibrated statistics.

The accuracy of the network is the mean and the standard deviation over the vertices. The test set lies once on each
node; an evaluation within the run is thinned so that it costs about a tenth of the training.
"""

import copy
import math
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from mpiconsensus.models.preparing import norm_layers
from mpiconsensus.randomness import generator

# Batches of training data, over all vertices, that recalibrated statistics are made from.
RECALIBRATION_BATCHES = 100
# A forward pass costs a fixed part, worth as many samples as this over the number of parameters: measured on the
# models of this package, from logistic regression (thousands of samples) to ResNet-20 (about five).
OVERHEAD = 2e6
# A gradient costs as much as so many forward passes of an evaluation: the least met on these models, so that the
# budget holds for all of them (benchmarks/evaluation.py).
GRADIENT = 1.8
LEAST_SAMPLES = 150


class Plan(NamedTuple):
    """samples of the test set that an evaluation takes, every so many epochs."""

    samples: int
    every: int


def plan(evaluation, test_size, n, steps, batch_size, parameters):
    """Return the Plan of a run: as the job says, else at most a tenth of the training.

    The cost model counts forward passes of a sample, a gradient as GRADIENT of them, and the fixed cost of a pass; it does
    not look at a clock, so that two runs evaluate at the same epochs. steps: of an epoch; batch_size: of a vertex.
    """
    fixed = OVERHEAD / parameters
    budget = 0.1 * steps * GRADIENT * (batch_size + fixed)

    def cost(samples):
        return samples * (1 + 1 / n) + fixed * (1 + -(-samples // evaluation.batch_size))

    samples = evaluation.samples
    if not samples:
        affordable = int((budget - 2 * fixed) / (1 + 1 / n + fixed / evaluation.batch_size))
        samples = max(affordable, LEAST_SAMPLES)
    samples = min(samples, test_size)
    every = evaluation.every or max(1, int(np.ceil(cost(samples) / budget)))
    return Plan(samples, every)


class Scores(NamedTuple):
    """accuracy, loss: (m,) of the hosted vertices; mean_accuracy, mean_loss: of the mean model, alike on every rank."""

    accuracy: np.ndarray
    loss: np.ndarray
    mean_accuracy: float
    mean_loss: float


class Evaluator:
    """Evaluates the replicas of a Trainer.

    On the test set, or, where a validation fraction is held out, each vertex on its own held-out samples.
    """

    def __init__(self, trainer):
        self.trainer, self.world = trainer, trainer.world
        self.batch_size = trainer.job.evaluation.batch_size
        self.validating = trainer.job.evaluation.validation_fraction > 0
        self._test = None
        self._probe = copy.deepcopy(trainer.block.modules[0])
        for parameter in self._probe.parameters():
            parameter.grad = None
        # A fixed random subset: shards and test sets may be sorted by label.
        self._seed = trainer.job.training.seed

    @property
    def test(self):
        """The test set (x, y), one copy a node; read at the first use; collective."""
        if self._test is None:
            shard = self.world.agree(lambda: self.trainer.source.load_test() if self.world.node_rank == 0 else None)
            self._test = self.world.node_array(lambda: shard.x), self.world.node_array(lambda: shard.y)
        return self._test

    def running(self, samples):
        """Return the Scores of an evaluation within the run; collective."""
        if self.validating:
            hosted = zip(self.trainer.held_out, self.trainer.hosted, strict=True)
            held = [self._subset(shard.x, shard.y, samples, vertex) for shard, vertex in hosted]
            return self._scores(held, held)
        x, y = self._subset(*self.test, samples)
        return self._scores([(x, y)] * len(self.trainer.hosted), self._slices(x, y))

    def vertex(self, i, samples):
        """Return (accuracy, loss) of hosted vertex i alone, on what `running` takes; local, once `test` was read."""
        held = self.trainer.held_out[i] if self.validating else None
        x, y = self._subset(held.x, held.y, samples, self.trainer.hosted[i]) if held else self._subset(*self.test, samples)
        correct, losses = self._count(self.trainer.block.modules[i], x, y)
        return correct / len(y), sum(losses) / len(y)

    def mean_of(self, parameters, samples):
        """Return (accuracy, loss) of a model with `parameters`, (p,), on what `vertex` takes of this rank's vertices; local.

        Running statistics of batch normalisation are the averages over this rank's vertices.
        """
        trainer, probe = self.trainer, self._probe
        with torch.no_grad():
            named = dict(probe.named_parameters())
            for entry in trainer.block.layout.parameters:
                named[entry.name].copy_(entry.view(parameters))
            for buffer, *of_vertices in zip(_floating(probe), *map(_floating, trainer.block.modules), strict=True):
                buffer.copy_(sum(of_vertices) / len(of_vertices))
        parts = [self._subset(*self.test, samples)]
        if self.validating:
            parts = [self._subset(held.x, held.y, samples, vertex) for held, vertex in zip(trainer.held_out, trainer.hosted, strict=True)]
        found = [self._count(probe, x, y) for x, y in parts]
        total = sum(len(y) for _, y in parts)
        return sum(correct for correct, _ in found) / total, math.fsum(loss for _, losses in found for loss in losses) / total

    def _subset(self, x, y, samples, vertex=0):
        """Return `samples` of the samples, the same ones at every call."""
        if samples >= len(y):
            return x, y
        rows = np.sort(generator(self._seed, "evaluation", vertex).permutation(len(y))[:samples])
        return x[rows], y[rows]

    def closing(self):
        """Return the Scores on the whole test set and the accuracy of the recalibrated mean model (NaN without batch norm)."""
        x, y = self.test
        scores = self._scores([(x, y)] * len(self.trainer.hosted), self._slices(x, y))
        if not norm_layers(self._probe):
            return scores, float("nan")
        self.recalibrate()
        return scores, self._mean_scores(self._slices(x, y))[0]

    def mean_module(self):
        """Return the mean model: averages of the parameters and of the floating-point buffers; collective."""
        trainer = self.trainer
        mean = trainer.mean_row()
        with torch.no_grad():
            named = {**dict(self._probe.named_parameters()), **dict(self._probe.named_buffers())}
            for entry in trainer.block.layout.parameters + trainer.block.layout.buffers:
                named[entry.name].copy_(entry.view(mean))
            for name, counter in trainer.block.modules[0].named_buffers():
                if not counter.is_floating_point():
                    named[name].copy_(counter)  # a recalibration has counted batches of its own
            if not trainer.block.layout.buffers:
                self._average_buffers([_floating(module) for module in trainer.block.modules])
        return self._probe

    def recalibrate(self):
        """Estimate the mean model's running statistics anew, from training batches of every vertex; collective."""
        trainer, probe = self.trainer, self.mean_module()
        batches = -(-RECALIBRATION_BATCHES // trainer.placement.n)
        layers = norm_layers(probe)
        kept, estimates = [layer.momentum for layer in layers], []
        for loader in trainer.loaders:
            probe.eval()
            for layer in layers:
                layer.reset_running_stats()
                layer.momentum = None  # cumulative averages
                layer.train()
            with torch.no_grad():
                for count in range(min(batches, loader.batches_per_pass)):
                    probe(trainer.augment.evaluate(loader.batch(count)[0]))
            estimates.append([b.clone() for b in _floating(probe)])
        for layer, momentum in zip(layers, kept):
            layer.momentum = momentum
        self._average_buffers(estimates)
        return probe

    def _average_buffers(self, of_vertices):
        """Set the probe's floating-point buffers to the averages of the hosted vertices' lists of them; collective."""
        buffers = _floating(self._probe)
        if not buffers:
            return
        flat = [torch.cat([b.reshape(-1) for b in of_vertex]) for of_vertex in of_vertices]
        mean = self.trainer.reduction.mean(flat)
        at = 0
        for buffer in buffers:
            buffer.copy_(mean[at : at + buffer.numel()].view_as(buffer))
            at += buffer.numel()

    def _slices(self, x, y):
        """Return this rank's part of the samples, for what is evaluated once for the network: whole batches, the same on any ranks."""
        batches = -(-len(y) // self.batch_size)
        first, last = (batches * r // self.world.size * self.batch_size for r in (self.world.rank, self.world.rank + 1))
        return [(x[first:last], y[first:last])]

    def _scores(self, of_vertices, of_mean):
        trainer = self.trainer
        accuracy, loss = np.empty(len(trainer.hosted)), np.empty(len(trainer.hosted))
        for i, (x, y) in enumerate(of_vertices):
            correct, losses = self._count(trainer.block.modules[i], x, y)
            accuracy[i], loss[i] = correct / len(y), sum(losses) / len(y)
        self.mean_module()
        return Scores(accuracy, loss, *self._mean_scores(of_mean))

    def _mean_scores(self, parts):
        found = [(*self._count(self._probe, x, y), len(y)) for x, y in parts]
        correct, losses, samples = zip(*(part for of_rank in self.world.allgather(found) for part in of_rank), strict=True)
        # rounded once, whatever the order: the figure does not depend on the ranks
        return sum(correct) / sum(samples), math.fsum(loss for part in losses for loss in part) / sum(samples)

    @torch.no_grad()
    def _count(self, module, x, y):
        """Return (correct predictions, [summed loss of each batch]) of `module` on the samples; its mode is put back."""
        training = module.training
        module.eval()
        correct, losses = 0.0, []
        with self.trainer.autocast():
            for at in range(0, len(y), self.batch_size):
                logits = module(self.trainer.augment.evaluate(np.ascontiguousarray(x[at : at + self.batch_size])))
                labels = torch.from_numpy(y[at : at + self.batch_size]).to(logits.device)
                correct += float((logits.argmax(1) == labels).sum())
                losses.append(float(F.cross_entropy(logits.float(), labels, reduction="sum")))
        module.train(training)
        return correct, losses


def _floating(module):
    return [b for b in module.buffers() if b.is_floating_point()]
