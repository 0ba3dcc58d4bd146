"""Bounds of functions of a number, and of powers by another one."""

import math

import jax
import jax.numpy as jnp
from jax import lax

from rice_jax.graph.trace import Equation
from rice_jax.inspection.interval import (
    FUNCTION,
    SMALLEST,
    Interval,
    Rule,
    certain,
    clipped,
    off_by,
    roundoff,
    widened,
)


def inverse(a: Interval) -> Interval:
    """1 / a; unknown where a may be 0."""
    apart = ((a.lo > 0) | (a.hi < 0)) & (a.magnitude < 1 / SMALLEST)
    lo = jnp.where(apart, 1 / a.hi, -jnp.inf)
    hi = jnp.where(apart, 1 / a.lo, jnp.inf)
    return widened(lo, hi, 0.0)


def _integer_pow(equation: Equation, a: Interval) -> Interval:
    return power(equation, a, equation.params["y"])


def _square(equation: Equation, a: Interval) -> Interval:
    return power(equation, a, 2)


def power(equation: Equation, a: Interval, exponent: int) -> Interval:
    """What `equation` makes of a multiplied with itself, `exponent` times a."""
    if exponent < 0:
        a, exponent = inverse(a), -exponent
    lo, hi = a.lo, a.hi
    if exponent % 2 == 0:
        lo, hi = _nearest(a), a.magnitude
    lo, hi = lax.integer_pow(lo, exponent), lax.integer_pow(hi, exponent)
    error = 2 * exponent * roundoff(equation.outputs[0].dtype)
    bound = off_by(error, lo, hi, least=jnp.where(a.magnitude == 0, 0.0, SMALLEST))
    return clipped(bound, 0.0, math.inf) if exponent % 2 == 0 else bound


def _abs(equation: Equation, a: Interval) -> Interval:
    return certain(_nearest(a), a.magnitude)


def _sign(equation: Equation, a: Interval) -> Interval:
    known = jnp.isfinite(a.lo) & jnp.isfinite(a.hi)  # else it may be NaN, whose sign is NaN
    return certain(jnp.where(known, jnp.sign(a.lo), -jnp.inf), jnp.sign(a.hi))


def _nearest(a: Interval) -> jax.Array:
    """Lower bound of the absolute value."""
    return jnp.where((a.lo <= 0) & (a.hi >= 0), 0.0, jnp.minimum(abs(a.lo), abs(a.hi)))


def _function(
    least: float = -math.inf,
    most: float = math.inf,
    *,
    above: float = -math.inf,
    near_zero: bool = True,
    falls: bool = False,
) -> Rule:
    """A rule for a monotone function with values in [least, most] of arguments > `above`.

    Its error is relative, and absolute as well where `near_zero` says that it comes near to 0.
    """

    def rule(equation: Equation, a: Interval) -> Interval:
        (at_lo,), (at_hi,) = equation.apply(a.lo), equation.apply(a.hi)
        lo, hi = (at_hi, at_lo) if falls else (at_lo, at_hi)
        defined = (a.lo > above) & jnp.isfinite(a.lo) & jnp.isfinite(a.hi)
        error = FUNCTION + roundoff(equation.outputs[0].dtype)
        absolute = error * near_zero + SMALLEST
        bound = off_by(error, lo, hi, least=jnp.where(defined, absolute, jnp.inf))
        return clipped(bound, least, most)

    return rule


def _pow(equation: Equation, a: Interval, b: Interval) -> Interval:
    """Of a base of 0 or more: monotone in base and exponent, so its ends are at the corners."""
    defined = (a.lo >= 0) & jnp.isfinite(b.hi)
    corners = jnp.stack([jnp.power(x, y) for x in (a.lo, a.hi) for y in (b.lo, b.hi)])
    # Where it is exp(y log(x)), it is off by y log(x) roundings: 104, or it is 0 or infinite.
    error = 4 * FUNCTION + roundoff(equation.outputs[0].dtype)
    absolute = jnp.where(defined, SMALLEST, jnp.inf)
    bound = off_by(error, corners.min(0), corners.max(0), least=absolute)
    return clipped(bound, 0.0, math.inf)


def _wave(equation: Equation, a: Interval) -> Interval:
    """Sine and cosine."""
    one = jnp.where(jnp.isfinite(a.lo) & jnp.isfinite(a.hi), 1.0, jnp.inf)
    return off_by(FUNCTION + roundoff(equation.outputs[0].dtype), -one, one)


FUNCTIONS: dict[str, Rule] = {
    "integer_pow": _integer_pow,
    "square": _square,
    "abs": _abs,
    "sign": _sign,
    "exp": _function(0.0, near_zero=False),
    "exp2": _function(0.0, near_zero=False),
    "expm1": _function(-1.0),
    "log": _function(above=0.0),
    "log1p": _function(above=-1.0),
    "tanh": _function(-1.0, 1.0),
    "sinh": _function(),
    "asinh": _function(),
    "atan": _function(),
    "cbrt": _function(),
    **dict.fromkeys(("sin", "cos"), _wave),
    "pow": _pow,
    "logistic": _function(0.0, 1.0),
    "erf": _function(-1.0, 1.0),
    "erfc": _function(0.0, 2.0, falls=True),
    "sqrt": _function(0.0, above=-SMALLEST, near_zero=False),
    "rsqrt": _function(0.0, above=0.0, near_zero=False, falls=True),
}
"""By primitive."""
