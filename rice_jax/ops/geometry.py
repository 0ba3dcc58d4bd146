"""How windows lie on an image."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
from jax import lax

NHWC = lax.ConvDimensionNumbers((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))
"""Images (N, H, W, C) and kernels (H, W, I, O), in XLA's terms."""


class Geometry(NamedTuple):
    """Windows over an image (N, H, W, C); hashable, for it decides what is compiled."""

    size: tuple[int, int]
    """Height and width of the window."""
    strides: tuple[int, int]
    """Rows and columns from one window to the next."""
    pads: tuple[tuple[int, int], tuple[int, int]]
    """Rows above and below, columns to the left and to the right that the image is padded with."""


def lay(
    image: Sequence[int],
    size: Sequence[int],
    strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
) -> Geometry:
    """The geometry of windows of `size` over an image (height, width), padding as in `jax.lax`."""
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(image, size, strides, padding)
    height, width = map(int, size)
    down, across = map(int, strides)
    vertical, horizontal = ((int(low), int(high)) for low, high in padding)
    return Geometry((height, width), (down, across), (vertical, horizontal))


def is_empty(x: jax.Array, geometry: Geometry) -> bool:
    """Whether x (N, H, W, C) has no number, or no window fits in it: nothing is to be computed."""
    sides = zip(x.shape[1:3], geometry.pads, geometry.size, strict=True)
    return x.size == 0 or any(side + sum(pads) < window for side, pads, window in sides)
