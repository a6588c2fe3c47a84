"""One step of an algorithm with compressed messages, on the rows of a rank.

The arithmetic is that of numpy on vectors without padding, on the host: rows of a GPU come there. What vertices receive is
summed in their order, so that every placement gives the same bits.

m hosted vertices, n vertices, d trained parameters.
"""

import time

import numpy as np
import torch

from mpiconsensus.compress.base import FLOAT_BITS
from mpiconsensus.compress.codec import Codec
from mpiconsensus.compressing.importance import Weights, adaptive
from mpiconsensus.compressing.traffic import ring_bytes, way
from mpiconsensus.errors import TrainingError, UserError
from mpiconsensus.randomness import generator
from mpiconsensus.stepper import Stepper
from mpiconsensus.transport.packets import Packets

SEED_BITS = 64  # of a support that all draw alike, a message


class Compressing(Stepper):
    """A Stepper whose messages are compressed. options: the table [compression]; world, seed: of the run.

    trial, smoothness: see importance.Weights; smoothness() is asked only where it is needed.

    bits: (m,) of the messages since the last `take`, by formula, each counted once whatever its receivers. residual: (m,)
    2-norm of what those messages left out.
    """

    def __init__(self, algorithm, order, exchange, reduction, block, placement, *, world, options, seed, trial, smoothness, **words):
        if words.get("momentum_policy", "local") == "mixed" or block.layout.buffers or words.get("on_mixed"):
            raise UserError(
                f"algorithm.name = {algorithm.name} sends compressed parameters or gradients alone; "
                "take training.momentum_policy = local and model.buffers = local."
            )
        # A codec a vertex: some keep a state.
        self.codecs = [Codec(options.operator, block.layout, options.scope) for _ in range(block.m)]
        self.codec = self.codecs[0]
        self.dtype, self.weights = self.codec.dtype, None
        if adaptive(self.codec):
            self.weights = Weights(self.codecs, options, trial, None if options.importance_eta else smoothness()[0])
        algorithm.open(self.codec, placement.hosted, self.dtype)
        super().__init__(algorithm, order, exchange, reduction, block, placement, **words)
        self.world, self.seed = world, seed
        self.packets = Packets(world, placement, getattr(algorithm, "w", None))
        self.way = way(self.codec, placement.n, algorithm.draws_alike)

    def take(self):
        """Return and clear (wait_s, mix_s, hidden_s, bytes_sent, bits, residual)."""
        taken = (*super().take()[:4], getattr(self, "bits", None), getattr(self, "residual", None))
        self.bits, self.residual = np.zeros(self.block.m), np.full(self.block.m, np.nan)
        return taken

    def random(self, vertex):
        """Return the Generator of a vertex's message at this step; of supports that all draw alike, that of all."""
        if not self.codec.draws:
            return None
        alike = self.codec.shared and self.algorithm.draws_alike
        return generator(self.seed, "support", 0, self.k) if alike else generator(self.seed, "compress", vertex, self.k)

    def _vector(self, row):
        return self.codec.gather(row if row.device.type == "cpu" else row.cpu())

    def _write(self, vector, row):
        if row.device.type == "cpu":
            self.codec.scatter(vector, row)
        else:
            host = torch.zeros(row.shape, dtype=row.dtype)
            self.codec.scatter(vector, host)
            row.copy_(host)

    def _encode(self, i, vector, targets):
        """Return the message of hosted vertex i, and count it; what it says is added to `targets`, what it leaves out stays in `vector`."""
        vertex, start = self.placement.hosted[i], time.perf_counter()
        self._check(vertex, vector)
        message = self.codecs[i].encode(vector, self.random(vertex))
        self.bits[i] += self.codec.bits + SEED_BITS * (self.codec.shared and self.codec.draws)
        self._add(message, vertex, [*targets, (vector, -1.0)])
        self.residual[i] = np.hypot(0.0 if np.isnan(self.residual[i]) else self.residual[i], np.linalg.norm(vector))
        self.mix_s += time.perf_counter() - start
        return message

    def _check(self, vertex, vector):
        """Raise TrainingError unless all that a vertex is to compress is finite: compressors would hide it, or fail."""
        with np.errstate(over="ignore", invalid="ignore"):
            finite = np.isfinite(vector.sum())
        if not finite:
            raise TrainingError(
                f"what vertex {vertex} has to send at step {self.k} is not finite; the run ends here. "
                "Lower training.lr or compression.multiple, lengthen training.warmup_epochs or set training.clip."
            )

    def _add(self, message, vertex, targets):
        """Add what the message of a vertex says, times the factor of the algorithm, to `targets`, [(array, factor)]."""
        self.codec.add_to(message, [(target, factor * self.algorithm.factor) for target, factor in targets], self.random(vertex))

    def wire_bytes(self):
        return super().wire_bytes() + self.packets.wire_bytes

    def state_of(self, i):
        """Return the state of hosted vertex i; what is one for the network is that of vertex 0."""
        algorithm = self.algorithm
        common = {name: getattr(algorithm, name) for name in algorithm.common} if self.placement.hosted[i] == 0 else {}
        state = {"own": algorithm.state_dict(i), "common": common, "codec": self.codecs[i].state_dict()}
        return {part: {name: torch.from_numpy(np.array(value)) for name, value in values.items()} for part, values in state.items()}

    def load_state_of(self, i, state):
        """Continue from a state of hosted vertex i."""
        arrays = {part: {name: value.numpy() for name, value in values.items()} for part, values in state.items()}
        self.algorithm.load_state_dict(i, arrays["own"])
        self.codecs[i].load_state_dict(arrays["codec"])
        for name, value in arrays["common"].items():
            getattr(self.algorithm, name)[:] = value

    def load_state_dict(self, state):
        super().load_state_dict(state)
        first = int(self.placement.owner[0])
        for name in self.algorithm.common:
            array = getattr(self.algorithm, name)
            array[:] = self.world.bcast(array if self.world.rank == first else None, first)

    def drain(self):
        self.packets.close()


class AmongAllStepper(Compressing):
    """Replaces each gradient by the direction that all replicas go along. The rows of gradients are its scratch."""

    def mean_gradients(self, gradients, rate):
        start, mixed, algorithm = time.perf_counter(), self.mix_s, self.algorithm
        vectors = [self._vector(row) for row in gradients]
        if algorithm.dense(self.k):
            direction = self._uncompressed(vectors)
        else:
            messages = [self._message(i, vector, rate) for i, vector in enumerate(vectors)]
            direction = self._collected(messages, vectors)
            if not algorithm.collects:
                direction = algorithm.received(direction, rate)
        for row in gradients:
            self._write(direction, row)
        self.wait_s += time.perf_counter() - start - (self.mix_s - mixed)

    def _uncompressed(self, vectors):
        """Average the gradients as they are and return the direction."""
        algorithm = self.algorithm
        for i, vector in enumerate(vectors):
            algorithm.uncompressed(i, vector)
        self.bits += FLOAT_BITS * self.codec.count
        self.bytes_sent += self._ring_bytes()
        mean = self._dense_mean(vectors)
        if algorithm.collects:
            getattr(algorithm, algorithm.collects)[:] = mean
        return mean

    def _message(self, i, vector, rate):
        """Return the message of hosted vertex i, whose gradient is `vector`; what it left out, or in a dense way said, stays there."""
        algorithm = self.algorithm
        if self.weights:
            self.weights.learn(i, vector, rate)
        algorithm.outgoing(i, vector, rate)
        message = self._encode(i, vector, algorithm.learns(i))
        algorithm.left(i, vector)
        return message

    def uncompressed(self, steps, sent):
        return np.full(self.block.m, steps * self._ring_bytes())

    def _collected(self, messages, vectors):
        """Return the mean of what all messages say, or the array of the algorithm that it was added to; vectors: scratch, a message."""
        algorithm, share = self.algorithm, 1.0 / self.placement.n
        target = getattr(algorithm, algorithm.collects) if algorithm.collects else np.zeros(self.codec.count, self.dtype)
        if self.way == "gather":
            self.bytes_sent += (self.placement.n - 1) * np.array([len(message) for message in messages])
            for vertex, message in enumerate(self.packets.to_all(messages)):
                self._add(message, vertex, [(target, share)])
            return target
        if self.way == "dense":
            for vertex, vector, message in zip(self.placement.hosted, vectors, messages, strict=True):
                vector[:] = 0
                self._add(message, vertex, [(vector, 1.0)])
            self.bytes_sent += self._ring_bytes()
            target += self._dense_mean(vectors)
            return target
        # All have the same support: their numbers are averaged, and added once.
        payloads = [torch.from_numpy(np.array(self.codec.payload(message))) for message in messages]
        mean = self.reduction.mean(payloads).numpy()
        self.bytes_sent += ring_bytes(mean.nbytes, self.placement.n)
        self._add(mean.view(np.uint8), 0, [(target, 1.0)])
        return target

    def _dense_mean(self, vectors):
        return self.reduction.mean([torch.from_numpy(np.ascontiguousarray(v)) for v in vectors]).numpy()

    def _ring_bytes(self):
        return ring_bytes(self.codec.count * self.dtype.itemsize, self.placement.n)


class OnGraphStepper(Compressing):
    """Gossip of compressed differences behind the optimizer's step."""

    def __init__(self, algorithm, *words, **keywords):
        super().__init__(algorithm, *words, **keywords)
        if self.weights:
            raise UserError(
                f"compression.operator = {self.codec.spec} learns its weights from gradients, which {algorithm.name} does not send; "
                "take algorithm.name = ef21, or another operator."
            )
        self._listeners = np.array([sum(j != vertex for j in algorithm.w[vertex]) for vertex in self.placement.hosted])

    def uncompressed(self, steps, sent):
        return steps * len(self.algorithm.parts) * self._listeners * self.codec.count * self.dtype.itemsize

    def after(self, update):
        algorithm, placement = self.algorithm, self.placement
        if hasattr(algorithm, "ahead"):
            self._ahead()
        for i, vertex in enumerate(placement.hosted):
            if algorithm.trains(self.k, vertex):
                update(i, True)
        start, before = time.perf_counter(), self.mix_s
        vectors = [self._vector(self.block.parameters(i)) for i in range(self.block.m)]
        for part in range(len(algorithm.parts)):
            self._part(part, vectors)
        for i, vector in enumerate(vectors):
            algorithm.behind(i, vector)
            self._write(vector, self.block.parameters(i))
        self.wait_s += time.perf_counter() - start - (self.mix_s - before)
        self.k += 1

    def _ahead(self):
        for i in range(self.block.m):
            x, gradient = self._vector(self.block.parameters(i)).copy(), self._vector(self.block.gradients[i]).copy()
            self.algorithm.ahead(i, x, gradient)
            self._write(x, self.block.parameters(i))
            self._write(gradient, self.block.gradients[i])

    def _part(self, part, vectors):
        algorithm, hosted = self.algorithm, self.placement.hosted
        messages = []
        for i, vector in enumerate(vectors):
            message = self._encode(i, algorithm.vector(i, part, vector), algorithm.learns(i, part))
            messages.append(message)
            self.bytes_sent[i] += self._listeners[i] * len(message)
        found = self.packets.to_neighbours(messages)
        for j in sorted(found):
            rows = [(i, algorithm.w[vertex][j]) for i, vertex in enumerate(hosted) if j in algorithm.w[vertex]]
            self._add(found[j], j, [(algorithm.hears(i, part), weight) for i, weight in rows])
