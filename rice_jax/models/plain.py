"""A plain CNN: stages of 3x3 convolutions, each stage ended by a max pool, and a dense head."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from rice_jax import ops
from rice_jax.graph.trace import trace
from rice_jax.models.adjustable import Adjustable, Shape
from rice_jax.models.layers import Conv, Dense, Dropout, GlobalAveragePool, MaxPool, Shrink
from rice_jax.models.staged import Staged


class PlainCNN(Staged):
    """Six of the study's nets: cnn, cnn_light, vgg16, vgg_light, vgg_custom, final.

    Layers: `shrink` (where the image is averaged), convolutions, numbered straight through
    (`conv1`, `conv2`, ...), pools by stage (`pool1`), `average` (where the head averages), `dense`,
    `dropout` (where units are dropped), `head`.
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

    @nn.nowrap
    def by_stage(self) -> list[list[tuple[str, int]]]:
        """Its convolutions."""
        numbers = itertools.count(1)
        return [[(f"conv{next(numbers)}", width) for width in stage] for stage in self.stages]

    @nn.nowrap
    def of_stages(self, widths: Sequence[Sequence[int]]) -> Self:
        """The net with such convolutions."""
        return self.clone(stages=tuple(map(tuple, widths)))

    @nn.nowrap
    def with_widths(self, widths: Mapping[str, int]) -> Self:
        """The net with so many filters in each convolution, and units in `dense`."""
        filters = [[widths[path] for path, _ in stage] for stage in self.by_stage()]
        return self.of_stages(filters).clone(dense=widths["dense"])

    @nn.nowrap
    def with_stem_stride(self, factor: int, shape: Shape) -> tuple[Self, int, int]:
        """As `Adjustable` has it, whatever the images' shape."""
        del shape
        stride = self.stem_stride or self.strides
        return self.clone(stem_stride=factor * stride), stride, factor * stride

    @nn.nowrap
    def on_smaller_maps(self, params: Any, smaller: Adjustable, shape: Shape) -> Any:
        """As `Adjustable` has it; where the maps are flattened, `dense` reads smaller ones.

        It reads each place of a map at the place in the smaller one that covers it: rows of its
        kernel (H, W, C) add up, which gives the output that the smaller map, enlarged by
        repetition, would have given.
        """
        if self.pooling != "flatten":
            return params
        last = f"pool{len(self.stages)}"
        (h, w, c), (lower, narrower, _) = (
            trace(net, shape).layers[last].output.shape[1:]  # type: ignore[union-attr]
            for net in (self, smaller)
        )
        kernel = np.asarray(params["dense"]["kernel"]).reshape(h, w, c, -1)
        rows, columns = np.arange(h) * lower // h, np.arange(w) * narrower // w
        summed = np.zeros((lower, narrower, c, kernel.shape[-1]), kernel.dtype)
        np.add.at(summed, (rows[:, None], columns[None]), kernel)
        dense = {**params["dense"], "kernel": summed.reshape(-1, kernel.shape[-1])}
        return {**params, "dense": dense}
