"""A plain CNN: stages of 3x3 convolutions, each stage ended by a max pool, and a dense head."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from rice_jax import ops
from rice_jax.models.layers import Conv, Dense, Dropout, GlobalAveragePool, MaxPool, Shrink


class PlainCNN(nn.Module):
    """Six of the study's nets: cnn, cnn_light, vgg16, vgg_light, vgg_custom, final.

    Layers: `shrink` (where the image is averaged), convolutions, numbered straight through
    (`conv1`, `conv2`, ...), pools by stage (`pool1`), `average` (where the head averages), `dense`,
    `head`.
    """

    stages: Sequence[Sequence[int]]
    """Filters of each convolution, a tuple for each stage."""
    grid: int = 0
    """Height and width that the image is averaged to; 0 for as it is."""
    strides: int = 1
    """Stride of every convolution."""
    stem_stride: int = 0
    """Stride of the first convolution; 0 for that of every one."""
    pooling: str = "average"
    """What turns maps into features: 'flatten' or 'average' (global average pooling)."""
    dense: int = 512
    """Units of the dense layer before the head."""
    dropout: float = 0.0
    classes: int = 5
    dtype: Any = jnp.float32
    first_image: jax.Array | int = 0

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Logits (N, classes) of images x (N, H, W, 3) in [0, 1]."""
        number = 0
        if self.grid:
            x = Shrink(self.grid, name="shrink")(x)
        for index, filters in enumerate(self.stages, 1):
            for width in filters:
                number += 1
                strides = (number == 1 and self.stem_stride) or self.strides
                conv = Conv(width, (3, 3), strides=strides, dtype=self.dtype, name=f"conv{number}")
                x = ops.relu(conv(x))
            x = MaxPool(name=f"pool{index}")(x)
        if self.pooling == "average":
            x = GlobalAveragePool(name="average")(x)
        else:
            x = x.reshape(x.shape[0], -1)
        x = ops.relu(Dense(self.dense, dtype=self.dtype, name="dense")(x))
        if self.dropout:
            x = Dropout(self.dropout, self.first_image, name="dropout")(x, train)
        return Dense(self.classes, dtype=self.dtype, name="head")(x).astype(jnp.float32)
