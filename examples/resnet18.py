"""ResNet-18 (He et al. 2015, arXiv:1512.03385) as a net of one's own.

rice-jax train --config=examples/resnet18.py --config.data.image_size=64
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import ml_collections

from rice_jax.own_net import configuration


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    width: int
    stride: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """From (N, H, W, C) to (N, H / stride, W / stride, width)."""

        def conv(x: jax.Array, size: int, stride: int, name: str) -> jax.Array:
            y = nn.Conv(self.width, (size, size), stride, use_bias=False, name=name)(x)
            return nn.BatchNorm(not train, momentum=0.9, name=f"{name}_norm")(y)

        y = conv(nn.relu(conv(x, 3, self.stride, "conv1")), 3, 1, "conv2")
        return nn.relu(y + (x if x.shape == y.shape else conv(x, 1, self.stride, "shortcut")))


class ResNet18(nn.Module):
    """A stem, stages of blocks of which each but the first halves the map, an average, a head."""

    stages: Sequence[Sequence[int]] = ((64, 64), (128, 128), (256, 256), (512, 512))
    classes: int = 5

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Logits (N, classes) of images x (N, H, W, 3) in [0, 1]."""
        x = nn.Conv(self.stages[0][0], (7, 7), 2, use_bias=False, name="stem")(x)
        x = nn.relu(nn.BatchNorm(not train, momentum=0.9, name="stem_norm")(x))
        x = nn.max_pool(x, (3, 3), (2, 2), "SAME")
        for stage, widths in enumerate(self.stages, 1):
            for letter, width in zip("abcd", widths, strict=False):
                stride = 2 if stage > 1 and letter == "a" else 1
                x = Block(width, stride, name=f"block{stage}{letter}")(x, train)
        return nn.Dense(self.classes, name="head")(x.mean((1, 2)))


def get_config() -> ml_collections.ConfigDict:
    """The quick recipe."""
    return configuration(ResNet18, recipe={"train.schedule": "quick"})
