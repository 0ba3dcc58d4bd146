"""Intervals of float32 arrays that stay bounds in spite of rounding.

A bound here holds for the value that the net really computes, not only for the exact one: each
operation widens its result by what the net's arithmetic and the bound's own may be off together.
Rounding errors follow Higham, Accuracy and Stability of Numerical Algorithms (2002), chapter 3:
a sum of n products, in any order, is off by at most gamma_n = n u / (1 - n u) times the sum of
the products' magnitudes.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

UNIT = 2.0**-23
"""Relative error of one float32 operation, twice that of rounding to nearest: a tensor core's
truncating sum, a fused or reordered step stay within it."""
FUNCTION = 2.0**-16
"""Error, relative and absolute, allowed to an approximated function (exp, tanh, rsqrt)."""
SMALLEST = 2.0**-60
"""No end of an interval lies nearer to 0 than this, except at 0: arithmetic on the ends never
underflows, and whatever underflows in the net lies well within it."""

_ROUNDOFF = {"float32": 0.0, "float64": 0.0, "bfloat16": 2.0**-8}
"""What rounding to a result's type adds to `UNIT`, by types that intervals are known for."""


@dataclasses.dataclass(frozen=True)
class Interval:
    """Arrays lo <= hi that the value lies between; where nothing is known, -inf and inf.

    `lo is hi` says that the value is known exactly, and only then its type may be no float.
    """

    lo: jax.Array
    hi: jax.Array
    terms: int = 1
    """How many terms have been summed up: a bias may join the sum before its convolution's."""

    @property
    def exact(self) -> bool:
        """Whether the value is known, not only bounded."""
        return self.lo is self.hi

    @property
    def magnitude(self) -> jax.Array:
        """Upper bound of the absolute value."""
        return jnp.maximum(jnp.abs(self.lo), jnp.abs(self.hi))


Rule = Callable[..., Interval | list[Interval]]
"""What an equation's results are, of the intervals of its operands."""


def point(array: Any) -> Interval:
    """The interval of a known array. Floats become float32, widened where that rounds them."""
    array = np.asarray(array)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        known = jax.device_put(array)
        return Interval(known, known)
    single = array.astype(np.float32)
    near_zero = _near_zero(single)
    # Not by `jnp.asarray`, for which JAX compiles a program for each shape.
    known = jax.device_put(
        np.where(near_zero, np.copysign(np.float32(SMALLEST / 2), single), single)
    )
    if np.array_equal(single.astype(array.dtype), array) and not near_zero.any():
        return Interval(known, known)
    return widened(known, known, UNIT * jnp.abs(known))


def _near_zero(array: np.ndarray) -> np.ndarray:
    # By the bits: a processor set to ignore subnormal numbers takes them for 0.
    bits = array.view(np.uint32) & np.uint32(0x7FFFFFFF)
    return (bits > 0) & (bits < np.float32(SMALLEST).view(np.uint32))


def unknown(shape: tuple[int, ...]) -> Interval:
    """The interval of an array that nothing is known about."""
    infinite = jnp.full(shape, jnp.inf, jnp.float32)
    return Interval(-infinite, infinite)


def known_for(dtype: Any) -> bool:
    """Whether rounding to this type, which may be that of keys, is accounted for."""
    return dtype.name in _ROUNDOFF


def roundoff(dtype: Any) -> float:
    """Relative error of one operation whose result has this type."""
    return UNIT + _ROUNDOFF[jnp.dtype(dtype).name]


def gamma(terms: int, unit: float = UNIT) -> float:
    """Relative error of a sum of `terms` products; infinite where rounding may eat all of it."""
    # Eight more for what a compiler may multiply into the terms.
    share = (terms + 8) * unit
    return share / (1 - share) if share < 1 else float("inf")


def widened(
    lo: jax.Array, hi: jax.Array, margin: Any, terms: int = 1, *, above: Any = None
) -> Interval:
    """The interval [lo - margin, hi + margin], its own rounding included.

    `above` is the upper end's margin, where it has another.

    Ends too near to zero move outward. Where an end is infinite or no number nothing is known at
    all: such a value may be NaN in the net, and no proof may rest on it.
    """
    # Each of these operations, and the caller's last one, is off by at most UNIT / 2. Where all is
    # zero nothing is added.
    above = margin if above is None else above
    lo, hi = lo - margin * (1 + 4 * UNIT), hi + above * (1 + 4 * UNIT)
    lo, hi = lo - 4 * UNIT * jnp.abs(lo), hi + 4 * UNIT * jnp.abs(hi)
    lo, hi = -_upward(-lo), _upward(hi)
    return certain(lo, hi, terms)


def _upward(end: jax.Array) -> jax.Array:
    """An upper end moved out of the gap about zero."""
    moved = jnp.where(end > 0, SMALLEST, 0.0)
    return jnp.where(jnp.abs(end) < SMALLEST, moved, end)


def certain(lo: jax.Array, hi: jax.Array, terms: int = 1) -> Interval:
    """The interval where both ends are finite, and nothing known elsewhere."""
    finite = jnp.isfinite(lo) & jnp.isfinite(hi)
    return Interval(jnp.where(finite, lo, -jnp.inf), jnp.where(finite, hi, jnp.inf), terms)


def off_by(
    error: float,
    lo: jax.Array,
    hi: jax.Array,
    sizes: tuple[jax.Array, jax.Array] | None = None,
    *,
    least: Any = 0.0,
    terms: int = 1,
) -> Interval:
    """The interval of what lies from lo to hi, and is off by `error` of its size and by `least`.

    Each end is off by its own size, not by the larger one's: x - error |x| rises with x where the
    error is below 1. So what a norm divides by, a variance and a small number, stays above 0.

    Args:
        sizes: what the error is relative to at lo and at hi: without it their absolute values.
    """
    at_lo, at_hi = sizes or (jnp.abs(lo), jnp.abs(hi))
    if not error < 1:
        at_lo = at_hi = at_lo + at_hi
    return widened(lo, hi, error * at_lo + least, terms, above=error * at_hi + least)


def clipped(a: Interval, least: Any, most: Any) -> Interval:
    """Tightened to the function's values, except where nothing is known."""
    finite = jnp.isfinite(a.lo) & jnp.isfinite(a.hi)
    return Interval(
        jnp.where(finite, jnp.clip(a.lo, least, most), a.lo),
        jnp.where(finite, jnp.clip(a.hi, least, most), a.hi),
    )
