"""What an asynchronous session is while its vertices stand still: gathered into a checkpoint, and put back from one.

Vertices stand at steps of their own. The log goes back to the step that all have taken; the figures of those that are
further are kept with the vertex.
"""

import time

import numpy as np

from mpiconsensus import checkpoint, runread, saving
from mpiconsensus.asynchronous.figures import COLUMNS


def save(session):
    """Write a checkpoint of the session; collective. Raise checkpoint.Unwritten where the disk refuses."""
    trainer, world, figures = session.trainer, session.world, session.figures
    low = min(world.allgather(min(trainer.t)))
    state = trainer.state_dict()
    logged = runread.own_rows(session.log.path, low, figures.logged)
    vertices = {}
    for i, vertex in enumerate(trainer.hosted):
        ahead = {name: np.concatenate([logged[name][:, i], column]) for name, column in figures.ahead(i).items()}
        scores = {str(epoch): values[:, i].tolist() for epoch, values in session.scores.items()}
        vertices[vertex] = {
            **state["vertices"][vertex], "figures": ahead, "scores": scores, "sent": int(session.sent[i]),
            "sent_since": int(trainer.postal.bytes_sent[i] + session.sent_before[i] - session.sent[i]), "ages": {str(age): int(counts[i]) for age, counts in figures.ages.items()},
        }  # fmt: skip
    common = content = None
    if world.rank == 0:
        common = {"wiring": {**trainer.wiring._asdict(), "changing": trainer.wiring.changing is not None}, "mean": None}
        content = {**saving.facts(session), "epochs": low // trainer.steps_per_epoch, "clock_s": trainer.postal.now() + session.before_s}
    checkpoint.write(session.directory, world, low, vertices, common, content)


def restore(session, found):
    """Put a session that was just made where the checkpoint `found` was written; its log gets the rows up to there; collective."""
    trainer, content, figures = session.trainer, found.content, session.figures
    low, epochs = content["step"], content["epochs"]
    rows = runread.rows(session.directory, session.world, trainer.hosted, {"steps": low, "epochs": epochs, "network": epochs})
    session.log.restore(rows)
    own = found.vertices(trainer.hosted)
    trainer.load_state_dict({"vertices": own})
    session.epoch, session.started = epochs, time.perf_counter() - content["elapsed_s"]
    session.before_s = content["clock_s"]
    session.network = rows["network"]["seconds"].tolist() if session.world.rank == 0 else []
    figures.resume(low, {name: rows["steps"][name] for name in COLUMNS})
    for i, vertex in enumerate(trainer.hosted):
        mine = own[vertex]
        figures.put(i, low, mine["figures"])
        session.sent[i], session.sent_since[i] = mine["sent"], mine["sent_since"]
        for age, count in mine["ages"].items():
            figures.ages.setdefault(int(age), np.zeros(figures.m, np.int64))[i] = count
        for epoch, values in mine["scores"].items():
            session.scores_of(int(epoch))[:, i] = values
