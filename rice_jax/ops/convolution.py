"""Convolution whose weight gradient XLA's CPU backend does not get to choose.

XLA writes the gradient of the weights as a convolution with a window as large as the image, which
its CPU backend runs at a fraction of the forward pass's speed. Here it is im2col, in chunks that
stay in cache, and matrix products. Forward pass and input gradient are XLA's own everywhere, and
all three are on GPU and TPU.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

_NHWC = lax.ConvDimensionNumbers((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))
_CHUNK_BYTES = 256 * 1024
"""Size of the patches of a chunk: they are written and read once each, within a core's cache."""


class _Geometry(NamedTuple):
    strides: tuple[int, int]
    pads: tuple[tuple[int, int], tuple[int, int]]


def conv_general_dilated(
    lhs: jax.Array,
    rhs: jax.Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    **options: Any,
) -> jax.Array:
    """`jax.lax.conv_general_dilated`, the gradient of its weights fast on CPU.

    That gradient is its own for images (N, H, W, C) and kernels (H, W, I, O) without dilation,
    groups or a precision asked for; everything else is left to XLA. Values and gradients are equal
    up to the order of summation. Meant for `flax.linen.Conv(conv_general_dilated=...)`.
    """

    def plain(lhs: jax.Array, rhs: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(
            lhs,
            rhs,
            window_strides,
            padding,
            lhs_dilation,
            rhs_dilation,
            dimension_numbers,
            **options,
        )

    is_dilated = any(d != 1 for d in (*(lhs_dilation or ()), *(rhs_dilation or ())))
    is_special = any(
        value not in (None, 1) for key, value in options.items() if key != "preferred_element_type"
    )
    is_image = lhs.ndim == 4 and lhs.dtype == rhs.dtype
    if not is_image or is_dilated or is_special or not _is_nhwc(lhs, rhs, dimension_numbers):
        return plain(lhs, rhs)
    if options.get("preferred_element_type") not in (None, lhs.dtype):
        return plain(lhs, rhs)
    pads = (
        lax.padtype_to_pads(lhs.shape[1:3], rhs.shape[:2], window_strides, padding)
        if isinstance(padding, str)
        else padding
    )
    (top, bottom), (left, right) = ((int(low), int(high)) for low, high in pads)
    if min(top, bottom, left, right) < 0:
        return plain(lhs, rhs)
    vertical, horizontal = window_strides
    geometry = _Geometry((int(vertical), int(horizontal)), ((top, bottom), (left, right)))
    return _convolve(lhs, rhs, geometry)


def _is_nhwc(lhs: jax.Array, rhs: jax.Array, dimension_numbers: Any) -> bool:
    return lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers) == _NHWC


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolve(x: jax.Array, kernel: jax.Array, geometry: _Geometry) -> jax.Array:
    return lax.conv_general_dilated(
        x, kernel, geometry.strides, geometry.pads, dimension_numbers=_NHWC
    )


def _forward(
    x: jax.Array, kernel: jax.Array, geometry: _Geometry
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _convolve(x, kernel, geometry), (x, kernel)


def _backward(
    geometry: _Geometry, residuals: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = residuals
    convolve = functools.partial(
        lax.conv_general_dilated,
        window_strides=geometry.strides,
        padding=geometry.pads,
        dimension_numbers=_NHWC,
    )
    (of_x,) = jax.vjp(lambda x: convolve(x, kernel), x)[1](gradient)

    def xla(x: jax.Array, gradient: jax.Array) -> jax.Array:
        return jax.vjp(lambda kernel: convolve(x, kernel), kernel)[1](gradient)[0]

    of_kernel = lax.platform_dependent(
        x,
        gradient,
        cpu=functools.partial(_kernel_gradient, size=kernel.shape[:2], geometry=geometry),
        default=xla,
    )
    return of_x, of_kernel


_convolve.defvjp(_forward, _backward)


def _kernel_gradient(
    x: jax.Array, gradient: jax.Array, size: Sequence[int], geometry: _Geometry
) -> jax.Array:
    """Gradient of the kernel (Kh, Kw, I, O), summed over chunks of rows of one image each."""
    (down, across), pads = geometry
    n, height, width, filters = gradient.shape
    channels = x.shape[3]
    rows = _rows(height, width * size[0] * size[1] * channels * x.dtype.itemsize)
    chunks = -(-height // rows)
    # Rows that fill the last chunk up see zeros, and have no gradient.
    missing = (chunks * rows - 1) * down + size[0] - (x.shape[1] + sum(pads[0]))
    x = jnp.pad(x, ((0, 0), (pads[0][0], pads[0][1] + max(missing, 0)), pads[1], (0, 0)))
    gradient = jnp.pad(gradient, ((0, 0), (0, chunks * rows - height), (0, 0), (0, 0)))
    accumulated = jnp.promote_types(x.dtype, jnp.float32)

    def add(total: jax.Array, index: jax.Array) -> tuple[jax.Array, None]:
        image, chunk = index // chunks, index % chunks
        block = (1, (rows - 1) * down + size[0], x.shape[2], channels)
        seen = lax.dynamic_slice(x, (image, chunk * rows * down, 0, 0), block)[0]
        patches = jnp.concatenate(
            [
                lax.slice(
                    seen,
                    (i, j, 0),
                    (i + (rows - 1) * down + 1, j + (width - 1) * across + 1, channels),
                    (down, across, 1),
                )
                for i in range(size[0])
                for j in range(size[1])
            ],
            axis=-1,
        ).reshape(rows * width, -1)
        share = lax.dynamic_slice(
            gradient, (image, chunk * rows, 0, 0), (1, rows, width, filters)
        ).reshape(rows * width, filters)
        product = lax.dot_general(
            share, patches, (((0,), (0,)), ((), ())), preferred_element_type=accumulated
        )
        return total + product, None

    start = jnp.zeros((filters, size[0] * size[1] * channels), accumulated)
    total, _ = lax.scan(add, start, jnp.arange(n * chunks))
    return total.T.reshape(*size, channels, filters).astype(x.dtype)


def _rows(height: int, row_bytes: int) -> int:
    """Rows of a chunk: as many as fit the cache, evened out over the chunks."""
    most = max(1, min(height, _CHUNK_BYTES // row_bytes))
    return -(-height // -(-height // most))
