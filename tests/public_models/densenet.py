"""Densely connected nets: Huang et al. 2016."""

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp


class DenseNet(nn.Module):
    """arXiv:1608.06993, DenseNet-BC."""

    depths: Sequence[int] = (6, 12, 24, 16)
    growth: int = 32
    classes: int = 1000

    @nn.compact
    def __call__(self, x, train=False):
        norm = functools.partial(nn.BatchNorm, use_running_average=not train)
        conv = functools.partial(nn.Conv, use_bias=False)
        x = nn.relu(norm()(conv(2 * self.growth, (7, 7), 2)(x)))
        x = nn.max_pool(x, (3, 3), (2, 2), "SAME")
        for block, depth in enumerate(self.depths):
            if block:
                x = conv(x.shape[-1] // 2, (1, 1))(nn.relu(norm()(x)))
                x = nn.avg_pool(x, (2, 2), (2, 2))
            for _ in range(depth):
                y = conv(4 * self.growth, (1, 1))(nn.relu(norm()(x)))
                y = conv(self.growth, (3, 3))(nn.relu(norm()(y)))
                x = jnp.concatenate([x, y], axis=-1)
        x = nn.relu(norm()(x))
        return nn.Dense(self.classes)(x.mean((1, 2)))
