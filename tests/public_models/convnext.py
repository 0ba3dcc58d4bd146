"""A convolutional net in a transformer's clothes: Liu et al. 2022."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp


class Block(nn.Module):
    """A 7 x 7 of each channel, then a dense layer to four times the width and back, scaled."""

    width: int

    @nn.compact
    def __call__(self, x):
        y = nn.Conv(self.width, (7, 7), feature_group_count=self.width, name="dwconv")(x)
        y = nn.LayerNorm(epsilon=1e-6)(y)
        y = nn.gelu(nn.Dense(4 * self.width, name="pwconv1")(y), approximate=False)
        y = nn.Dense(self.width, name="pwconv2")(y)
        gamma = self.param("gamma", nn.initializers.constant(1e-6), (self.width,))
        return x + gamma * y


class ConvNeXt(nn.Module):
    """arXiv:2201.03545, T, without stochastic depth."""

    depths: Sequence[int] = (3, 3, 9, 3)
    widths: Sequence[int] = (96, 192, 384, 768)
    classes: int = 1000

    @nn.compact
    def __call__(self, x, train=False):
        for stage, (depth, width) in enumerate(zip(self.depths, self.widths, strict=True)):
            if stage:
                x = nn.LayerNorm(epsilon=1e-6)(x)
                x = nn.Conv(width, (2, 2), (2, 2), name=f"down{stage}")(x)
            else:
                x = nn.Conv(width, (4, 4), (4, 4), name="stem")(x)
                x = nn.LayerNorm(epsilon=1e-6)(x)
            for _ in range(depth):
                x = Block(width)(x)
        x = nn.LayerNorm(epsilon=1e-6)(jnp.mean(x, axis=(1, 2)))
        return nn.Dense(self.classes, name="head")(x)
