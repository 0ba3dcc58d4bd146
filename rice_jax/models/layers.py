"""Linen layers that the nets share: Keras's defaults, and names for what Flax leaves unnamed."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from rice_jax import nets, ops

_KERNEL = nn.initializers.glorot_uniform()


class _Given(nn.Module):
    """A layer that takes its arrays as they are given, where they have the shape that it asks for.

    Flax traces an array's initialiser in each call, to compare shapes: half of a net's trace.
    """

    @nn.nowrap  # no method of the net's: what looks into nets would meet it beside each call
    def param(self, name: str, init_fn: Callable[..., Any], *init_args: Any, **kwargs: Any) -> Any:
        """What `nn.Module.param` gives, for an initialiser of a shape."""
        known: Any = self.get_variable("params", name)
        if known is not None and init_args and known.shape == tuple(init_args[0]):
            return known
        return super().param(name, init_fn, *init_args, **kwargs)


# Keras's defaults: glorot uniform kernels, zero biases, 'same' padding as the study asks for.
class Conv(_Given, nn.Conv):
    """A convolution of (N, H, W, C)."""

    padding: Any = "SAME"
    kernel_init: Any = _KERNEL
    conv_general_dilated: Any = ops.conv_general_dilated


class Dense(_Given, nn.Dense):
    """A dense layer, of (N, C)."""

    kernel_init: Any = _KERNEL


class Shrink(nn.Module):
    """Average of square blocks of (N, H, W, C), so large that about `grid` of them make a side."""

    grid: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Average x (N, H, W, C) to (N, H // block, W // block, C); a smaller x is left alone."""
        return shrunk(x, self.grid)


def shrunk(x: jax.Array, grid: int) -> jax.Array:
    """What `Shrink` makes of x."""
    block = nets.block(min(x.shape[1:3]), grid)
    return nn.avg_pool(x, (block, block), (block, block)) if block > 1 else x


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
    """Dropout whose mask depends on the key and an image's index, however a batch is split."""

    rate: float
    first_image: jax.Array | int = 0
    """Index in the global batch of the first image that is given."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Zero a share `rate` of x (N, C) and scale the rest by 1 / (1 - rate), when `train`."""
        if not train or self.rate == 0.0:
            return x
        return dropped(x, self.rate, self.make_rng("dropout"), self.first_image)


def dropped(
    x: jax.Array,
    rate: float,
    key: jax.Array,
    first_image: jax.Array | int,
    shared: Sequence[int] = (),
) -> jax.Array:
    """A share `rate` of x (N, ...) at zero, by each image's index, and the rest scaled.

    Args:
        x: activations.
        rate: from 0 to below 1.
        key: of the step.
        first_image: index in the global batch of the first image.
        shared: axes along which all numbers live or die together.
    """
    keep = 1.0 - rate
    indices = jnp.arange(x.shape[0]) + first_image
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, indices)
    axes = {axis % x.ndim for axis in shared}
    shape = [1 if axis in axes else size for axis, size in enumerate(x.shape)][1:]
    mask = jax.vmap(lambda key: jax.random.bernoulli(key, keep, shape))(keys)
    return jnp.where(mask, x / keep, jnp.zeros_like(x))
