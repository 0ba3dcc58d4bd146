"""The gradient of a convolution's kernel as matrix products over patches of the image.

XLA's CPU backend writes this gradient as a convolution with a window as large as the image, at a
fraction of the forward pass's speed. Here the patches of a few rows at a time are laid out in a
buffer that stays in a core's cache, and multiplied with the gradient of those rows. The buffer is
carried from one chunk to the next and filled in place by slices: XLA copies those row by row, and
would compute a concatenation element by element.
"""

import itertools
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from rice_jax.ops.geometry import Geometry
from rice_jax.ops.manual_axes import varying_like

_CHUNK_BYTES = 256 * 1024
"""Size of the buffer of patches: half of a core's second-level cache."""
_FEW_CHANNELS = 8
"""Below this a pixel is shorter than a vector register: rows of one channel copy faster."""


def weight_gradient(x: jax.Array, gradient: jax.Array, geometry: Geometry) -> jax.Array:
    """Gradient (Kh, Kw, I, O) of the kernel of a convolution of x.

    Args:
        x: (N, H, W, I), what was convolved.
        gradient: (N, H', W', O), that of the convolution's result.
        geometry: the convolution's window, strides and padding; no padding is negative.
    """
    n, height, width, filters = gradient.shape
    channels = x.shape[3]
    if geometry == Geometry((1, 1), (1, 1), ((0, 0), (0, 0))):  # every pixel is a patch
        total = _dot(x.reshape(-1, channels), gradient.reshape(-1, filters), contracted=(0, 0))
        return total.reshape(1, 1, channels, filters).astype(x.dtype)
    patch = geometry.size[0] * geometry.size[1] * channels
    rows = _rows(height, width * patch * x.dtype.itemsize)
    chunks = -(-height // rows)
    missing = rows * chunks - height
    gradient = jnp.pad(gradient, ((0, 0), (0, missing), (0, 0), (0, 0)))
    pads = _pads(x.shape[1], geometry, rows * chunks)
    layout: _Layout
    if channels < _FEW_CHANNELS:
        x = jnp.pad(x.transpose(0, 3, 1, 2), ((0, 0), (0, 0), *pads))
        layout = _Planes(x, geometry, rows, width)
    else:
        x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
        layout = _Pixels(x, geometry, rows, width)

    def add(
        carry: tuple[jax.Array, jax.Array], chunk: tuple[jax.Array, jax.Array]
    ) -> tuple[tuple[jax.Array, jax.Array], None]:
        total, patches = carry
        image, row = chunk
        share = lax.dynamic_slice(gradient, _at(image, row, 0, 0), (1, rows, width, filters))
        patches = layout.filled(patches, image, row * geometry.strides[0])
        return (total + layout.product(patches, share.reshape(-1, filters)), patches), None

    total = jax.eval_shape(
        layout.product, layout.empty, jnp.zeros((rows * width, filters), x.dtype)
    )
    start = varying_like((jnp.zeros(total.shape, total.dtype), layout.empty), x, gradient)
    image, chunk = np.divmod(np.arange(n * chunks, dtype=np.uint32), np.uint32(chunks))
    places = (jnp.asarray(image), jnp.asarray(chunk * np.uint32(rows)))
    (total, _), _ = lax.scan(add, start, places)
    return layout.kernel(total).reshape(*geometry.size, channels, filters).astype(x.dtype)


class _Layout(Protocol):
    """How the patches of a chunk lie in their buffer, and are multiplied from there."""

    empty: jax.Array

    def filled(self, patches: jax.Array, image: jax.Array, row: jax.Array) -> jax.Array:
        """The buffer with the windows' patches, the first window at `row` of the padded image."""
        ...

    def product(self, patches: jax.Array, share: jax.Array) -> jax.Array:
        """The patches times the gradient (rows * W', O) of the windows, summed over these."""
        ...

    def kernel(self, total: jax.Array) -> jax.Array:
        """A sum of products as (Kh * Kw * I, O)."""
        ...


class _Pixels:
    """Patches (rows, W', Kh * Kw * I): a window's lies in one piece."""

    def __init__(self, x: jax.Array, geometry: Geometry, rows: int, width: int) -> None:
        (height, across), strides, _ = self.geometry = geometry
        channels = x.shape[3]
        self.x = x
        self.block = (1, *_extent((rows, width), strides), channels)
        self.empty = jnp.zeros((rows, width, height * across * channels), x.dtype)

    def filled(self, patches: jax.Array, image: jax.Array, row: jax.Array) -> jax.Array:
        down, across = self.geometry.strides
        for tap, (i, j) in enumerate(_taps(self.geometry)):
            seen = lax.dynamic_slice(self.x, _at(image, row + i, j, 0), self.block)
            # By `lax`: of an index with steps older JAX makes a gather.
            seen = lax.slice(seen, (0,) * 4, seen.shape, (1, down, across, 1))
            patches = lax.dynamic_update_slice(patches, seen[0], _at(0, 0, tap * self.block[3]))
        return patches

    def product(self, patches: jax.Array, share: jax.Array) -> jax.Array:
        # The filters' side first: XLA's product is faster so, though it has to be transposed.
        return _dot(share, patches.reshape(share.shape[0], -1), contracted=(0, 0))

    def kernel(self, total: jax.Array) -> jax.Array:
        return total.T


class _Planes:
    """Patches (Kh * Kw * I, rows, W'): one channel of one tap is a picture of its own."""

    def __init__(self, x: jax.Array, geometry: Geometry, rows: int, width: int) -> None:
        (height, across), strides, _ = self.geometry = geometry
        channels = x.shape[1]
        self.x = x
        self.block = (1, channels, *_extent((rows, width), strides))
        self.empty = jnp.zeros((height * across * channels, rows, width), x.dtype)

    def filled(self, patches: jax.Array, image: jax.Array, row: jax.Array) -> jax.Array:
        down, across = self.geometry.strides
        for tap, (i, j) in enumerate(_taps(self.geometry)):
            seen = lax.dynamic_slice(self.x, _at(image, 0, row + i, j), self.block)
            seen = lax.slice(seen, (0,) * 4, seen.shape, (1, 1, down, across))
            patches = lax.dynamic_update_slice(patches, seen[0], _at(tap * self.block[1], 0, 0))
        return patches

    def product(self, patches: jax.Array, share: jax.Array) -> jax.Array:
        return _dot(patches.reshape(-1, share.shape[0]), share, contracted=(1, 0))

    def kernel(self, total: jax.Array) -> jax.Array:
        return total


def _dot(a: jax.Array, b: jax.Array, contracted: tuple[int, int]) -> jax.Array:
    first, second = contracted
    return lax.dot_general(
        a,
        b,
        (((first,), (second,)), ((), ())),
        preferred_element_type=jnp.promote_types(a.dtype, jnp.float32),
    )


def _at(*place: jax.Array | int) -> list[jax.Array | np.uint32]:
    """Indices that JAX need not look at for negative ones: that is code for each of the slices."""
    return [np.uint32(index) if isinstance(index, int) else index for index in place]


def _taps(geometry: Geometry) -> itertools.product:
    return itertools.product(range(geometry.size[0]), range(geometry.size[1]))


def _extent(windows: tuple[int, int], strides: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns from the first to the last window's place."""
    return (windows[0] - 1) * strides[0] + 1, (windows[1] - 1) * strides[1] + 1


def _pads(height: int, geometry: Geometry, windows: int) -> tuple[tuple[int, int], ...]:
    """Padding of an image of that height, with zeros below for so many rows of windows."""
    (top, bottom), sides = geometry.pads
    needed = (windows - 1) * geometry.strides[0] + geometry.size[0]
    return (top, max(bottom, needed - height - top)), sides


def _rows(height: int, row_bytes: int) -> int:
    """Rows of a chunk: as many as fit the cache, and better a divisor, which needs no padding."""
    most = max(1, min(height, _CHUNK_BYTES // row_bytes))
    divisor = next(rows for rows in range(most, 0, -1) if height % rows == 0)
    return divisor if 2 * divisor > most else -(-height // -(-height // most))
