"""Group normalisation in place of batch normalisation.

y = a (x - mean) / sqrt(var + eps) + b      mean and var over one sample's group of channels and all its pixels

The statistics of a batch are those of a vertex's shard: unlike at every vertex where the shards are. Group
normalisation has none, and no buffers to mix. The number of groups is the largest divisor of the channels that is
at most 32 (the reference's default) and leaves at least 4 channels a group: in the last layers of small images a
group may see one pixel, and fewer values than that would be normalised to little more than their signs.
16 channels have 4 groups, 64 have 16, 128 and more usually 32; fewer than 4 channels are one group.
Reference: Wu and He, Group normalization, ECCV 2018.
"""

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

LARGEST_GROUPS = 32
FEWEST_CHANNELS = 4


def groups(channels):
    """Return the number of groups that `channels` channels are normalised in."""
    largest = max(1, min(LARGEST_GROUPS, channels // FEWEST_CHANNELS))
    return next(g for g in range(largest, 0, -1) if channels % g == 0)


def replace_batch_norm(module):
    """Return `module` with a GroupNorm for every batch normalisation in it, in place; scale and shift are kept."""
    replaced = {}
    for name, child in list(module.named_modules(remove_duplicate=False)):
        if isinstance(child, _BatchNorm):
            if child not in replaced:
                replaced[child] = _group_norm(child)
            module.set_submodule(name, replaced[child])
    return module


def _group_norm(batch):
    group = nn.GroupNorm(groups(batch.num_features), batch.num_features, eps=batch.eps, affine=batch.affine)
    if batch.affine:
        group.weight, group.bias = batch.weight, batch.bias
    return group
