"""What a session is, between two steps: gathered into a checkpoint, and put back from one.

A session has trainer, log, evaluator, best, record, epoch (epochs done), started, wire_before, facts; see run.Session.
"""

import time
from datetime import UTC, datetime

import numpy as np

from mpiconsensus import __version__, checkpoint, resume, runread
from mpiconsensus.record import Record


def save(session, directory):
    """Write a checkpoint of the session as it is; collective. Raise checkpoint.Unwritten where the disk refuses.

    Every row of the log up to here is on the disk before: a checkpoint never knows more than its log.
    """
    trainer, world = session.trainer, session.world
    state = trainer.state_dict()
    wire = trainer.stepper.wire_bytes() - session.wire_before
    m = trainer.block.m
    vertices = {}
    for i, vertex in enumerate(trainer.hosted):
        vertices[vertex] = {
            **state["vertices"][vertex],
            "late": state["late"][vertex] if "late" in state else None,
            "wire_bytes": int(wire) // m + (i < wire % m),
            "best": {"accuracy": float(session.best["vertex"][i]), "state": session.best["states"][i]} if session.best else None,
        }
    common = content = None
    if world.rank == 0:
        wiring = {**trainer.wiring._asdict(), "changing": trainer.wiring.changing is not None}
        common = {"wiring": wiring, "mean": session.best["mean"] if session.best else None}
        content = facts(session, trainer.stepper.drift)
    checkpoint.write(directory, world, trainer.k, vertices, common, content)


def facts(session, drift=None):
    """Return what the manifest of a checkpoint tells of the session."""
    trainer, now, best = session.trainer, time.perf_counter(), session.best
    return dict(
        mpiconsensus=__version__, written=datetime.now(UTC).isoformat(timespec="seconds"), ranks=session.world.size,
        epochs=session.epoch, steps_per_epoch=trainer.steps_per_epoch, elapsed_s=now - session.started,
        epoch_s=now - session.record.started if session.record else 0.0, drift=None if drift is None else float(drift),
        best={"epoch": best["epoch"], "accuracy": float(best["accuracy"])} if best else None,
        job=session.job.to_toml(), data=resume.fingerprint(session.job, trainer.source),
        started=session.facts["started"], resumed=session.facts["resumed"],
    )  # fmt: skip


def restore(session, directory, found):
    """Put a session that was just made where the checkpoint `found` was written; its log gets the rows up to there; collective."""
    trainer, content = session.trainer, found.content
    step, epochs, per_epoch = content["step"], content["epochs"], trainer.steps_per_epoch
    rows = runread.rows(directory, session.world, trainer.hosted, {"steps": step, "epochs": epochs, "network": epochs})
    session.log.restore(rows)
    own = found.vertices(trainer.hosted)
    state = {"step": step, "vertices": own}
    if own[trainer.hosted[0]]["late"] is not None:
        state["late"] = {vertex: own[vertex]["late"] for vertex in trainer.hosted}
    trainer.load_state_dict(state)
    trainer.stepper.drift = content["drift"]
    # Rows that were sent anew to get here do not count.
    session.wire_before = trainer.stepper.wire_bytes() - sum(own[vertex]["wire_bytes"] for vertex in trainer.hosted)
    session.epoch, session.started = epochs, time.perf_counter() - content["elapsed_s"]
    if content["best"]:
        mine = [own[vertex]["best"] for vertex in trainer.hosted]
        session.best = {
            **content["best"], "vertex": np.array([best["accuracy"] for best in mine]), "states": [best["state"] for best in mine],
            "mean": found.common()["mean"] if session.world.rank == 0 else None,
        }  # fmt: skip
    first = epochs * per_epoch
    if step > first:
        columns = {name: values[first:] for name, values in rows["steps"].items()}
        steps = min(first + per_epoch, trainer.total_steps) - first
        session.record = Record.resumed(columns, first, steps, content["epoch_s"])
