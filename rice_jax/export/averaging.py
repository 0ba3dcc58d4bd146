"""Images that are averaged before an exported net sees them, as its own first layer would do.

A device that averages a camera's rows as they come needs no memory for the whole image, which of a
small net is most of all that it needs.
"""

import ml_collections
import numpy as np

from rice_jax import nets
from rice_jax.errors import UserError
from rice_jax.export.runtimes import Runnable


def block(config: ml_collections.ConfigDict) -> int:
    """Pixels of a side whose average is one to the net: 4 where it makes 56 of 224.

    Raises:
        UserError: the net takes images as they are.
    """
    grid, side = config.model.get("grid", 0), config.data.image_size
    size = nets.block(side, grid)
    if size == 1:
        raise UserError(
            f"--averaged: {config.model.name} takes images of {side} x {side} as they are; it is "
            f"for nets that average them (config.model.grid), as {', '.join(_that_average())}"
        )
    return size


def _that_average() -> list[str]:
    return [name for name in nets.NETS if nets.get(name).widths.get("grid")]


def averaged(images: np.ndarray, size: int) -> np.ndarray:
    """Means over squares of `size` pixels of images (N, H, W, C); what does not fill one goes."""
    number, height, width, channels = images.shape
    rows, columns = height // size, width // size
    whole = images[:, : rows * size, : columns * size]
    return whole.reshape(number, rows, size, columns, size, channels).mean((2, 4), images.dtype)


def before(net: Runnable, size: int) -> Runnable:
    """The net as one of whole images."""
    return net if size == 1 else lambda images: net(averaged(images, size))
