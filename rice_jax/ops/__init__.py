"""Convolution and max pooling: the values and gradients of XLA's own, fast on every backend."""

from rice_jax.ops.convolution import conv_general_dilated
from rice_jax.ops.pooling import max_pool

__all__ = ["conv_general_dilated", "max_pool"]
