"""A small net, and the profile of any by rows."""

import flax.linen as nn
import jax.numpy as jnp

from rice_jax import profile


def counted(module, shape=(1, 8, 8, 3), **kwargs):
    result = profile.count(module, shape, **kwargs)
    return {row.path: row for row in result.rows}, result


class Small(nn.Module):
    """Two convolutions with ReLUs, a pool between them, a mean and a dense layer."""

    dtype: object = jnp.float32

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (3, 3), name="conv1", dtype=self.dtype)(x))
        x = nn.max_pool(x, (2, 2), (2, 2))
        x = nn.relu(nn.Conv(6, (3, 3), name="conv2", dtype=self.dtype)(x))
        return nn.Dense(5, name="head", dtype=self.dtype)(x.mean((1, 2)))
