"""How the samples of a vertex come to its rank: a shard that fits data.memory is read whole, a larger one is streamed."""

import numpy as np

from mpiconsensus.data.loader import Loader, held_count, split
from mpiconsensus.data.partition import hold_out
from mpiconsensus.data.stream import StreamLoader, plan, shard_bytes
from mpiconsensus.errors import UserError
from mpiconsensus.limits import memory

MIB = 1 << 20


def open_loader(job, source, vertex, reader, empty=np.empty):
    """Return (loader of the training samples of `vertex`, Shard of the held-out ones), checked.

    A Loader, or a StreamLoader where the shard is larger than data.memory. reader: the prefetch.Reader of the rank;
    empty(shape, dtype) makes the memory of a batch. Raise UserError where the file is not what it should be.
    """
    fraction, batch_size, seed = job.evaluation.validation_fraction, job.training.batch_size, job.training.seed
    layout = stream_layout(job, source, vertex)
    if layout is None:
        require_memory(source, vertex)
        shard, held = split(source.load(vertex), fraction, seed, vertex)
        return Loader(shard, batch_size, seed, vertex, empty), held
    rows = np.empty(0, np.int64)
    if fraction:
        rows = hold_out(source.sizes[vertex], held_count(source.sizes[vertex], fraction), seed, vertex)[1]
    try:
        file, digest = source.open(vertex)
    except OSError as error:
        raise UserError(f"the shard of vertex {vertex} cannot be opened ({error.strerror}: {error.filename}).") from None
    reader.owns(file)
    held = file.check(source, digest, rows)
    return StreamLoader(file, layout, batch_size, seed, vertex, rows, reader, empty), held


def require_memory(source, vertex):
    """Raise UserError where the shard of `vertex` alone is larger than the memory of this machine."""
    needed, there = shard_bytes(source.sizes[vertex], source.sample_bytes), memory()
    if needed > there:
        raise UserError(
            f"the shard of vertex {vertex} takes {needed / MIB:.3g} MiB, this machine has {there / MIB:.3g} MiB of memory; "
            f"let it be streamed, for example --set data.memory={max(1, int(there / MIB / 4))}."
        )


def stream_layout(job, source, vertex):
    """Return the stream.Layout of the shard of `vertex`, or None where it is read whole; UserError where there is no room."""
    bound = round(job.data.memory * MIB)
    if not bound or not source.streams(vertex, bound):
        return None
    count = source.sizes[vertex]
    held = held_count(count, job.evaluation.validation_fraction)
    return plan(count, source.sample_bytes, bound, job.training.batch_size, held, f"vertex {vertex}")


def describe(job, source):
    """Return in words what is resident and what is streamed, with the bytes of the largest."""
    layouts = [stream_layout(job, source, vertex) for vertex in range(len(source.sizes))]
    streamed = [layout for layout in layouts if layout]
    whole = [shard_bytes(count, source.sample_bytes) for count, layout in zip(source.sizes, layouts) if not layout]
    words = []
    if whole:
        words.append(f"{len(whole)} of {len(layouts)} vertices resident, at most {max(whole) / MIB:.3g} MiB each")
    if streamed:
        most = max(streamed, key=lambda layout: layout.resident)
        words.append(
            f"{len(streamed)} of {len(layouts)} vertices streamed within {most.resident / MIB:.3g} MiB each: {most.windows} windows a pass, "
            f"blocks of {most.rows} samples"
        )
    return "; ".join(words)


def resident_bytes(job, source):
    """Return the most bytes that the samples of a vertex take."""
    layouts = [stream_layout(job, source, vertex) for vertex in range(len(source.sizes))]
    return max(layout.resident if layout else shard_bytes(count, source.sample_bytes) for count, layout in zip(source.sizes, layouts))


def pinned(shape, dtype):
    """Return an uninitialised numpy array that a GPU copies from directly."""
    import torch

    kind = torch.from_numpy(np.empty(0, dtype)).dtype
    return torch.empty(shape, dtype=kind, pin_memory=True).numpy()
