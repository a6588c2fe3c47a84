"""Operators by importance in training: weights from trial gradients, against a few lines of numpy; what else is left as it was."""

import numpy as np
import pytest
import torch
from test_compression_reference import FOLDER, trainer

from mpiconsensus.compressing import trial_gradient
from mpiconsensus.errors import UserError
from mpiconsensus.sweep import plan

STEPS, K, INNER = 25, 22, 5


def planned(operator, **changes):
    (job,) = [run.job for run in plan.read(FOLDER / "importance.toml").runs if run.job.compression.operator == operator]
    return job.replace(**changes)


def reference(a, signs, x, smooth, choose, steps=STEPS, low=0.0, high=np.inf):
    """Return x after `steps` steps of compressed gradient descent; choose(w, g) -> (indices, what is sent there)."""
    b = a * signs[:, None]

    def gradient(x):
        return b.T @ (-1 / (1 + np.exp(b @ x))) / len(b) + 0.2 * x / (1 + x * x) ** 2

    for _ in range(steps):
        g, logs = gradient(x), np.zeros(len(x))
        for _ in range(INNER):
            w = np.clip(len(x) * np.exp(logs) / np.exp(logs).sum(), low, high)
            trial = gradient(x - w * g / smooth)
            logs = logs + g * trial / smooth / (smooth**-2 * smooth * len(x) * np.abs(g).max() ** 2)
        w = np.clip(len(x) * np.exp(logs) / np.exp(logs).sum(), low, high)
        chosen, sent = choose(w, g)
        x = x.copy()
        x[chosen] -= sent / smooth
    return x


def top(values):
    return np.argsort(-np.abs(values), kind="stable")[:K]


CHOICES = {
    "importance:22": lambda w, g: ((s := top(w * g)), g[s]),
    "md-greedy:22": lambda w, g: ((s := top(w)), g[s]),
    "md-greedy-weighted:22": lambda w, g: ((s := top(w)), (w * g)[s]),
    "md-weighted-greedy:22": lambda w, g: ((s := top(w * g)), (w * g)[s]),
}


@pytest.mark.parametrize("operator", CHOICES)
@pytest.mark.parametrize("bounds", [[], [0.9, 1.05]])
def test_training_by_importance_is_its_few_lines(operator, bounds):
    t = trainer(planned(operator, compression__importance_bounds=bounds))
    shard, x = t.loaders[0].shard, t.block.parameters(0).numpy()[:112].copy()
    for _ in range(STEPS):
        t.step()
    signs = np.where(shard.y == 1, 1.0, -1.0)
    expected = reference(shard.x.astype(float), signs, x, 2.786214233904, CHOICES[operator], low=(bounds or [0])[0], high=(bounds or [0, np.inf])[1])
    np.testing.assert_allclose(t.block.parameters(0).numpy()[:112], expected, rtol=0, atol=1e-10)
    t.close()


@pytest.mark.parametrize("operator", ["md-greedy-weighted:22", "md-weighted-greedy:22"])
def test_what_the_weighted_ones_send_is_scaled_by_key(operator):
    t = trainer(planned(operator, compression__importance_normalised=True))
    shard, x = t.loaders[0].shard, t.block.parameters(0).numpy()[:112].copy()
    for _ in range(STEPS):
        t.step()

    def choose(w, g):
        s, sent = CHOICES[operator](w, g)
        return s, sent * K / w[s].sum()

    expected = reference(shard.x.astype(float), np.where(shard.y == 1, 1.0, -1.0), x, 2.786214233904, choose)
    np.testing.assert_allclose(t.block.parameters(0).numpy()[:112], expected, rtol=0, atol=1e-10)
    t.close()


def test_keys_of_importance_mean_something_to_the_operators_that_have_them():
    changes = {"compression__importance_eta": 2.0, "compression__importance_normalised": True}
    told = {}
    for operator in ("md-greedy-weighted:22", "md-greedy:22", "top-k:22"):
        t = trainer(planned("importance:22", compression__operator=operator, **changes))
        told[operator] = [word for word in t.algorithm.unused() if "importance" in word]
        t.close()
    assert told["md-greedy-weighted:22"] == []
    assert told["md-greedy:22"] == ["compression.importance_normalised = True"]
    assert {"compression.importance_normalised = True", "compression.importance_eta = 2.0"} <= set(told["top-k:22"])


def test_a_trial_leaves_parameters_gradient_and_buffers_as_they_are():
    t = trainer(planned("importance:22", compression__importance_eta=1.0, data__dataset="digits", data__partition="iid", training__start="",
                        model__name="digits-cnn", training__batch_size=32, compression__multiple=0.0, training__nonconvex=0.0))  # fmt: skip
    t.step()
    kept = [tensor.clone() for tensor in (t.block.x(0), t.block.gradients[0], *t.block.modules[0].buffers())]
    found = trial_gradient(t, 0, np.full(t.block.layout.count, 1e-3))
    assert all(torch.equal(*pair) for pair in zip(kept, (t.block.x(0), t.block.gradients[0], *t.block.modules[0].buffers()), strict=True))
    assert np.isfinite(found).all() and np.abs(found).max() > 0
    t.close()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"algorithm__name": "choco-sgd", "compression__multiple": 0.0, "compression__gamma": 0.1}, "learns its weights from gradients, which choco-sgd does not send"),
        ({"compression__importance_bounds": [2.0, 1.0]}, "give two numbers a <= b above 0"),
        ({"compression__importance_bounds": [1.0]}, "give two numbers a <= b above 0"),
        ({"model__name": "logistic", "compression__multiple": 0.0, "training__start": ""}, "importance without compression.importance_eta"),
        ({"algorithm__name": "ef21"}, "has none that holds for all vectors"),
    ],
)
def test_what_importance_cannot_do_is_told(changes, told):
    with pytest.raises(UserError, match=told):
        trainer(planned("importance:22", **changes))


def test_bounds_of_the_weights_give_a_step_size():
    made = planned("importance:22", algorithm__name="ef21", compression__importance_bounds=[0.5, 2.0])
    alpha = 22 / 112 * (0.5 / 2.0) ** 2
    theta = 1 - np.sqrt(1 - alpha)
    found = trainer(made).rate(0)
    # one vertex: L and sqrt(mean L_i^2) are one number
    assert found == pytest.approx(1 / (2.786214233904 * (1 + np.sqrt(1 - alpha) / theta)), rel=1e-9)
