"""Normalisation by groups, seeds, and which parts of a model draw numbers."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_models import CIFAR, DIGITS, FASHION, batch_norms, one_thread, size, step
from torch import nn
from torch.nn import functional as F

from mpiconsensus import models
from mpiconsensus.models.normalisation import groups, replace_batch_norm

__all__ = ["one_thread"]  # a fixture, for every test


@given(st.integers(1, 4096))
def test_groups_are_as_many_as_the_rule_allows(channels):
    allowed = [g for g in range(1, 33) if channels % g == 0 and (channels // g >= 4 or g == 1)]
    assert groups(channels) == max(allowed)


@pytest.mark.parametrize(
    "name, shape",
    [("digits-cnn", DIGITS), ("fashion-cnn", FASHION)]
    + [(name, CIFAR) for name in ("resnet20", "shufflenet_v2_x1_0", "densenet121")],
)
def test_group_norm_leaves_no_batch_norm_and_trains(name, shape):
    batch = models.build(name, shape, 10)
    group = models.build(name, shape, 10, norm="group")
    assert batch_norms(batch) and not batch_norms(group)
    assert len([m for m in group.modules() if isinstance(m, nn.GroupNorm)]) == len(batch_norms(batch))
    assert size(group) == size(batch)
    assert not list(group.buffers())
    loss, before, after = step(group, shape, 10)
    assert np.isfinite(loss)
    assert not torch.equal(before[0], after[0])


def test_group_norm_keeps_scale_shift_and_eps():
    batch = nn.BatchNorm2d(12, eps=0.25)
    nn.init.normal_(batch.weight)
    nn.init.normal_(batch.bias)
    net = replace_batch_norm(nn.Sequential(batch, nn.Sequential(batch)).double())
    assert net[0] is net[1][0]
    x = torch.randn(2, 12, 3, 3, dtype=torch.float64)
    y = x.numpy().reshape(2, 3, 4 * 9)
    y = (y - y.mean(2, keepdims=True)) / np.sqrt(y.var(2, keepdims=True) + 0.25)
    scale, shift = (p.detach().numpy()[:, None, None] for p in (batch.weight, batch.bias))
    y = y.reshape(2, 12, 3, 3) * scale + shift
    np.testing.assert_allclose(net[0](x).detach().numpy(), y, rtol=1e-12, atol=1e-12)
    assert replace_batch_norm(nn.Sequential(nn.BatchNorm1d(8, affine=False)))[0].weight is None


@pytest.mark.parametrize("name, shape", [("mlp", (9,)), ("resnet20", CIFAR), ("mobilenet_v3_small", CIFAR)])
def test_the_seed_makes_the_model(name, shape):
    def drawn(seed):
        torch.manual_seed(seed)
        module = models.build(name, shape, 4)
        return torch.cat([p.detach().flatten() for p in module.parameters()]), torch.rand(1)

    (a, next_a), (b, next_b), (c, _) = drawn(3), drawn(3), drawn(4)
    assert torch.equal(a, b) and torch.equal(next_a, next_b)
    assert not torch.equal(a, c)


@pytest.mark.parametrize(
    "name, shape",
    [("logistic", (9,)), ("mlp", (9,)), ("digits-cnn", DIGITS), ("fashion-cnn", FASHION), ("resnet20", CIFAR)]
    + [(name, CIFAR) for name in ("resnet18", "shufflenet_v2_x1_0", "squeezenet1_1", "densenet121")]
    + [(name, CIFAR) for name in ("vit_b_32", "swin_t", "efficientnet_b0")],
)
def test_stochastic_is_what_draws_in_a_training_forward(name, shape):
    module = models.build(name, shape, 4)
    before = torch.get_rng_state()
    module(torch.zeros(4, *shape))
    assert models.is_stochastic(module) == (not torch.equal(before, torch.get_rng_state()))


class Foreign(nn.Module):
    def forward(self, x):
        return F.dropout(x, 0.5, self.training)


@pytest.mark.parametrize(
    "module, expected",
    [
        (nn.Dropout(0.1), True),
        (nn.Dropout(0.0), False),
        (nn.AlphaDropout(0.1), True),
        (nn.RReLU(), True),
        (nn.MultiheadAttention(4, 2, dropout=0.1), True),
        (nn.MultiheadAttention(4, 2), False),
        (nn.Sequential(nn.Linear(2, 2), Foreign()), True),
    ],
)
def test_stochastic_parts(module, expected):
    assert models.is_stochastic(module) == expected
