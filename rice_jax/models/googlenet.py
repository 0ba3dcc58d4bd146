"""GoogLeNet (Szegedy et al. 2015, arXiv:1409.4842) without its auxiliary heads, in two widths."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from rice_jax import ops
from rice_jax.models.adjustable import Shape
from rice_jax.models.layers import Conv, Dense, Dropout, GlobalAveragePool, MaxPool, Shrink
from rice_jax.models.staged import Staged

_PARTS = (
    "branch1/conv",
    "branch2/reduce",
    "branch2/conv",
    "branch3/reduce",
    "branch3/conv",
    "branch4/conv",
)
"""Of an inception, in the order of its widths."""
_LETTERS = "abcdefgh"


class Branch(nn.Module):
    """One branch of an inception: an optional 1x1 `reduce` or 3x3 `pool`, then `conv`.

    Its first convolution may have been computed already, and is then given.
    """

    filters: int
    kernel: int = 1
    reduce: int = 0
    pool: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, first: jax.Array | None = None) -> jax.Array:
        """(N, H, W, C) to (N, H, W, filters)."""
        if first is not None and not self.reduce:
            return first
        if self.pool:
            x = MaxPool((3, 3), (1, 1), "SAME", name="pool")(x)
        if first is not None:
            x = first
        elif self.reduce:
            x = ops.relu(Conv(self.reduce, (1, 1), dtype=self.dtype, name="reduce")(x))
        kernel = (self.kernel, self.kernel)
        return ops.relu(Conv(self.filters, kernel, dtype=self.dtype, name="conv")(x))


class Inception(nn.Module):
    """Four branches side by side, concatenated over channels.

    `widths` is (f1, r3, f3, r5, f5, p): 1x1 f1 | 1x1 r3 then 3x3 f3 | 1x1 r5 then 5x5 f5 |
    3x3 max pool then 1x1 p. A branch that ends in no filter is left out.
    """

    widths: Sequence[int]
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(N, H, W, C) to (N, H, W, f1 + f3 + f5 + p)."""
        f1, r3, f3, r5, f5, p = self.widths
        branches = [
            Branch(f1, dtype=self.dtype, name="branch1") if f1 else None,
            Branch(f3, 3, reduce=r3, dtype=self.dtype, name="branch2") if f3 else None,
            Branch(f5, 5, reduce=r5, dtype=self.dtype, name="branch3") if f5 else None,
            Branch(p, pool=True, dtype=self.dtype, name="branch4") if p else None,
        ]
        there = [branch for branch in branches if branch]
        firsts = self._firsts(x, [branch for branch in there if not branch.pool])
        return jnp.concatenate([branch(x, firsts.get(str(branch.name))) for branch in there], -1)

    def _firsts(self, x: jax.Array, branches: Sequence[Branch]) -> dict[str, jax.Array]:
        """What the first convolutions of such branches, all 1x1, make of x: computed as one.

        Where layers may be joined: fewer and larger operations compile and run faster. Elsewhere
        each branch computes its own.
        """
        if self.is_initializing() or not ops.joins() or len(branches) < 2:
            return {}
        names = [str(branch.name) for branch in branches]
        layers = [
            self.variables["params"][name]["reduce" if branch.reduce else "conv"]
            for name, branch in zip(names, branches, strict=True)
        ]
        joined = jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis=-1), *layers)
        ends = np.cumsum([layer["bias"].size for layer in layers])
        conv = Conv(int(ends[-1]), (1, 1), dtype=self.dtype, parent=None)
        maps: Any = conv.apply({"params": joined}, x)
        return dict(zip(names, jnp.split(ops.relu(maps), ends[:-1], axis=-1), strict=True))


class GoogLeNet(Staged):
    """googlenet and googlenet_light: a stem, nine (or eight) inceptions, an average, a head.

    Layers: `shrink` (where the image is averaged), `conv1`, `pool1`, `conv2`, `conv3`, `pool2`,
    `inception3a`, ..., `average`, `dropout` (where units are dropped), `head`.
    """

    stem: Sequence[int]
    """Filters of the 7x7, the 1x1 and the 3x3 convolution."""
    inceptions: Sequence[Sequence[Sequence[int]]]
    """Widths of each inception, a tuple for each stage; a max pool stands between stages."""
    grid: int = 0
    """Height and width that the image is averaged to; 0 for as it is."""
    stem_stride: int = 2
    """Stride of the 7x7 convolution."""
    dropout: float = 0.4
    classes: int = 5
    dtype: Any = jnp.float32
    first_image: jax.Array | int = 0

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Logits (N, classes) of images x (N, H, W, 3) in [0, 1]."""
        first, second, third = self.stem
        if self.grid:
            x = Shrink(self.grid, name="shrink")(x)
        conv1 = Conv(first, (7, 7), strides=self.stem_stride, dtype=self.dtype, name="conv1")
        x = ops.relu(conv1(x))
        x = self._pool(1)(x)
        x = ops.relu(Conv(second, (1, 1), dtype=self.dtype, name="conv2")(x))
        x = ops.relu(Conv(third, (3, 3), dtype=self.dtype, name="conv3")(x))
        x = self._pool(2)(x)
        for stage, inceptions in enumerate(self.inceptions, 3):
            if stage > 3:
                x = self._pool(stage - 1)(x)
            for letter, widths in zip(_LETTERS, inceptions, strict=False):
                x = Inception(widths, dtype=self.dtype, name=f"inception{stage}{letter}")(x)
        x = GlobalAveragePool(name="average")(x)
        if self.dropout:
            x = Dropout(self.dropout, self.first_image, name="dropout")(x, train)
        return Dense(self.classes, dtype=self.dtype, name="head")(x).astype(jnp.float32)

    def _pool(self, number: int) -> MaxPool:
        return MaxPool((3, 3), (2, 2), "SAME", name=f"pool{number}")

    @nn.nowrap
    def by_stage(self) -> list[list[tuple[str, tuple[int, ...]]]]:
        """Its inceptions, each with its six widths."""
        return [
            [
                (f"inception{number}{letter}", tuple(widths))
                for letter, widths in zip(_LETTERS, stage, strict=False)
            ]
            for number, stage in enumerate(self.inceptions, 3)
        ]

    @nn.nowrap
    def of_stages(self, widths: Sequence[Sequence[Sequence[int]]]) -> Self:
        """The net with such inceptions."""
        return self.clone(inceptions=tuple(tuple(map(tuple, stage)) for stage in widths))

    @nn.nowrap
    def with_widths(self, widths: Mapping[str, int]) -> Self:
        """The net with so many filters in each convolution; 0, or none told, leaves it out."""
        inceptions = [
            [[widths.get(f"{path}/{part}", 0) for part in _PARTS] for path, _ in stage]
            for stage in self.by_stage()
        ]
        stem = tuple(widths[f"conv{number}"] for number in (1, 2, 3))
        return self.of_stages(inceptions).clone(stem=stem)

    @nn.nowrap
    def optional(self) -> list[str]:
        """All of an inception's branches but the first."""
        return [f"{path}/{part}" for path in self.blocks() for part in (_PARTS[2], *_PARTS[4:])]

    @nn.nowrap
    def with_stem_stride(self, factor: int, shape: Shape) -> tuple[Self, int, int]:
        """As `Adjustable` has it, whatever the images' shape."""
        del shape
        stride = self.stem_stride
        return self.clone(stem_stride=factor * stride), stride, factor * stride
