"""Shuffling of samples between vertices: what a job may ask for, and the plan that it gets. Nothing here communicates."""

import math

from mpiconsensus.config import BY_NAME
from mpiconsensus.data.loader import held_count
from mpiconsensus.data.partition import parse
from mpiconsensus.data.shuffle.plan import MODES, Shuffling
from mpiconsensus.errors import UserError

__all__ = ["MODES", "Shuffling", "open_shuffling"]


def open_shuffling(job, source, wiring):
    """Return the Shuffling of a job, or None where every vertex keeps its samples; raise UserError for what cannot be; local.

    source: has sizes and partition; wiring: n, edges and directed.
    """
    data, mode = job.data, job.data.shuffle
    fraction = data.exchange_fraction
    alike = {"local": 0.0, "global": 1.0}.get(mode)
    if alike is not None and fraction not in (BY_NAME["data.exchange_fraction"].default, alike):
        raise UserError(
            f"data.exchange_fraction = {fraction:g} has no meaning with data.shuffle = {mode}; "
            "leave it out, or take data.shuffle = partial or neighbors."
        )
    if mode == "local" or (mode != "global" and fraction == 0) or wiring.n == 1:
        return None
    _require_consent(data, source.partition)
    if data.memory and any(source.streams(vertex, round(data.memory * 2**20)) for vertex in range(wiring.n)):
        raise UserError(
            f"data.shuffle = {mode} changes samples in memory, and data.memory = {data.memory:g} MiB has shards streamed from their files; "
            "raise data.memory, or take data.shuffle = local."
        )
    if mode == "neighbors" and wiring.directed:
        raise UserError(
            f"data.shuffle = neighbors changes samples over edges, and the arcs of topology.graph = {wiring.spec} go one way; take partial."
        )
    held_out = job.evaluation.validation_fraction
    sizes = [size - held_count(size, held_out) for size in source.sizes]
    made = Shuffling(mode, sizes, fraction, job.training.seed, wiring.edges)
    if not made.offered.any():
        raise UserError(
            f"data.exchange_fraction = {fraction:g} of at most {max(sizes)} samples a vertex is less than one; "
            f"take {math.ceil(1e6 / max(sizes)) / 1e6:g} or more, or data.shuffle = local."
        )
    return made


def _require_consent(data, spec):
    # Of all partitions this one alone deals samples out at random: no vertex owns any.
    if data.mix_owners or parse(spec)[0] == "iid":
        return
    raise UserError(
        f"data.shuffle = {data.shuffle} hands samples to other vertices, and partition {spec!r} keeps them apart; set "
        "data.mix_owners = true where they may leave their owners, else data.shuffle = local."
    )
