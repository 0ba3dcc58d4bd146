"""The gradients of a depthwise convolution, tap by tap: each channel by a kernel of its own.

XLA's CPU backend writes them as convolutions with as many groups as channels, and gives neither to
oneDNN. A tap is one multiplication of whole maps here, which are as long as vector registers like.
"""

import itertools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from jax import lax

from rice_jax.ops.geometry import Geometry
from rice_jax.ops.manual_axes import varying_like


def depthwise_input_gradient(
    gradient: jax.Array, kernel: jax.Array, image: tuple[int, int], geometry: Geometry
) -> jax.Array:
    """Gradient (N, H, W, C) of the x of a depthwise convolution of x.

    A convolution of the gradient, with as many zeros between its pixels as the stride skips, by
    the kernel turned round.

    Args:
        gradient: (N, H', W', C), that of the convolution's result.
        kernel: (Kh, Kw, 1, C).
        image: height and width of x.
        geometry: the convolution's window, strides and padding; no padding is negative.
    """
    pads = []
    for axis, (size, stride, (low, _)) in enumerate(zip(*geometry, strict=True)):
        before = size - 1 - low
        windows = (gradient.shape[1 + axis] - 1) * stride + 1
        pads.append((before, image[axis] + size - 1 - before - windows, stride - 1))
    spread = lax.pad(gradient, jnp.zeros((), gradient.dtype), ((0, 0, 0), *pads, (0, 0, 0)))
    whole = Geometry(geometry.size, (1, 1), ((0, 0), (0, 0)))
    total = jnp.zeros((), jnp.promote_types(kernel.dtype, jnp.float32))
    weights = kernel[::-1, ::-1].astype(total.dtype).reshape(-1, kernel.shape[3])
    for seen, weight in zip(_seen(spread, image, whole), weights, strict=True):
        total += seen * weight
    return total.astype(gradient.dtype)


def depthwise_weight_gradient(x: jax.Array, gradient: jax.Array, geometry: Geometry) -> jax.Array:
    """Gradient (Kh, Kw, 1, C) of the kernel of a depthwise convolution of x.

    Summed over the rows of one image after another, so that the sums stay in a core's cache.

    Args:
        x: (N, H, W, C), what was convolved.
        gradient: (N, H', W', C), that of the convolution's result.
        geometry: the convolution's window, strides and padding; no padding is negative.
    """
    (height, width), channels = geometry.size, x.shape[3]
    wide = jnp.promote_types(x.dtype, jnp.float32)
    x = jnp.pad(x, ((0, 0), *geometry.pads, (0, 0)))

    def add(total: jax.Array, pair: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        image, share = (each[None].astype(wide) for each in pair)
        taps = [(seen * share).sum((0, 1)) for seen in _seen(image, share.shape[1:3], geometry)]
        return total + jnp.stack(taps), None

    start = jnp.zeros((height * width, *gradient.shape[2:]), wide)
    total, _ = lax.scan(add, varying_like(start, x, gradient), (x, gradient))
    return total.sum(1).reshape(height, width, 1, channels).astype(x.dtype)


def _seen(padded: jax.Array, windows: tuple[int, ...], geometry: Geometry) -> Iterator[jax.Array]:
    """For each tap what it meets in so many rows and columns of windows: (N, H', W', C)."""
    (down, across), (rows, columns) = geometry.strides, windows
    for i, j in itertools.product(*map(range, geometry.size)):
        end = (len(padded), i + (rows - 1) * down + 1, j + (columns - 1) * across + 1)
        # By `lax`: of an index with steps older JAX makes a gather.
        yield lax.slice(padded, (0, i, j, 0), (*end, padded.shape[3]), (1, down, across, 1))
