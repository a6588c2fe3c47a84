"""jobs/compression/ against published numbers: iterations until the squared gradient norm is below 1e-2, 1e-4 and 1e-6, and bits.

Mushrooms among 20 workers; the numbers were checked by two independent programs (numpy and C) and the authors' code. What fits
into seconds is run here; `mpiconsensus sweep jobs/compression/reference.toml` runs all of it, see docs/compression.md.
"""

import numpy as np
import pytest
from conftest import ROOT, mpirun

from mpiconsensus import config
from mpiconsensus.data.source import open_source
from mpiconsensus.run import Trainer
from mpiconsensus.runread import Run
from mpiconsensus.runtime import World
from mpiconsensus.sweep import plan
from mpiconsensus.wiring import wire

FOLDER = ROOT / "jobs" / "compression"
LEVELS = 1e-2, 1e-4, 1e-6
# label -> iterations to the levels that are reached here, bits of a message
ROWS = {"ef21-top22-x16": ((29, 317), 781), "ef21-top1-x256": ((211, 413), 39), "ef21-top22-power-of-two-x16": ((32, 360), 275)}


def job(label):
    (found,) = [run.job for run in plan.read(FOLDER / "reference.toml").runs if run.name == label]
    return found


def trainer(made):
    world = World()
    wiring = wire(made.topology, world)
    return Trainer(made, world, wiring, open_source(made.data, wiring.n, made.hetero.powers, made.training.seed))


def followed(made, steps):
    """Return (squared gradient norms, bits of a worker), (steps,) each, in one process."""
    t = trainer(made)
    norms, bits = np.empty(steps), np.empty(steps)
    for k in range(steps):
        t.step()
        norms[k], bits[k] = t.gradient_norm**2, t.stepper.take()[4][0]
    t.close()
    return norms, bits


@pytest.fixture(scope="module")
def runs():
    return {label: followed(job(label), iterations[-1] + 2) for label, (iterations, _) in ROWS.items()}


def test_the_problem_is_the_published_one(runs):
    norms, _ = runs["ef21-top22-x16"]
    assert norms[0] == pytest.approx(0.535214020041341, rel=1e-13)


def test_the_step_size_of_theory_is_that_of_the_published_smoothness():
    rate = trainer(job("gradient-descent")).rate(0)
    assert rate == pytest.approx(1 / 2.786214233904, rel=1e-12)
    theta = 1 - np.sqrt(1 - 22 / 112)
    published = 16 / (2.786214233904 + 3.493225975143 * np.sqrt((1 - 22 / 112) / theta / theta))
    assert trainer(job("ef21-top22-x16")).rate(0) == pytest.approx(published, rel=1e-12)


@pytest.mark.parametrize("label", ROWS)
def test_iterations_and_bits_are_the_published_ones(runs, label):
    (iterations, message), (norms, bits) = ROWS[label], runs[label]
    found = [int(np.flatnonzero(norms <= level)[0]) for level, _ in zip(LEVELS, iterations, strict=False)]
    assert np.abs(np.subtract(found, iterations)).max() <= 1
    # The start, gradients as they are, does not count.
    assert (bits[1:] == message).all()


def test_the_published_bits_are_those_messages():
    messages = {label: message for label, (_, message) in ROWS.items()}
    assert 697 * messages["ef21-top22-x16"] == 544_357
    assert 917 * messages["ef21-top1-x256"] == 35_763
    assert 790 * messages["ef21-top22-power-of-two-x16"] == 217_250


def test_four_ranks_with_five_workers_each_have_the_same_numbers(runs, tmp_path):
    label, steps = "ef21-top22-power-of-two-x16", 200
    file = tmp_path / "job.toml"
    file.write_text(job(label).to_toml())
    done = mpirun(4, "-m", "mpiconsensus", "train", file, "--set", f"training.epochs={steps}", "--out", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with Run(tmp_path / "run") as run:
        assert (run.steps("gradient_norm") ** 2 == runs[label][0][:steps]).all()
        assert (run.steps("bits_formula") == runs[label][1][:steps, None]).all()


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.toml")), ids=lambda path: path.stem)
def test_every_job_is_sound(path):
    """Each run of a sweep names an algorithm and a compressor that go together, whatever data it needs."""
    jobs = [config.load(path)] if "[set]" not in path.read_text() else [run.job for run in plan.read(path).runs]
    for made in jobs:
        if made.data.shards:
            small = made.replace(data__shards="", data__dataset="mushrooms-all", data__partition="contiguous", data__normalize="none")
            made = small.replace(model__name="linear", training__batch_size=410)
        t = trainer(made.replace(topology__graph="ring:3"))
        t.step()
        assert np.isfinite(t.block.x(0).numpy()).all()
        t.close()
