"""Bounds of convolutions and dot products, in centre and radius.

For x in c +- r the exact sum of w x lies in (sum of w c) +- (sum of |w| r): two convolutions bound
every pixel at once, those at a padded border by the taps that they really have.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from rice_jax.graph.trace import Equation
from rice_jax.inspection.interval import SMALLEST, UNIT, Interval, gamma, roundoff, widened
from rice_jax.inspection.summands import summands

_OPERAND_ROUNDOFF = {"cpu": 0.0, "gpu": 2.0**-10, "tpu": 2.0**-8}
"""How a convolution rounds its float32 operands at JAX's default precision: not at all, to TF32,
to bfloat16. A tensor core cuts off what TF32 has no bits for, unless its kernel rounded to the
nearest before: that is twice as far off (triton-lang/triton#9295 adds the rounding as a choice)."""

_Bilinear = Callable[[jax.Array, jax.Array], jax.Array]


def backend_roundoff(equation: Equation) -> float:
    """Relative rounding of what a convolution or dot product multiplies on JAX's backend in use.

    It goes by the precision that the operation was traced with, jax_default_matmul_precision
    included: a GPU takes float32 as it is at the highest. Infinite for an algorithm of its own
    (`jax.lax.DotAlgorithm`), which may add up in float16.
    """
    precision, backend = equation.params.get("precision"), jax.default_backend()
    if isinstance(precision, lax.DotAlgorithm | lax.DotAlgorithmPreset):
        return math.inf
    if backend == "gpu" and precision == (lax.Precision.HIGHEST, lax.Precision.HIGHEST):
        return 0.0
    return _OPERAND_ROUNDOFF.get(backend, 2.0**-8)


def product(
    operand_roundoff: float | None, equation: Equation, x: Interval, w: Interval
) -> Interval:
    """Bounds of a conv_general_dilated of any stride, dilation, groups, transposed; or of a
    dot_general."""
    terms = summands(equation)
    dtype = equation.outputs[0].dtype
    short = backend_roundoff(equation) if operand_roundoff is None else operand_roundoff
    # The net's error, in units of sum |w| |x|: operands rounded, products summed in float32 at
    # least and in any order; and that of the centre below.
    net = (1 + short) ** 2 * (1 + gamma(terms)) - 1
    error = net + gamma(terms)
    apply = _on_float32(equation)
    centre_x, radius_x = _centred(x)
    centre_w, radius_w = _centred(w)
    size_x, size_w = jnp.abs(centre_x) + radius_x, jnp.abs(centre_w) + radius_w
    centre = apply(centre_x, centre_w)
    radius = apply(_positive(radius_x + error * size_x), _positive(size_w))
    if not w.exact:
        radius += apply(_positive(jnp.abs(centre_x)), _positive(radius_w))
    radius *= 1 + 2 * gamma(terms)
    # The result rounded to its own type, if that is a shorter one.
    radius += (roundoff(dtype) - UNIT) * (jnp.abs(centre) + radius)
    return widened(centre - radius, centre + radius, 0.0, terms)


def _on_float32(equation: Equation) -> _Bilinear:
    """The operation itself on float32 arrays, whatever the net's own type is."""
    wanted: dict[str, Any] = {"precision": None, "preferred_element_type": np.dtype(np.float32)}
    params = equation.params | wanted
    return functools.partial(equation.primitive.bind, **params)


def _centred(interval: Interval) -> tuple[jax.Array, jax.Array]:
    """Centre and radius of an interval, the radius rounded up."""
    if interval.exact:
        return interval.lo, jnp.zeros_like(interval.lo)
    centre = 0.5 * interval.lo + 0.5 * interval.hi
    radius = jnp.maximum(interval.hi - centre, centre - interval.lo)
    return centre, radius * (1 + 4 * UNIT)


def _positive(size: jax.Array) -> jax.Array:
    """Sizes rounded up, so that no product of two underflows but that of zeros."""
    return jnp.where(size == 0, 0.0, size * (1 + 16 * UNIT) + SMALLEST)
