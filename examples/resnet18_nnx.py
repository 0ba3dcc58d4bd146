"""ResNet-18 (He et al. 2015, arXiv:1512.03385) in NNX: --config=examples/resnet18_nnx.py."""

import jax
import ml_collections
from flax import nnx

from rice_jax.own_net import configuration

STAGES = ((64, 64), (128, 128), (256, 256), (512, 512))


class Normed(nnx.Module):
    """A convolution and its batch norm."""

    def __init__(self, of: int, width: int, size: int, stride: int, rngs: nnx.Rngs) -> None:
        self.conv = nnx.Conv(of, width, (size, size), stride, use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(width, momentum=0.9, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """From (N, H, W, of) to (N, H / stride, W / stride, width)."""
        return self.norm(self.conv(x))


class Block(nnx.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, of: int, width: int, stride: int, rngs: nnx.Rngs) -> None:
        self.first = Normed(of, width, 3, stride, rngs)
        self.second = Normed(width, width, 3, 1, rngs)
        same = stride == 1 and of == width
        self.shortcut = nnx.identity if same else Normed(of, width, 1, stride, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """From (N, H, W, of) to (N, H / stride, W / stride, width)."""
        return nnx.relu(self.second(nnx.relu(self.first(x))) + self.shortcut(x))


class ResNet18NNX(nnx.Module):
    """A stem, stages of blocks of which each but the first halves the map, an average, a head."""

    def __init__(self, stages: tuple = STAGES, classes: int = 5, *, rngs: nnx.Rngs) -> None:
        self.stem = Normed(3, (of := stages[0][0]), 7, 2, rngs)
        blocks = []
        for stage, widths in enumerate(stages):
            for place, width in enumerate(widths):
                blocks.append(Block(of, width, 2 if stage and not place else 1, rngs))
                of = width
        self.blocks = nnx.Sequential(*blocks)
        self.head = nnx.Linear(of, classes, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits (N, classes) of images x (N, H, W, 3) in [0, 1]."""
        x = nnx.max_pool(nnx.relu(self.stem(x)), (3, 3), (2, 2), "SAME")
        return self.head(self.blocks(x).mean((1, 2)))


def get_config() -> ml_collections.ConfigDict:
    """The quick recipe."""
    return configuration(ResNet18NNX, recipe={"train.schedule": "quick"})
