"""MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381) as a net of one's own.

rice-jax train --config=examples/mobilenetv2.py --config.model.multiplier=0.25
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import ml_collections

from rice_jax.own_net import configuration


class MobileNetV2(nn.Module):
    """A stem, inverted residuals, a last 1x1 convolution, an average, a head."""

    blocks: Sequence[Sequence[int]] = (
        *((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2)),
        *((6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)),
    )
    """Expansion, channels, repetitions and first stride of each run of blocks."""
    last: int = 1280
    multiplier: float = 1.0
    classes: int = 5

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Logits (N, classes) of images x (N, H, W, 3) in [0, 1]."""

        def conv(x: jax.Array, name: str, width: int, size: int = 1, stride: int = 1) -> jax.Array:
            groups = width if name.endswith("depthwise") else 1
            options = {"feature_group_count": groups, "use_bias": False, "name": name}
            y = nn.Conv(width, (size, size), stride, **options)(x)
            return nn.BatchNorm(not train, momentum=0.9, name=f"{name}_norm")(y)

        def scaled(width: int) -> int:
            return max(8, 8 * round(width * self.multiplier / 8))

        x = nn.relu6(conv(x, "stem", scaled(32), 3, 2))
        for run, (expansion, width, repetitions, first) in enumerate(self.blocks, 1):
            for number in range(repetitions):
                y, name, wide = x, f"block{run}_{number + 1}", x.shape[-1] * expansion
                if expansion > 1:
                    y = nn.relu6(conv(y, f"{name}_expand", wide))
                stride = 1 if number else first
                y = nn.relu6(conv(y, f"{name}_depthwise", wide, 3, stride))
                y = conv(y, f"{name}_project", scaled(width))
                x = x + y if x.shape == y.shape else y
        x = nn.relu6(conv(x, "last", max(self.last, scaled(self.last))))
        return nn.Dense(self.classes, name="head")(x.mean((1, 2)))


def get_config() -> ml_collections.ConfigDict:
    """The quick recipe."""
    return configuration(MobileNetV2, recipe={"train.schedule": "quick"})
