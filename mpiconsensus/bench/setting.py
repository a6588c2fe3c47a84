"""What a measurement runs on: the graph, its placement, and the machine as the figures must name it."""

import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

from mpiconsensus import __version__, machine
from mpiconsensus.errors import UserError
from mpiconsensus.limits import cgroup_cores, memory, words
from mpiconsensus.placement import Placement
from mpiconsensus.wiring import wire

CACHES = "/sys/devices/system/cpu/cpu{}/cache"


def graph_of(world, graph, vertices, alone):
    """Return (Wiring with Metropolis weights, Placement) of the options --graph and --vertices; collective.

    vertices: None for one a rank; one process takes `alone` of them. UserError on every rank alike.
    """
    n = vertices or (world.size if world.size > 1 else alone)

    def sized():
        from mpiconsensus import topology

        return topology.expand(graph, n)

    spec = world.bcast(world.agree(sized if world.rank == 0 else lambda: None))
    wiring = wire(SimpleNamespace(graph=spec, weights="auto", seed=0), world)
    world.agree(_check_sizes, graph, wiring, vertices, world.size)
    return wiring, Placement(wiring.n, world.size, world.rank)


def _check_sizes(graph, wiring, vertices, ranks):
    name = graph.partition(":")[0]
    if wiring.directed or wiring.changing:
        raise UserError(f"--graph {graph}: what is measured is an undirected graph that stays; give for example --graph ring or --graph exponential.")
    if vertices and wiring.n != vertices:
        raise UserError(f"--graph {graph} has {wiring.n} vertices, --vertices says {vertices}; leave one out (--graph {name} --vertices {vertices}).")
    if ranks > wiring.n:
        raise UserError(
            f"{ranks} ranks were started for a graph of {wiring.n} vertices; start at most {wiring.n} (mpirun -n {wiring.n}), "
            f"or take a larger graph (--vertices {ranks})."
        )


def facts(world, threads):
    """Return what the figures depend on, of the node of rank 0, ready for JSON and alike on every rank; sizes in bytes; collective."""
    mine = sorted(os.sched_getaffinity(0))
    cpus = set().union(*(world.node_comm.allgather(mine) if world.comm else [mine]))
    quota = cgroup_cores()
    mpi = machine.mpi_facts()["library"].split(", package")[0] if world.comm else "none (one process)"
    return world.bcast({
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": machine.cpu_model(),
        "cores": max(1, min(len(cpus), int(quota or len(cpus)))),
        "caches": caches(cpus),
        "memory": memory(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "mpi": mpi,
        "versions": {"mpiconsensus": __version__, "python": platform.python_version(), **machine.versions()},
        "ranks": world.size,
        "nodes": world.nodes,
        "ranks_on_node": world.node_size,
        "threads": threads,
    })  # fmt: skip


def caches(cpus, root=CACHES):
    """Return {"L1": bytes, "L2": ..., ...} of the data caches that `cpus` reach, each counted once; {} where none is told."""
    found = {}
    for cpu in cpus:
        for index in Path(root.format(cpu)).glob("index*"):
            level, kind, size, shared = ("".join(words(index / name)) for name in ("level", "type", "size", "shared_cpu_list"))
            if level and kind != "Instruction" and size[:-1].isdigit():
                found[level, shared or cpu] = int(size[:-1]) << {"K": 10, "M": 20, "G": 30}[size[-1]]
    levels = sorted({level for level, _ in found})
    return {f"L{level}": sum(size for (at, _), size in found.items() if at == level) for level in levels}


def last_level(caches):
    """Return the bytes of the last-level cache, None where it is not known."""
    return caches[max(caches)] if caches else None


def warnings(found):
    """Return a sentence for each thing about the ranks of `facts` that the figures suffer from."""
    ranks, threads, cores = found["ranks_on_node"], found["threads"], found["cores"]
    if ranks * threads > cores:
        yield (f"{ranks} ranks x {threads} thread{'s' * (threads > 1)} on a node exceed its {cores} cores: they take turns, and every wait "
               f"is a switch; for the figures of the machine start at most {cores} ranks (OMP_NUM_THREADS=1), each can host several vertices.")
    if found["nodes"] > 1:
        yield f"the ranks are on {found['nodes']} nodes: the floor counts memory, rows that cross the network take longer."
