"""Max pooling as a maximum of strided slices, which XLA's CPU backend fuses into one loop."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

_FEW_TAPS = 4
"""Up to here windows are slices without differentiation too. XLA sums its count of operations in
float32: many slices more, and that of a deep net is off by more than a millionth."""

Window = tuple[int, int]
Pads = tuple[tuple[int, int], tuple[int, int]]


def max_pool(
    x: jax.Array, window: Sequence[int], strides: Sequence[int], padding: str = "VALID"
) -> jax.Array:
    """Maximum over windows of x (N, H, W, C): (N, H', W', C).

    Values and gradient are those of `lax.reduce_window`: of equal maxima the first in row order
    gets the gradient. On CPU both are strided slices, for `reduce_window` and its gradient
    (select-and-scatter) run on one thread there; elsewhere they are XLA's own.

    Args:
        x: floats.
        window: height and width.
        strides: how far the window moves, down and across.
        padding: 'VALID' or 'SAME'.
    """
    pads = lax.padtype_to_pads(x.shape[1:3], tuple(window), tuple(strides), padding)
    (top, bottom), (left, right) = pads
    return _max_pool(x, tuple(window), tuple(strides), ((top, bottom), (left, right)))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _max_pool(x: jax.Array, window: Window, strides: Window, pads: Pads) -> jax.Array:
    if window[0] * window[1] > _FEW_TAPS:
        return _windowed(x, window, strides, pads)
    return _forward_pool(x, window, strides, pads)


def _forward_pool(x: jax.Array, window: Window, strides: Window, pads: Pads) -> jax.Array:
    return lax.platform_dependent(
        x,
        cpu=functools.partial(_sliced, window=window, strides=strides, pads=pads),
        default=functools.partial(_windowed, window=window, strides=strides, pads=pads),
    )


def _forward(
    x: jax.Array, window: Window, strides: Window, pads: Pads
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    y = _forward_pool(x, window, strides, pads)
    return y, (x, y)


def _backward(
    window: Window,
    strides: Window,
    pads: Pads,
    residuals: tuple[jax.Array, jax.Array],
    gradient: jax.Array,
) -> tuple[jax.Array]:
    x, y = residuals
    share = functools.partial(_shares, window=window, strides=strides, pads=pads)
    scatter = functools.partial(_scattered, window=window, strides=strides, pads=pads)
    return (lax.platform_dependent(x, y, gradient, cpu=share, default=scatter),)


_max_pool.defvjp(_forward, _backward)


def _windowed(x: jax.Array, window: Window, strides: Window, pads: Pads) -> jax.Array:
    lowest = np.array(-np.inf, x.dtype)  # a constant: a traced one would hide the maximum
    return lax.reduce_window(
        x, lowest, lax.max, (1, *window, 1), (1, *strides, 1), ((0, 0), *pads, (0, 0))
    )


def _sliced(x: jax.Array, window: Window, strides: Window, pads: Pads) -> jax.Array:
    return functools.reduce(jnp.maximum, _taps(x, window, strides, pads))


def _scattered(
    x: jax.Array, y: jax.Array, gradient: jax.Array, window: Window, strides: Window, pads: Pads
) -> jax.Array:
    pool = functools.partial(_windowed, window=window, strides=strides, pads=pads)
    return jax.vjp(pool, x)[1](gradient)[0]


def _shares(
    x: jax.Array, y: jax.Array, gradient: jax.Array, window: Window, strides: Window, pads: Pads
) -> jax.Array:
    """What each pixel of x gets of the gradient: all of it where it is a window's first maximum."""
    given = jnp.zeros(y.shape, bool)
    shares = []
    for tap in _taps(x, window, strides, pads):
        is_maximum = tap == y
        shares.append(jnp.where(is_maximum & ~given, gradient, jnp.zeros_like(gradient)))
        given |= is_maximum
    if window == strides and not any(map(any, pads)):
        return _interleaved(shares, x.shape, window)
    return _summed(shares, x.shape, window, strides, pads)


def _interleaved(shares: list[jax.Array], shape: tuple[int, ...], window: Window) -> jax.Array:
    """The shares of windows that do not overlap, each at its place, 0 in what they leave over."""
    n, rows, columns, channels = shares[0].shape
    height, width = window
    blocks = jnp.stack(shares, axis=3).reshape(n, rows, columns, height, width, channels)
    whole = blocks.transpose(0, 1, 3, 2, 4, 5).reshape(n, rows * height, columns * width, channels)
    rest = (shape[1] - rows * height, shape[2] - columns * width)
    return jnp.pad(whole, ((0, 0), (0, rest[0]), (0, rest[1]), (0, 0)))


def _summed(
    shares: list[jax.Array], shape: tuple[int, ...], window: Window, strides: Window, pads: Pads
) -> jax.Array:
    """The sum of the shares, each moved to its tap and spread by the strides."""
    zero = jnp.zeros((), shares[0].dtype)
    extents = [shape[axis + 1] + sum(pads[axis]) for axis in (0, 1)]
    total = None
    for (i, j), share in zip(_offsets(window), shares, strict=True):
        low = (i, j)
        spread = [
            (
                low[axis],
                extents[axis] - low[axis] - ((share.shape[axis + 1] - 1) * strides[axis] + 1),
                strides[axis] - 1,
            )
            for axis in (0, 1)
        ]
        placed = lax.pad(share, zero, ((0, 0, 0), *spread, (0, 0, 0)))
        total = placed if total is None else total + placed
    assert total is not None, "a window has a tap"
    (top, _), (left, _) = pads
    return total[:, top : top + shape[1], left : left + shape[2]]


def _taps(x: jax.Array, window: Window, strides: Window, pads: Pads) -> list[jax.Array]:
    """What each place of the window sees, in row order: arrays (N, H', W', C)."""
    if any(map(any, pads)):
        lowest = np.array(-np.inf, x.dtype)
        x = lax.pad(x, lowest, ((0, 0, 0), *((*pad, 0) for pad in pads), (0, 0, 0)))
    n, height, width, channels = x.shape
    rows = (height - window[0]) // strides[0] * strides[0] + 1
    columns = (width - window[1]) // strides[1] * strides[1] + 1
    return [
        lax.slice(x, (0, i, j, 0), (n, i + rows, j + columns, channels), (1, *strides, 1))
        for i, j in _offsets(window)
    ]


def _offsets(window: Window) -> list[tuple[int, int]]:
    return [(i, j) for i in range(window[0]) for j in range(window[1])]
