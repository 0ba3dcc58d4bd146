"""Convolutions one after another: Simonyan and Zisserman 2014, Iandola et al. 2016."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp


class VGG(nn.Module):
    """arXiv:1409.1556, configuration D, as a list of layers."""

    stages: Sequence[Sequence[int]] = ((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3)
    dense: int = 4096
    classes: int = 1000

    @nn.compact
    def __call__(self, x, train=False):
        layers = []
        for stage in self.stages:
            for width in stage:
                layers += [nn.Conv(width, (3, 3)), nn.relu]
            layers.append(lambda x: nn.max_pool(x, (2, 2), (2, 2)))
        x = nn.Sequential(layers, name="features")(x)
        x = x.reshape(x.shape[0], -1)
        for _ in range(2):
            x = nn.relu(nn.Dense(self.dense)(x))
            x = nn.Dropout(0.5, deterministic=not train)(x)
        return nn.Dense(self.classes)(x)


class Fire(nn.Module):
    """A squeeze, and two expansions side by side."""

    squeeze: int
    expand: int

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(self.squeeze, (1, 1), name="squeeze")(x))
        one = nn.relu(nn.Conv(self.expand, (1, 1), name="expand1x1")(x))
        three = nn.relu(nn.Conv(self.expand, (3, 3), name="expand3x3")(x))
        return jnp.concatenate([one, three], axis=-1)


class SqueezeNet(nn.Module):
    """arXiv:1602.07360, version 1.1."""

    fires: Sequence[Sequence[int]] = (
        *((16, 64), (16, 64), (32, 128), (32, 128)),
        *((48, 192), (48, 192), (64, 256), (64, 256)),
    )
    stem: int = 64
    classes: int = 1000

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(nn.Conv(self.stem, (3, 3), 2, padding="VALID")(x))
        x = nn.max_pool(x, (3, 3), (2, 2))
        for number, (squeeze, expand) in enumerate(self.fires):
            if number in (2, 4):
                x = nn.max_pool(x, (3, 3), (2, 2))
            x = Fire(squeeze, expand, name=f"fire{number + 2}")(x)
        x = nn.Dropout(0.5, deterministic=not train)(x)
        return nn.relu(nn.Conv(self.classes, (1, 1))(x)).mean(axis=(1, 2))
