"""Evaluation: accuracies against a count by hand, statistics made anew, and what it may cost."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from synthetic import source

from mpiconsensus import config, evaluation
from mpiconsensus.runtime import World
from mpiconsensus.training import Trainer
from mpiconsensus.wiring import wire


def trainer(**changes):
    values = {
        "topology.graph": "ring:3", "model.name": "digits-cnn", "training.batch_size": 8, "training.epochs": 50,
        "training.max_steps": 6, "training.init": "independent", "training.precision": "float64", **changes,
    }  # fmt: skip
    job = config.Job({name: config.check(config.find(name), value) for name, value in values.items()})
    world = World()
    t = Trainer(job, world, wire(job.topology, world), source(3))
    while t.k < t.total_steps:
        t.step()
    return t


def predictions(module, t, x):
    module.eval()
    with torch.no_grad():
        logits = module((torch.from_numpy(x).double() / 255 - 0.5) / 0.25)
    module.train()
    return logits


def test_accuracies_are_counts_and_the_mean_model_is_the_mean():
    t = trainer()
    test = t.source.load_test()
    modules = t.block.modules
    mean = {}
    for name in modules[0].state_dict():
        mean[name] = torch.stack([m.state_dict()[name].double() for m in modules]).mean(0)
    rows = [t.block.x(i).clone() for i in range(3)]
    scores, recalibrated = evaluation.Evaluator(t).closing()
    for i, module in enumerate(modules):
        logits = predictions(module, t, test.x)
        assert scores.accuracy[i] == (logits.argmax(1).numpy() == test.y).mean()
        assert scores.loss[i] == pytest.approx(float(torch.nn.functional.cross_entropy(logits, torch.from_numpy(test.y))), rel=1e-6)
        assert torch.equal(t.block.x(i), rows[i]) and module.training, "an evaluation leaves the replicas as they were"
    probe = trainer().block.modules[0]
    probe.load_state_dict({k: v.to(probe.state_dict()[k].dtype) for k, v in mean.items()})
    assert scores.mean_accuracy == (predictions(probe, t, test.x).argmax(1).numpy() == test.y).mean()
    assert 0 <= recalibrated <= 1


def test_recalibrated_statistics_are_those_of_the_training_batches():
    t = trainer()
    evaluator = evaluation.Evaluator(t)
    probe = evaluator.recalibrate()
    first = evaluation.norm_layers(probe)[0]
    conv = next(m for m in probe.modules() if isinstance(m, torch.nn.Conv2d))
    seen = []
    for loader in t.loaders:
        of_vertex = []
        for count in range(loader.batches_per_pass):
            x = torch.from_numpy(loader.batch(count)[0]).double()
            of_vertex.append(conv((x / 255 - 0.5) / 0.25).mean(dim=(0, 2, 3)).detach())
        seen.append(torch.stack(of_vertex).mean(0))
    assert (first.running_mean - torch.stack(seen).mean(0)).abs().max() < 1e-12


def test_held_out_samples_are_the_vertex_s_own():
    t = trainer(**{"evaluation.validation_fraction": 0.25})
    scores = evaluation.Evaluator(t).running(10)
    for i, held in enumerate(t.held_out):
        assert len(held.y) == round(0.25 * t.source.sizes[i])
        assert not set(held.id) & set(t.loaders[i].shard.id)
        assert scores.accuracy[i] == (predictions(t.block.modules[i], t, held.x).argmax(1).numpy() == held.y).mean()


@given(
    test_size=st.integers(50, 20000), n=st.integers(1, 100), steps=st.integers(1, 2000), batch=st.integers(1, 256),
    parameters=st.integers(100, 10**8),
)  # fmt: skip
def test_the_plan_stays_within_a_tenth_of_the_training(test_size, n, steps, batch, parameters):
    keys = SimpleNamespace(every=0, samples=0, batch_size=256)
    plan = evaluation.plan(keys, test_size, n, steps, batch, parameters)
    fixed = evaluation.OVERHEAD / parameters
    cost = plan.samples * (1 + 1 / n) + fixed * (1 + -(-plan.samples // 256))
    assert 1 <= plan.samples <= test_size
    assert cost <= 0.1 * plan.every * steps * evaluation.GRADIENT * (batch + fixed) * (1 + 1e-9)
    # Neither rarer nor thinner than it must be.
    least = min(test_size, evaluation.LEAST_SAMPLES)
    assert plan.samples >= least and (plan.every == 1 or plan.samples == least)


def test_keys_overrule_the_plan():
    keys = SimpleNamespace(every=7, samples=33, batch_size=256)
    assert evaluation.plan(keys, 1000, 4, 10, 16, 20000) == (33, 7)


def test_evaluations_differ_by_nothing_but_the_samples():
    """A thinned evaluation takes a fixed subset: two in a row agree."""
    t = trainer()
    evaluator = evaluation.Evaluator(t)
    first, second = evaluator.running(15), evaluator.running(15)
    assert np.array_equal(first.accuracy, second.accuracy) and first.mean_loss == second.mean_loss
