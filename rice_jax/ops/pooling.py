"""Max pooling whose gradient is one pass over the image.

XLA's gradient of a maximum over windows is a select-and-scatter, which its CPU backend runs on one
thread, window after window. Here the forward pass notes in one byte which element of its window
won, and the gradient compares each pixel with the notes of the windows that it lies in.
"""

import functools
import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from rice_jax.ops.geometry import Geometry, is_empty, lay
from rice_jax.ops.mode import Mode, mode

_NOTE = np.int8
_NONE = -1
_FEW_ELEMENTS = 4
"""Larger windows are XLA's own where there is no gradient, so that it counts them exactly; but see
`mode.inference`."""


def max_pool(
    x: jax.Array,
    window: Sequence[int],
    strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]] = "VALID",
) -> jax.Array:
    """Maximum over windows of x (N, H, W, C): (N, H', W', C).

    Values and gradient are those of `lax.reduce_window`: of equal maxima the first in row order
    gets the gradient. On GPU and TPU they are XLA's own. Differentiable in reverse, any number of
    times; not in forward mode.

    Args:
        x: floats; what it is padded with never wins.
        window: height and width.
        strides: how far the window moves, down and across.
        padding: 'SAME', 'VALID', or (low, high) for height and for width.
    """
    geometry = lay(x.shape[1:3], window, strides, padding)
    has_note = geometry.size[0] * geometry.size[1] < np.iinfo(_NOTE).max
    cropped = min(min(pads) for pads in geometry.pads) < 0
    if mode() is Mode.PLAIN or not has_note or cropped or is_empty(x, geometry):
        return _windowed(x, geometry)
    return _max_pool(x, geometry)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _max_pool(x: jax.Array, geometry: Geometry) -> jax.Array:
    windowed = functools.partial(_windowed, geometry=geometry)
    if geometry.size[0] * geometry.size[1] > _FEW_ELEMENTS and mode() is not Mode.INFERENCE:
        return windowed(x)
    sliced = functools.partial(_sliced, geometry=geometry)
    return lax.platform_dependent(x, cpu=sliced, default=windowed)


def _forward(x: jax.Array, geometry: Geometry) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """The result, and what the gradient reads: the notes on CPU, x elsewhere."""

    def xla(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        y = _windowed(x, geometry)
        return y, jnp.zeros_like(y, _NOTE)

    noted = functools.partial(_noted, geometry=geometry)
    y, notes = lax.platform_dependent(x, cpu=noted, default=xla)
    return y, (x, notes)


def _backward(
    geometry: Geometry, residuals: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array]:
    def ours(x: jax.Array, notes: jax.Array, gradient: jax.Array) -> jax.Array:
        return _given_back(notes, gradient, x.shape[1:3], geometry)

    def xla(x: jax.Array, notes: jax.Array, gradient: jax.Array) -> jax.Array:
        return jax.vjp(lambda x: _windowed(x, geometry), x)[1](gradient)[0]

    return (lax.platform_dependent(*residuals, gradient, cpu=ours, default=xla),)


_max_pool.defvjp(_forward, _backward)


def _windowed(x: jax.Array, geometry: Geometry) -> jax.Array:
    lowest = np.array(-np.inf, x.dtype)  # a constant: a traced one would hide the maximum
    pads = ((0, 0), *geometry.pads, (0, 0))
    window, strides = (1, *geometry.size, 1), (1, *geometry.strides, 1)
    return lax.reduce_window(x, lowest, lax.max, window, strides, pads)


def _sliced(x: jax.Array, geometry: Geometry) -> jax.Array:
    return functools.reduce(jnp.maximum, _elements(x, geometry))


def _noted(x: jax.Array, geometry: Geometry) -> tuple[jax.Array, jax.Array]:
    """The maximum of each window, and which of its elements is the first to reach it."""
    best, *others = _elements(x, geometry)
    notes = jnp.zeros_like(best, _NOTE)
    for number, element in enumerate(others, 1):
        notes = jnp.where(element > best, _NOTE(number), notes)
        best = jnp.maximum(best, element)
    # Without the barrier XLA would find the notes anew for every pixel of the gradient.
    return best, lax.optimization_barrier(notes)


def _elements(x: jax.Array, geometry: Geometry) -> list[jax.Array]:
    """The first elements of all windows (N, H', W', C), their second ones, and so on."""
    (height, width), (down, across), pads = geometry
    if any(map(any, pads)):
        lowest = np.array(-np.inf, x.dtype)
        x = lax.pad(x, lowest, ((0, 0, 0), *((*pad, 0) for pad in pads), (0, 0, 0)))
    images, rows, columns, channels = x.shape
    rows = (rows - height) // down * down + 1
    columns = (columns - width) // across * across + 1
    # By `lax`: of an index with steps older JAX makes a gather.
    return [
        lax.slice(x, (0, i, j, 0), (images, i + rows, j + columns, channels), (1, down, across, 1))
        for i, j in itertools.product(range(height), range(width))
    ]


def _given_back(
    notes: jax.Array, gradient: jax.Array, image: Sequence[int], geometry: Geometry
) -> jax.Array:
    """What each pixel gets: the gradient of the windows whose notes name it.

    A pixel at row q * down + r of the padded image is element r + j * down of window q - j, for
    each j >= 0 for which a window has such an element; columns alike.
    """
    n, _, _, channels = notes.shape
    down, across = geometry.strides
    (tall, wide) = blocks = [
        -(-(pixels + pad[0]) // stride)
        for pixels, pad, stride in zip(image, geometry.pads, geometry.strides, strict=True)
    ]
    steps_down, steps_across = (
        -(-size // stride) for size, stride in zip(geometry.size, geometry.strides, strict=True)
    )
    spread = [
        (steps - 1, block - windows, 0)
        for steps, block, windows in zip(
            (steps_down, steps_across), blocks, notes.shape[1:3], strict=True
        )
    ]
    notes = lax.pad(notes, np.array(_NONE, _NOTE), ((0, 0, 0), *spread, (0, 0, 0)))
    gradient = lax.pad(gradient, np.zeros((), gradient.dtype), ((0, 0, 0), *spread, (0, 0, 0)))
    zero = jnp.zeros((), gradient.dtype)
    total = None
    # Windows in row order, as XLA adds them up. Columns and channels are one axis, so that XLA's
    # loop over them is long and without divisions.
    for i, j in itertools.product(reversed(range(steps_down)), reversed(range(steps_across))):
        above, before = steps_down - 1 - i, steps_across - 1 - j
        seen = (slice(None), slice(above, above + tall), slice(before, before + wide), None)
        rows, columns = _element_numbers(geometry, i, j)
        named = (notes[seen] - columns[:, None]).reshape(n, tall, 1, -1) == rows[:, None]
        given = jnp.broadcast_to(gradient[seen], (n, tall, wide, across, channels))
        share = jnp.where(named, given.reshape(n, tall, 1, -1), zero)
        total = share if total is None else total + share
    assert total is not None, "a window has an element"
    (top, _), (left, _) = geometry.pads
    total = total.reshape(n, tall * down, wide * across, channels)
    return total[:, top : top + image[0], left : left + image[1]]


def _element_numbers(geometry: Geometry, i: int, j: int) -> tuple[np.ndarray, np.ndarray]:
    """Of the elements i strides down, j across: shares (down,), (across,) of their numbers.

    A note less its column's share equals its row's share. Rows and columns beyond the window have
    one that no note gives.
    """
    (height, width), (down, across), _ = geometry
    rows, columns = np.arange(down) + i * down, np.arange(across) + j * across
    most = np.iinfo(_NOTE).max
    return (
        np.where(rows < height, rows * width, most).astype(_NOTE),
        np.where(columns < width, columns, most).astype(_NOTE),
    )
