"""Convolution where a map is so small that it has fewer windows than a window has taps.

XLA lets map and kernel change places where the map has fewer pixels, so that the map is the window,
of as many filters as there are images. Its CPU backend gives that to neither oneDNN nor Eigen, and
loops over single numbers. 32 maps of 2 x 2 x 512 and 512 filters of 3 x 3 take it a second
forward, and another for the gradient of the maps: as `products` 16 and 11 ms, and the kernel's
gradient 9 instead of 27 (2 cores of Zen 3, jax 0.12.0.1, 27 November 2026).
"""

import itertools
import math

import jax
import jax.numpy as jnp
from jax import lax

from rice_jax.ops.geometry import NHWC, Geometry

_WINDOWS = 49
"""At most: each is code of its own."""


def has_few_windows(image: tuple[int, ...], geometry: Geometry) -> bool:
    """Whether a map of that height and width has fewer windows than a window has taps."""
    windows = math.prod(len(_windows(*side)) for side in zip(image, *geometry, strict=True))
    return 0 < windows < math.prod(geometry.size) and windows <= _WINDOWS


def products(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """The convolution (N, H', W', O) of x (N, H, W, I) by a kernel (Kh, Kw, I, O).

    A matrix product for each window, of the pixels that it sees and the taps that see them. Its
    gradients are such products too.
    """
    (n, *image, _), dtype = x.shape, x.dtype
    down, across = (_windows(*side) for side in zip(image, *geometry, strict=True))
    wide = jnp.promote_types(dtype, jnp.float32)
    x, kernel = x.astype(wide), kernel.astype(wide)
    results = []
    for (rows, high), (columns, broad) in itertools.product(down, across):
        seen, taps = x[:, rows, columns], kernel[high, broad]
        length = math.prod(taps.shape[:3])  # may be 0
        results.append(seen.reshape(n, length) @ taps.reshape(length, taps.shape[3]))
    shape = (n, len(down), len(across), kernel.shape[3])
    return jnp.stack(results, 1).reshape(shape).astype(dtype)


def padded(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """The same as one convolution: of the map and its zeros where it is smaller than the window."""
    if math.prod(x.shape[1:3]) < math.prod(geometry.size):
        # The barrier keeps XLA from taking the zeros for padding again.
        x = lax.optimization_barrier(jnp.pad(x, ((0, 0), *geometry.pads, (0, 0))))
        geometry = geometry._replace(pads=((0, 0), (0, 0)))
    return lax.conv_general_dilated(
        x, kernel, geometry.strides, geometry.pads, dimension_numbers=NHWC
    )


def _windows(
    pixels: int, size: int, stride: int, pads: tuple[int, int]
) -> list[tuple[slice, slice]]:
    """For each window along one axis the pixels that it sees, and the taps that see them."""
    windows = []
    for start in range(-pads[0], pixels + pads[1] - size + 1, stride):
        first = max(0, start)
        end = max(first, min(pixels, start + size))  # some see nothing but padding
        windows.append((slice(first, end), slice(first - start, end - start)))
    return windows
