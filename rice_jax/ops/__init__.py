"""Convolution and max pooling: the values and gradients of XLA's own."""

from collections.abc import Sequence

import flax.linen as nn
import jax
from jax import lax

conv_general_dilated = lax.conv_general_dilated


def max_pool(
    x: jax.Array, window: Sequence[int], strides: Sequence[int], padding: str = "VALID"
) -> jax.Array:
    """Maximum over `window` of x (N, H, W, C), moved by `strides`; padding 'SAME' or 'VALID'."""
    return nn.max_pool(x, tuple(window), tuple(strides), padding)
