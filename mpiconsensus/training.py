"""The replicas of a rank and their training: gradients, the optimizer, and the rounds of the schedule.

Array legend: n vertices, m hosted vertices, d length of a row, B batch, k step.
"""

import contextlib
import copy
import math
import time
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F

from mpiconsensus import algorithms, compressing, models, optim
from mpiconsensus.arithmetic import DTYPES, default_generator, memory_format, pick_device, set_precision
from mpiconsensus.block import Block, Layout, row_length
from mpiconsensus.concurrency import open_concurrency
from mpiconsensus.data.augment import Augment
from mpiconsensus.data.loading import open_loader, pinned
from mpiconsensus.data.prefetch import Reader
from mpiconsensus.data.shuffle import open_shuffling
from mpiconsensus.errors import TrainingError, UserError
from mpiconsensus.hetero import Pace
from mpiconsensus.models.preparing import norm_layers, start_at
from mpiconsensus.placement import place
from mpiconsensus.randomness import torch_seed
from mpiconsensus.regulariser import add_nonconvex
from mpiconsensus.stepper import Stepper
from mpiconsensus.transport import Reduction, open_exchange
from mpiconsensus.transport.links import Links
from mpiconsensus.transport.samples import SampleExchange


class Trainer:
    """m hosted replicas of one model. `step()` is one step of the whole network; collective.

    job, world, wiring, source: see config, runtime, wiring, data.source. placement: as placement.map says where it is
    not given. k: steps taken. gradient_norm: 2-norm of the mean gradient of the last step, where the job asks for it and all
    vertices took one; else NaN. last_batch: (x, y) of each hosted vertex.
    """

    def __init__(self, job, world, wiring, source, placement=None):
        self.job, self.world, self.wiring, self.source = job, world, wiring, source
        self.placement = placement or place(job.placement.map, world, wiring)
        self.hosted = self.placement.hosted
        self.device = pick_device(job.training.device, world)
        self._generator = default_generator(self.device)
        self.dtype = DTYPES[job.training.precision]
        self.pace = Pace(job.hetero, wiring.n, job.training.seed)
        set_precision(job.training.precision)
        self.layout_of_images = memory_format(job, source)
        self.gradient_norm = math.nan
        self._load()
        self._build()
        peak = compressing.theory(self, job.compression) if self.algorithm.compressed and job.compression.multiple else job.training.lr
        self.rate = optim.learning_rate(job.training, wiring.n, self.steps_per_epoch, self.total_steps, peak)

    def _load(self):
        job, seed = self.job, self.job.training.seed
        fraction = job.evaluation.validation_fraction
        shuffling = self.world.agree(open_shuffling, job, self.source, self.wiring)

        self.reader = Reader()
        empty = pinned if self.device.type == "cuda" else np.empty

        def load():
            loaders, held_out = [], []
            for vertex in self.hosted:
                loader, held = open_loader(job, self.source, vertex, self.reader, empty)
                if fraction and not len(held.y):
                    raise UserError(
                        f"evaluation.validation_fraction = {fraction:g}: vertex {vertex} has one sample, none can be held out; "
                        "give it more data (hetero.powers, fewer vertices), or set the fraction to 0."
                    )
                loaders.append(loader)
                held_out.append(held)
            return loaders, held_out

        self.loaders, self.held_out = self.world.agree(load)
        self.batches_drawn = [0] * len(self.hosted)
        self.last_batch = [None] * len(self.hosted)  # batches
        self._count_steps()
        self.samples = SampleExchange(self.world, self.placement, self.loaders, shuffling, self.steps_per_epoch, self.total_steps)
        self.augment = Augment(
            self.source.augment, self.source.mean, self.source.std, scale=self.source.scale, dtype=self.dtype, seed=seed,
            memory_format=self.layout_of_images, device=self.device,
        )  # fmt: skip

    def _count_steps(self):
        """Agree on the steps of an epoch once: the vertex with the most batches, its training period counted, sees its shard once."""
        job = self.job
        periods = algorithms.training_periods(job, self.wiring.n)
        mine = [loader.batches_per_pass * periods[v] for loader, v in zip(self.loaders, self.hosted)]
        self.steps_per_epoch = max(max(counts) for counts in self.world.allgather(mine))
        self.total_steps = self.steps_per_epoch * job.training.epochs
        if job.training.max_steps:
            self.total_steps = min(self.total_steps, job.training.max_steps)

    def _build(self):
        job, training = self.job, self.job.training
        setting = algorithms.Setting.of(self.wiring, job.algorithm, job.hetero.powers, training.seed, self.total_steps, job.compression)
        self.algorithm = algorithms.make(setting)
        if self.algorithm.compressed:
            self.world.agree(compressing.check, self)
        modules = self.world.agree(self._modules)
        self.stochastic = models.is_stochastic(modules[0])
        mixed_state = training.momentum_policy == "mixed"
        layout = Layout(modules[0], buffers=job.model.buffers == "mixed")
        flat = training.arithmetic == "flat"
        states = len(optim.state_names(training.optimizer, training.momentum)) if mixed_state else 0
        d = row_length(layout, states)
        self._open_block(layout, modules, d)
        self.reduction = Reduction(self.world, self.placement, job.transport.reduction)
        make = optim.FlatOptimizer if flat else optim.TorchOptimizers.make
        self.optimizers = make(
            self.block, training.optimizer, momentum=training.momentum, weight_decay=training.weight_decay, mixed=mixed_state
        )
        self._make_steps()
        self.concurrency = open_concurrency(self)

    def _open_block(self, layout, modules, d):
        """Open the transport of rows of d elements and make the Block in its memory."""
        self.exchange = self.world.agree(
            open_exchange, self.job.transport.name, self.world, self.placement, d, layout.dtype, self.device, self.algorithm.depth
        )  # fmt: skip
        if self.pace.has_links:
            self.exchange.links = Links(self.pace.delay, self.placement, d * layout.dtype.itemsize)
        self.block = Block(layout, modules, self.exchange.storage())
        self.exchange.bind(self.block)

    def _make_steps(self):
        job = self.job
        words = self.algorithm, job.algorithm.order, self.exchange, self.reduction, self.block, self.placement
        ways = dict(
            optimizers=self.optimizers, momentum_policy=job.training.momentum_policy,
            on_mixed=self._restart_buffers if job.model.buffers == "reset" else None,
        )  # fmt: skip
        if self.algorithm.compressed:
            self.stepper = compressing.open_stepper(
                *words, **ways, world=self.world, options=job.compression, seed=job.training.seed, trial=partial(compressing.trial_gradient, self),
                smoothness=lambda: compressing.smoothness(self, job.compression),
            )  # fmt: skip
        else:
            self.stepper = Stepper(*words, **ways)

    def _modules(self):
        job = self.job
        name = model_name(job, self.source)

        def build(vertex):
            torch.manual_seed(torch_seed(job.training.seed, "init", vertex))
            module = models.build(name, self.source.shape, self.source.classes, norm=job.model.norm, hidden=tuple(job.model.hidden))
            module = module.to(device=self.device, dtype=self.dtype, memory_format=self.layout_of_images)
            if job.training.start:
                start_at(module, job.training.start)
            if job.model.buffers == "reset":
                for layer in norm_layers(module):
                    layer.momentum = None  # cumulative averages since the last restart
            return module

        if job.training.init == "independent":
            return [build(vertex) for vertex in self.hosted]
        first = build(0)
        return [first] + [copy.deepcopy(first) for _ in self.hosted[1:]]

    def _restart_buffers(self, i):
        for layer in norm_layers(self.block.modules[i]):
            layer.reset_running_stats()

    @property
    def k(self):
        return self.stepper.k

    @property
    def transport(self):
        """What a reader is told moves the rows."""
        return self.exchange.title

    def mean_row(self):
        """Return the average of all vertices' rows, (d,); overwritten by the next call; collective."""
        return self.reduction.mean([self.block.x(i) for i in range(self.block.m)])

    def step(self):
        """Take one step; return (losses, io_s, compute_s), each (m,) float64; a vertex that does not train has loss NaN."""
        m = len(self.hosted)
        losses, io_s, compute_s = np.full(m, np.nan), np.zeros(m), np.zeros(m)
        k, rate = self.k, self.rate(self.k)
        start = time.perf_counter()
        self.samples.step(k)
        io_s += (time.perf_counter() - start) / m
        self.stepper.before()
        trained = [i for i, vertex in enumerate(self.hosted) if self.algorithm.trains(k, vertex)]
        start = time.perf_counter()
        for i, found in zip(trained, self.concurrency.gradients(trained, k), strict=True):
            losses[i], compute_s[i] = found[0], found[2]
            io_s[i] += found[1]
        if self.pace.stretches:
            self._stretch(trained, k, start, compute_s)
        if self.job.log.gradient_norm:
            self.gradient_norm = self._mean_gradient_norm(k)
        if self.algorithm.averages_gradients:
            self.stepper.mean_gradients(self.block.gradients, rate)
        self.clip(trained)
        self.stepper.after(lambda i, decay: self._update(i, rate, decay, compute_s))
        return losses, io_s, compute_s

    def _stretch(self, trained, k, start, compute_s):
        """Sleep until the slowest of the gradients begun at `start` would be through, each on a machine of its own; count it as computing."""
        for i in trained:
            compute_s[i] = self.pace.seconds(self.hosted[i], k, max(compute_s[i], self.job.hetero.least_step_s))
        time.sleep(max(0.0, start + max(compute_s[trained], default=0.0) - time.perf_counter()))

    def draw(self, i):
        """Return the next batch (x, y) of hosted vertex i."""
        loader = self.loaders[i]
        images, labels = loader.batch(self.batches_drawn[i])
        x = self.augment.train(images, self.hosted[i], self.batches_drawn[i], loader)
        y = torch.from_numpy(labels).to(self.device)
        self.batches_drawn[i] += 1
        self.last_batch[i] = x, y
        return x, y

    def backward(self, i, x, y, k):
        """Write the gradient of hosted vertex i at step k into its row and return its loss, a scalar tensor."""
        if self.stochastic:
            self._generator.manual_seed(torch_seed(self.job.training.seed, "dropout", self.hosted[i], k))
        self.block.gradient(i).zero_()
        try:
            with self.autocast():
                loss = F.cross_entropy(self.block.modules[i](x), y)
            loss.backward()
        except (RuntimeError, ValueError) as error:
            raise self.model_failed(error, [i], k, x.shape) from error
        return self.regularise(i, loss.detach())

    def regularise(self, i, loss):
        """Add the gradient of training.nonconvex to that of hosted vertex i; return the loss, a tensor, with its value."""
        c = self.job.training.nonconvex
        return loss + add_nonconvex(self.block.parameters(i), c, self.block.gradients[i]) if c else loss

    def model_failed(self, error, indices, k, shape):
        """Return the TrainingError of hosted vertices whose forward or backward pass raised `error` on a batch of `shape`."""
        together = len(indices) > 1
        what = f"vertices {', '.join(str(self.hosted[i]) for i in indices)} together" if together else f"vertex {self.hosted[indices[0]]}"
        hint = " training.concurrency = serial needs less memory." if together and "memory" in str(error) else ""
        if shape[1 if together else 0] == 1:
            hint = " Batch normalisation needs batches of two or more, or model.norm = group."
        return TrainingError(
            f"the model failed at {what}, step {k}, on a batch of shape {tuple(shape)}: {type(error).__name__}: "
            f"{str(error).splitlines()[0]}{hint}"
        )

    def check_loss(self, i, value, k):
        """Raise TrainingError unless the loss of hosted vertex i at step k is finite."""
        if not math.isfinite(value):
            raise TrainingError(
                f"the loss at vertex {self.hosted[i]} is {value} at step {k} (epoch {k // self.steps_per_epoch + 1}); "
                "the run ends here. Lower training.lr, lengthen training.warmup_epochs or set training.clip."
            )

    def _mean_gradient_norm(self, k):
        """Return the 2-norm of the mean over vertices of the gradients of step k, NaN where a vertex rests; collective."""
        if not all(self.algorithm.trains(k, vertex) for vertex in range(self.placement.n)):
            return math.nan
        return float(torch.linalg.vector_norm(self.reduction.mean(list(self.block.gradients)), dtype=torch.float64))

    def clip(self, indices):
        """Clip the gradients of hosted vertices, where the job asks for it."""
        if self.job.training.clip:
            for i in indices:
                optim.clip(self.block.gradients[i], self.job.training.clip)

    def _update(self, i, rate, decay, compute_s):
        start = time.perf_counter()
        self.optimizers.step(i, rate * self.algorithm.pace(self.k, self.hosted[i]), decay)
        compute_s[i] += time.perf_counter() - start

    def autocast(self):
        """Return the context of a forward pass and its loss."""
        if self.job.training.precision == "bf16":
            return torch.autocast(self.device.type, torch.bfloat16)
        return contextlib.nullcontext()

    def state_dict(self):
        """Return everything that a synchronous run continues from, keyed by hosted vertex."""
        return {**self.stepper.state_dict(), "vertices": {vertex: self._state(i) for i, vertex in enumerate(self.hosted)}}

    def _state(self, i):
        return {
            "row": self.block.x(i).clone(),
            "buffers": {name: b.clone() for name, b in self.block.modules[i].named_buffers()},
            "optimizer": self.optimizers.state_dict(i),
            "batches_drawn": self.batches_drawn[i],
            "compression": self.stepper.state_of(i) if self.algorithm.compressed else None,
            "sample_bytes": [int(self.samples.sent[i]), int(self.samples.wire[i])],
        }

    def load_state_dict(self, state):
        """Continue from a state_dict, on any placement that hosts the vertices it is given."""
        for i, vertex in enumerate(self.hosted):
            self._load_state(i, state["vertices"][vertex])
        self.stepper.load_state_dict(state)

    def _load_state(self, i, state):
        self.block.x(i).copy_(state["row"])
        for name, buffer in self.block.modules[i].named_buffers():
            buffer.copy_(state["buffers"][name])
        self.optimizers.load_state_dict(i, state["optimizer"])
        self.batches_drawn[i] = state["batches_drawn"]
        if self.algorithm.compressed:
            self.stepper.load_state_of(i, state["compression"])
        self.samples.sent[i], self.samples.wire[i] = state.get("sample_bytes", (0, 0))  # older checkpoints have none

    def close(self):
        """Free the transport and the files; collective. The modules keep their values."""
        self.reader.close()
        self.stepper.drain()
        self.samples.close()
        self.block.release()
        self.exchange.close()


def model_name(job, source):
    """Return the model's name, `auto` resolved by the data."""
    return models.default_name(source.name, source.shape) if job.model.name == "auto" else job.model.name
