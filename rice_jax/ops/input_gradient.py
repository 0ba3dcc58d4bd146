"""The gradient of what a convolution was given, as one convolution with stride 1.

XLA writes it as a convolution of an image with zeros between its pixels where the stride is more
than 1, and inside a loop reads the kernel transposed: its CPU backend gives neither to oneDNN.
"""

import jax
import jax.numpy as jnp
from jax import lax

from rice_jax.ops.geometry import NHWC, Geometry


def input_gradient(
    gradient: jax.Array, kernel: jax.Array, image: tuple[int, int], geometry: Geometry
) -> jax.Array:
    """Gradient (N, H, W, I) of the x of a convolution of x.

    With stride s, a pixel at row q * s + r of the padded image meets the kernel's rows t * s + r
    only, in window q - t: for each r a convolution of the gradient, whose window has the taps t.
    They are computed as the channels of a single one.

    Args:
        gradient: (N, H', W', O), that of the convolution's result.
        kernel: (Kh, Kw, I, O).
        image: height and width of x.
        geometry: the convolution's window, strides and padding; no padding is negative.
    """
    down, across = geometry.strides
    places = [
        -(-(pixels + low) // stride)
        for pixels, (low, _), stride in zip(image, geometry.pads, geometry.strides, strict=True)
    ]
    gradient = gradient[:, : places[0], : places[1]]  # later windows hold nothing but padding
    taps = [
        -(-size // stride) for size, stride in zip(geometry.size, geometry.strides, strict=True)
    ]
    pads = [
        (tap - 1, place - windows)
        for tap, place, windows in zip(taps, places, gradient.shape[1:3], strict=True)
    ]
    # The barrier keeps XLA from taking the rearranged kernel for a transposed one.
    shares = lax.optimization_barrier(_shares(kernel, taps, geometry))
    given = lax.conv_general_dilated(gradient, shares, (1, 1), pads, dimension_numbers=NHWC)
    given = given.reshape(*given.shape[:3], down, across, kernel.shape[2])
    given = given.transpose(0, 1, 3, 2, 4, 5)
    given = given.reshape(-1, places[0] * down, places[1] * across, kernel.shape[2])
    (top, _), (left, _) = geometry.pads
    return given[:, top : top + image[0], left : left + image[1]]


def _shares(kernel: jax.Array, taps: list[int], geometry: Geometry) -> jax.Array:
    """The kernel as (taps down, taps across, O, down * across * I), the last tap first."""
    height, width, channels, filters = kernel.shape
    down, across = geometry.strides
    missing = ((0, taps[0] * down - height), (0, taps[1] * across - width), (0, 0), (0, 0))
    kernel = jnp.pad(kernel, missing)
    kernel = kernel.reshape(taps[0], down, taps[1], across, channels, filters)
    kernel = kernel[::-1, :, ::-1].transpose(0, 2, 5, 1, 3, 4)
    return kernel.reshape(*taps, filters, down * across * channels)
