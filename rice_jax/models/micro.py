"""A net for very small devices: it averages the image to a coarse grid before anything else."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import flax.linen as nn
import jax
import jax.numpy as jnp

from rice_jax import ops
from rice_jax.models.layers import Conv, Dense, Shrink
from rice_jax.models.staged import Staged


class SpatialMeanMax(nn.Module):
    """Mean and maximum of each map: (N, H, W, C) to (N, 2 C), the means first."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Reduce each channel of x (N, H, W, C) over height and width."""
        return jnp.concatenate([jnp.mean(x, axis=(1, 2)), jnp.max(x, axis=(1, 2))], axis=-1)


class Micro(Staged):
    """micro and nano: a shrunken image, convolutions of stride 2, mean and maximum of each map.

    Layers are `shrink`, `conv1`, `conv2`, ..., `pool`, `dense`, `head`. No parameter
    depends on the image's size: the same weights take 224, 112 or 56 pixels, and average less.
    """

    grid: int
    """Height and width that the image is averaged to."""
    convolutions: Sequence[int]
    """Filters of the 3x3 convolutions, each of stride 2."""
    dense: int = 32
    """Units of the dense layer before the head."""
    classes: int = 5
    dtype: Any = jnp.float32
    first_image: jax.Array | int = 0

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Logits (N, classes) of images x (N, H, W, 3) in [0, 1]."""
        x = Shrink(self.grid, name="shrink")(x)
        for number, filters in enumerate(self.convolutions, 1):
            conv = Conv(filters, (3, 3), strides=2, dtype=self.dtype, name=f"conv{number}")
            x = ops.relu(conv(x))
        x = SpatialMeanMax(name="pool")(x)
        x = ops.relu(Dense(self.dense, dtype=self.dtype, name="dense")(x))
        return Dense(self.classes, dtype=self.dtype, name="head")(x).astype(jnp.float32)

    @nn.nowrap
    def by_stage(self) -> list[list[tuple[str, int]]]:
        """Its convolutions, which are one stage."""
        return [[(f"conv{number}", width) for number, width in enumerate(self.convolutions, 1)]]

    @nn.nowrap
    def of_stages(self, widths: Sequence[Sequence[int]]) -> Self:
        """The net with such convolutions."""
        return self.clone(convolutions=tuple(widths[0]))

    @nn.nowrap
    def with_widths(self, widths: Mapping[str, int]) -> Self:
        """The net with so many filters in each convolution, and units in `dense`."""
        filters = [[widths[path] for path, _ in stage] for stage in self.by_stage()]
        return self.of_stages(filters).clone(dense=widths["dense"])
