"""Convolution, ReLU and max pooling: XLA's own values and gradients, fast on every backend."""

from rice_jax.ops.constants import bound
from rice_jax.ops.convolution import conv_general_dilated, conv_where_slow
from rice_jax.ops.mode import inference, joined, joins, plain
from rice_jax.ops.parts import mapped, part_size, summed
from rice_jax.ops.pooling import max_pool
from rice_jax.ops.relu import relu
from rice_jax.ops.replay import replayed

__all__ = [
    "bound",
    "conv_general_dilated",
    "conv_where_slow",
    "inference",
    "joined",
    "joins",
    "mapped",
    "max_pool",
    "part_size",
    "plain",
    "relu",
    "replayed",
    "summed",
]
