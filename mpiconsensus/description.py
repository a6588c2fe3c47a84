"""What a log says once: the job, the facts of the run, the graph and how the data are divided.

n vertices.
"""

import numpy as np

LABELS = "training samples of each class at a vertex"
SKEW = "total variation distance between a vertex's distribution of labels and that of all samples: 0 alike, below 1 apart"
DENSE = 4096  # vertices up to which W is stored dense (compressed)


def label(dataset, unit, meaning):
    """Write a dataset's unit and description."""
    dataset.attrs.update(unit=unit, description=meaning)


def store(file, name, values, unit, meaning, **options):
    """Create a dataset with its unit and description."""
    label(file.create_dataset(name, data=values, **options), unit, meaning)


def describe(file, config_toml, facts, graph, data):
    """Store the resolved job (TOML), the facts (JSON), the graph and, where it is not None, the division of the data."""
    store(file, "config/toml", config_toml, "text (TOML)", "the resolved job")
    store(file, "config/facts", facts, "text (JSON)", "versions, hosts, command and figures of the run")
    if data:
        division = file.create_group("data")
        division.attrs["partition"] = data["partition"]
        if data["labels"] is not None:
            store(division, "labels", np.asarray(data["labels"], "<i8"), "1", LABELS, compression="gzip")
            store(division, "skew", np.asarray(data["skew"], "<f8"), "1", SKEW)
    group = file.create_group("graph")
    group.attrs.update({k: graph[k] for k in ("n", "lambda2_modulus", "spectral_gap", "spec", "weights")})
    directed, changing = bool(graph.get("directed")), bool(graph.get("changing"))
    group.attrs.update(directed=directed, changing=changing)
    pairs = "arcs (sender, receiver)" if directed else "pairs of vertices"
    store(group, "edges", np.asarray(graph["edges"], "<i8").reshape(-1, 2), "1", pairs + ", of all exchanges" * changing)
    meaning = "mixing matrix, row = receiver" + ", average over the exchanges" * changing
    if graph["W"] is not None and graph["n"] <= DENSE:
        store(group, "W", np.asarray(graph["W"], "<f8"), "1", meaning, compression="gzip")
        return
    triplets = graph["triplets"] if graph["W"] is None else _triplets(graph["W"])
    for name, values, dtype in zip(("rows", "columns", "weights"), triplets, ("<i8", "<i8", "<f8"), strict=True):
        store(group, f"W_triplets/{name}", np.asarray(values, dtype), "1", f"{name} of the entries of the {meaning}")


def _triplets(W):
    rows, cols = np.nonzero(W)
    return rows, cols, W[rows, cols]
