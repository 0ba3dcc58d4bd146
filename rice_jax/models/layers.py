"""Linen layers that the nets share: Keras's defaults, and names for what Flax leaves unnamed."""

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from rice_jax import ops

# Keras's defaults: glorot uniform kernels, zero biases, 'same' padding as the study asks for.
Conv = functools.partial(
    nn.Conv,
    padding="SAME",
    kernel_init=nn.initializers.glorot_uniform(),
    conv_general_dilated=ops.conv_general_dilated,
)
Dense = functools.partial(nn.Dense, kernel_init=nn.initializers.glorot_uniform())


class MaxPool(nn.Module):
    """Maximum over windows of (N, H, W, C); a module so that it has a path of its own."""

    window: Sequence[int] = (2, 2)
    strides: Sequence[int] = (2, 2)
    padding: str = "VALID"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Pool x (N, H, W, C) to (N, H', W', C)."""
        return ops.max_pool(x, self.window, self.strides, self.padding)


class GlobalAveragePool(nn.Module):
    """Mean over height and width: (N, H, W, C) to (N, C)."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Average each channel of x (N, H, W, C)."""
        return jnp.mean(x, axis=(1, 2))


class Dropout(nn.Module):
    """Dropout whose mask does not depend on the number of devices.

    Inside `shard_map` over `axis_name` every device draws the mask of the whole batch and takes
    its own rows, so that one key gives one mask however the batch is split.
    """

    rate: float
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Zero a share `rate` of x (N, C) and scale the rest by 1 / (1 - rate), when `train`."""
        if not train or self.rate == 0.0:
            return x
        rows = x.shape[0]
        devices = 1 if self.axis_name is None else lax.psum(1, self.axis_name)
        first = 0 if self.axis_name is None else lax.axis_index(self.axis_name) * rows
        keep = 1.0 - self.rate
        mask = jax.random.bernoulli(self.make_rng("dropout"), keep, (rows * devices, *x.shape[1:]))
        mask = lax.dynamic_slice_in_dim(mask, first, rows)
        return jnp.where(mask, x / keep, jnp.zeros_like(x))
