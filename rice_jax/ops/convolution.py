"""Convolution with XLA's values and gradients, without the slow ways that its CPU backend takes.

On CPU the gradients are `weight_gradient` and `input_gradient`, or those of `depthwise` and of
`small_map`. The forward pass there, but that of small maps, and everything on GPU and TPU, is XLA's
own.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
from jax import lax

from rice_jax.ops import small_map
from rice_jax.ops.depthwise import depthwise_input_gradient, depthwise_weight_gradient
from rice_jax.ops.geometry import NHWC, Geometry, is_empty, lay
from rice_jax.ops.input_gradient import input_gradient
from rice_jax.ops.manual_axes import varying_like
from rice_jax.ops.mode import Mode, mode
from rice_jax.ops.weight_gradient import weight_gradient

_TAPS = 64
"""Of a depthwise kernel at most: each is code of its own."""


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
    """`jax.lax.conv_general_dilated`, fast on CPU; for `flax.linen.Conv(conv_general_dilated=...)`.

    Images (N, H, W, C) and kernels (H, W, I, O) without dilation or a precision asked for, in one
    group or with one for each channel, are convolved here; everything else is left to XLA. Values
    and gradients are equal up to the order of summation. Differentiable in reverse, any number of
    times; not in forward mode.

    Args:
        lhs: what is convolved.
        rhs: the kernel.
        window_strides: steps of the window, one for each spatial axis.
        padding: 'SAME', 'VALID', or (low, high) for each spatial axis.
        lhs_dilation: as in `jax.lax`.
        rhs_dilation: as in `jax.lax`.
        dimension_numbers: as in `jax.lax`.
        **options: what else `jax.lax.conv_general_dilated` takes.
    """
    dilations = (*(lhs_dilation or ()), *(rhs_dilation or ()))
    if mode() is not Mode.PLAIN and _is_ours(lhs, rhs, dilations, dimension_numbers, options):
        geometry = lay(lhs.shape[1:3], rhs.shape[:2], window_strides, padding)
        cropped = min(min(pads) for pads in geometry.pads) < 0
        if not (cropped or rhs.size == 0 or is_empty(lhs, geometry)):
            return _convolve(lhs, varying_like(rhs, lhs), geometry)
    return lax.conv_general_dilated(
        lhs, rhs, window_strides, padding, lhs_dilation, rhs_dilation, dimension_numbers, **options
    )


def conv_where_slow(
    lhs: jax.Array,
    rhs: jax.Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    *args: Any,
    **options: Any,
) -> jax.Array:
    """`conv_general_dilated` where XLA's CPU backend is slower by factors, else `jax.lax`'s.

    That is in groups, and on maps with few windows (`small_map`). For nets of any kind: elsewhere
    it hangs on the sizes which is faster.
    """
    slow = options.get("feature_group_count", 1) != 1 or (
        lhs.ndim == 4
        and small_map.has_few_windows(
            lhs.shape[1:3], lay(lhs.shape[1:3], rhs.shape[:2], window_strides, padding)
        )
    )
    convolve = conv_general_dilated if slow else lax.conv_general_dilated
    return convolve(lhs, rhs, window_strides, padding, *args, **options)


def _is_ours(
    lhs: jax.Array,
    rhs: jax.Array,
    dilations: tuple[int, ...],
    dimension_numbers: Any,
    options: dict[str, Any],
) -> bool:
    if lhs.ndim != 4 or lhs.dtype != rhs.dtype or any(dilation != 1 for dilation in dilations):
        return False
    if options.get("preferred_element_type") not in (None, lhs.dtype):
        return False
    if any(options.get(name) for name in ("precision", "out_sharding")):
        return False
    if options.get("batch_group_count", 1) != 1 or not _is_whole_or_depthwise(
        options.get("feature_group_count", 1), lhs.shape[-1], rhs.shape
    ):
        return False
    return lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers) == NHWC


def _is_whole_or_depthwise(groups: int, channels: int, kernel: tuple[int, ...]) -> bool:
    if groups == 1:
        return True
    return (
        groups == channels and kernel[2:] == (1, channels) and math.prod(kernel) <= _TAPS * channels
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolve(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    if mode() is Mode.INFERENCE and _is_small(x, kernel, geometry):
        # On every platform: what looks for the convolution would not find it in a branch.
        return small_map.padded(x, kernel, geometry)
    return _xla(x, kernel, geometry)


def _forward(
    x: jax.Array, kernel: jax.Array, geometry: Geometry
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    if not _is_small(x, kernel, geometry):
        return _convolve(x, kernel, geometry), (x, kernel)
    ours, xla = (functools.partial(way, geometry=geometry) for way in (small_map.products, _xla))
    return lax.platform_dependent(x, kernel, cpu=ours, default=xla), (x, kernel)


def _backward(
    geometry: Geometry, operands: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = operands

    def ours(x: jax.Array, kernel: jax.Array, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
        image = (x.shape[1], x.shape[2])
        if kernel.shape[2] != x.shape[3]:
            return (
                depthwise_input_gradient(gradient, kernel, image, geometry),
                depthwise_weight_gradient(x, gradient, geometry),
            )
        if _is_small(x, kernel, geometry):
            products = functools.partial(small_map.products, geometry=geometry)
            return jax.vjp(products, x, kernel)[1](gradient)
        return (
            input_gradient(gradient, kernel, image, geometry),
            weight_gradient(x, gradient, geometry),
        )

    def xla(x: jax.Array, kernel: jax.Array, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jax.vjp(lambda x, kernel: _xla(x, kernel, geometry), x, kernel)[1](gradient)

    return lax.platform_dependent(x, kernel, gradient, cpu=ours, default=xla)


_convolve.defvjp(_forward, _backward)


def _is_small(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> bool:
    return kernel.shape[2] == x.shape[3] and small_map.has_few_windows(x.shape[1:3], geometry)


def _xla(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        geometry.strides,
        geometry.pads,
        dimension_numbers=NHWC,
        feature_group_count=x.shape[3] // kernel.shape[2],
    )
