"""Rounds x_i <- sum_j w_ij x_j on this machine: each transport against a copy of the same bytes and MPI's Neighbor_allgather.

n vertices, m hosted vertices, d elements of a row.
"""

import math
import os
from typing import NamedTuple

import numpy as np
import torch

from mpiconsensus import config, mixing
from mpiconsensus.bench import timing
from mpiconsensus.bench.allgather import NeighborAllgather
from mpiconsensus.bench.floor import Copy, Switch, least_switches, rows_moved, sets_beyond
from mpiconsensus.bench.setting import last_level
from mpiconsensus.block import ROW_ELEMENTS, Rows
from mpiconsensus.errors import TrainingError, UserError
from mpiconsensus.limits import cgroup_memory
from mpiconsensus.randomness import generator
from mpiconsensus.schedule import full
from mpiconsensus.transport import open_exchange

DTYPES = {"float32": torch.float32, "float64": torch.float64}
TRANSPORTS = config.EXCHANGES
CHECKED = 3  # rounds that are compared with the matrix: both buffers are read, and written again
TOLD = 0.75
PERIOD = 4093  # a prime: a checked row repeats after so many elements, so that no two pieces of it are alike


class Network(NamedTuple):
    """Who takes part: the World, the Wiring, the Placement, and the Round of all rows of W."""

    world: object
    wiring: object
    placement: object
    round: object

    @classmethod
    def of(cls, world, wiring, placement):
        return cls(world, wiring, placement, full(wiring.rows))


def row_elements(parameters):
    """Return d, the elements of the row that so many parameters take."""
    return -(-parameters // ROW_ELEMENTS) * ROW_ELEMENTS


def check(network, parameters, names, dtype):
    """Raise UserError, ahead of any measurement, for a graph without edges, too little memory, or a transport that cannot work."""
    world, placement = network.world, network.placement
    d = row_elements(max(parameters))

    def local():
        if network.wiring.n < 2:
            raise UserError("a round needs two vertices or more; start ranks (mpirun -n 4), or give --vertices 4.")
        remote = {j for v in placement.hosted for j in network.wiring.rows[v][0].tolist()} - set(placement.hosted)
        m = len(placement.hosted)
        # Two rows a vertex for the copies and for each transport, the table of Neighbor_allgather twice, what is received.
        rows = m * (2 + 2 * len(names or TRANSPORTS)) + 2 * (m + len(remote)) + len(remote)
        need = rows * d * dtype.itemsize * world.node_size
        memory = min([os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *cgroup_memory()])
        if need > memory:
            raise UserError(
                f"--parameters {max(parameters)} on {network.wiring.spec} needs {need / 2**30:.1f} GiB on a node, which has {memory / 2**30:.1f}; "
                "give fewer parameters, a smaller graph, or one --transport at a time."
            )

    world.agree(local)
    for name in names:
        Transport(network, name, d, dtype).close()


class Transport:
    """One transport with rows of its own, as Network.average has them. UserError where it cannot work here."""

    def __init__(self, network, name, d, dtype):
        self.network = network
        self.exchange = network.world.agree(open_exchange, name, network.world, network.placement, d, dtype)
        self.rows = Rows(self.exchange.storage())
        self.exchange.bind(self.rows)
        self.name, self.x = self.exchange.name, self.rows.x

    def round(self):
        mixing.run_round(self.exchange, self.rows, self.network.round)

    def close(self):
        self.rows = self.x = None
        self.exchange.close()


@torch.no_grad()
def measure(network, parameters, names, dtype, repeats, machine, say=lambda text: None):
    """Return (figures, left_out, switch): a dict a size, why a transport was left out, the cost of a switch or None.

    names: transports, () for all that work here. machine: of setting.facts. Collective; TrainingError for a wrong sum.
    """
    world = network.world
    switch = Switch(world) if machine["ranks_on_node"] > machine["cores"] else None
    figures, left_out = [], {}
    try:
        for count in parameters:
            say(f"measuring  {count:,} parameters ...")
            if switch:
                switch.measure()
            figures.append(_measure_size(network, count, names, dtype, repeats, machine, left_out))
    finally:
        if switch:
            switch.close()
    found = None
    if switch and world.rank == 0:
        switches = least_switches(machine["ranks_on_node"], machine["cores"])
        found = {**timing.figures(switch.found), "how": Switch.HOW, "in_a_round": switches}
        for size in figures:
            size["floor_and_switches_s"] = size["floor_s"] + switches * found["median_s"]
            size["allowed_s"] = 2 * size["floor_s"] + machine["ranks_on_node"] * found["median_s"]
    return figures, left_out, found


def _measure_size(network, parameters, names, dtype, repeats, machine, left_out):
    world, wiring, placement = network.world, network.wiring, network.placement
    d, m = row_elements(parameters), len(placement.hosted)
    rounds = {}
    if world.size > 1:
        baseline = NeighborAllgather(world, placement, wiring.rows, d, str(dtype).removeprefix("torch."))
        rounds[baseline.name] = baseline
    for name in names or TRANSPORTS:
        try:
            rounds[name] = Transport(network, name, d, dtype)
        except UserError as error:
            if names:
                raise
            left_out.setdefault(name, str(error))
    for name, side in rounds.items():
        _check_sum(network, name, side, d, dtype)
    row, level = d * dtype.itemsize, last_level(machine["caches"])
    footprint = 2 * row * _on_node(world, m)
    beyond = level is not None and footprint > level
    running = min(machine["ranks_on_node"], machine["cores"])
    copy = Copy(m, d, dtype, sets_beyond(level, 2 * m * row, running) if beyond else 1)
    times = timing.in_turn({**copy.ways, **{name: side.round for name, side in rounds.items()}}, repeats, world)
    for side in rounds.values():
        side.close()
    # A copy reads and writes each vertex's row once; a round reads one a neighbour more.
    by = min(copy.ways, key=lambda name: timing.figures(times[name])["median_s"])
    moved = rows_moved(wiring.rows) * row
    bandwidth = 2 * wiring.n * row / timing.figures(times[by])["median_s"]
    floor_s = moved / bandwidth
    sides = {name: timing.figures(found) for name, found in times.items()}
    for name in rounds:
        sides[name]["over_floor"] = sides[name]["median_s"] / floor_s
        sides[name]["over_neighbor_allgather"] = (
            sides[name]["median_s"] / sides[NeighborAllgather.name]["median_s"] if NeighborAllgather.name in rounds else None
        )
    return {
        "parameters": parameters, "elements": d, "row_bytes": row, "moved_bytes": moved, "footprint_bytes": footprint,
        "footprint_in": "not known" if level is None else "memory" if beyond else "cache", "copied_bytes": _on_node(world, copy.bytes),
        "copy_bytes_per_s": bandwidth, "floor_by": by, "floor_s": floor_s, "floor_and_switches_s": None,
        "allowed_s": None, "sides": sides,
    }  # fmt: skip


def _on_node(world, number):
    """Return the sum of a number of each rank over the ranks of this node; collective."""
    return sum(world.node_comm.allgather(number)) if world.comm else number


def _check_sum(network, name, side, d, dtype):
    """Compare CHECKED rounds with powers of W in float64; TrainingError where a row is not what it should be; collective."""
    world, hosted, n = network.world, network.placement.hosted, network.wiring.n
    patterns = np.stack([generator(0, "bench", v).uniform(-1, 1, PERIOD) for v in range(n)])
    start = torch.from_numpy(patterns).to(dtype)
    for i, vertex in enumerate(hosted):
        for part in _periods(side.x(i)):
            part.copy_(start[vertex, : part.shape[-1]])
    for _ in range(CHECKED):
        side.round()
    expected = start.double().numpy()
    for _ in range(CHECKED):
        expected = network.wiring.matrix @ expected
    expected = torch.from_numpy(expected)
    deviations = [
        (part - expected[vertex, : part.shape[-1]]).abs().max() for i, vertex in enumerate(hosted) for part in _periods(side.x(i))
    ]
    worst = float(torch.stack(deviations).max())  # NaN stays NaN
    # Each product and each sum of a round rounds once, and so does the weight; |x| <= 1 and the weights of a row sum to 1.
    terms = max(len(indices) for indices, _ in network.wiring.rows)
    allowed = CHECKED * (terms + 2) * torch.finfo(dtype).eps
    everyone = world.allgather(worst)
    wrong = [rank for rank, deviation in enumerate(everyone) if not deviation <= allowed]
    if wrong and world.rank == wrong[0]:
        raise TrainingError(
            f"{name} gives a wrong sum: after {CHECKED} rounds on {network.wiring.spec}, {d} elements, a value is off by {worst:.3g} from the "
            f"matrix in float64, rounding allows {allowed:.3g}; nothing is measured. Please report it with `mpiconsensus doctor`."
        )
    if wrong:
        world.barrier()  # that rank speaks, and ends us all


def _periods(row):
    """Return the whole periods of `row` as a view (periods, PERIOD) and what is left, (rest,); empty ones are left out."""
    row = torch.as_tensor(row)
    whole = len(row) // PERIOD * PERIOD
    return [part for part in (row[:whole].view(-1, PERIOD), row[whole:]) if part.numel()]


def choice_of_auto(network, figures, dtype):
    """Return the name of the transport that transport.name = auto stands for at the largest of the sizes; collective."""
    exchange = open_exchange("auto", network.world, network.placement, max(size["elements"] for size in figures), dtype)
    exchange.close()
    return exchange.name


def recommend(figures, auto):
    """Return {"transport", "reason", "auto"}: the one nearest to the floor over all sizes (geometric mean), and why.

    auto: what transport.name = auto stands for. It is left only for one that was quicker in more than TOLD of the passes.
    transport is None where none worked at every size.
    """
    everywhere = set.intersection(*({name for name in size["sides"] if name in TRANSPORTS} for size in figures))
    if not everywhere:
        return {"transport": None, "reason": "no transport works at every size", "auto": auto}
    mean = {n: math.exp(sum(math.log(s["sides"][n]["over_floor"]) for s in figures) / len(figures)) for n in sorted(everywhere)}
    first, *others = sorted(mean, key=mean.get)
    over = f"floor (geometric mean of {len(figures)} sizes)" if len(figures) > 1 else "floor"
    if not others:
        return {"transport": first, "reason": f"{mean[first]:.2f} x the {over}; no other one was measured", "auto": auto}
    rival = auto if auto in others else others[0]
    pairs = [pair for s in figures for pair in zip(*(s["sides"][n]["passes_s"] for n in (first, rival)), strict=True)]
    slower = sum(a < b for a, b in pairs)
    told = f"{first} {mean[first]:.2f} x the {over}, {rival} {mean[rival]:.2f} x and slower in {slower} of {len(pairs)} passes"
    if rival == auto and slower <= TOLD * len(pairs):
        return {"transport": auto, "reason": f"{told}, which does not tell them apart", "auto": auto}
    return {"transport": first, "reason": told, "auto": auto}
