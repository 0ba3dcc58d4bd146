"""Channels split in halves and shuffled: Ma et al. 2018."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp


def shuffle(x):
    """Channels of the two halves by turns."""
    *outer, channels = x.shape
    return jnp.swapaxes(x.reshape(*outer, 2, channels // 2), -1, -2).reshape(*outer, channels)


class Unit(nn.Module):
    """One half passes, the other is convolved; with a stride both halves are, of all channels."""

    width: int
    stride: int = 1

    @nn.compact
    def __call__(self, x, train=False):
        def pointwise(x, name):
            x = nn.Conv(half, (1, 1), use_bias=False, name=name)(x)
            x = nn.BatchNorm(use_running_average=not train, name=f"{name}_bn")(x)
            return nn.relu(x)

        def depthwise(x, name):
            width = x.shape[-1]
            x = nn.Conv(
                width,
                (3, 3),
                self.stride,
                feature_group_count=width,
                use_bias=False,
                name=name,
            )(x)
            return nn.BatchNorm(use_running_average=not train, name=f"{name}_bn")(x)

        half = self.width // 2
        if self.stride == 1:
            left, right = jnp.split(x, 2, axis=-1)
        else:
            left = pointwise(depthwise(x, "left_depthwise"), "left")
            right = x
        right = depthwise(pointwise(right, "reduce"), "depthwise")
        return shuffle(jnp.concatenate([left, pointwise(right, "expand")], axis=-1))


class ShuffleNetV2(nn.Module):
    """arXiv:1807.11164."""

    widths: Sequence[int] = (116, 232, 464)
    depths: Sequence[int] = (4, 8, 4)
    stem: int = 24
    last: int = 1024
    classes: int = 1000

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Conv(self.stem, (3, 3), 2, use_bias=False, name="stem")(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, name="stem_bn")(x))
        x = nn.max_pool(x, (3, 3), (2, 2), "SAME")
        for width, depth in zip(self.widths, self.depths, strict=True):
            for number in range(depth):
                x = Unit(width, 1 if number else 2)(x, train)
        x = nn.Conv(self.last, (1, 1), use_bias=False, name="last")(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, name="last_bn")(x))
        return nn.Dense(self.classes)(x.mean((1, 2)))
