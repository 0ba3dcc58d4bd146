"""What each primitive does to bounds. A primitive that is in no table here bounds nothing."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.lax import GatherScatterMode

from rice_jax.graph.primitives import ARRANGES, RENAMES
from rice_jax.graph.trace import Equation, Value
from rice_jax.inspection.interval import (
    FUNCTION,
    SMALLEST,
    UNIT,
    Interval,
    certain,
    gamma,
    roundoff,
    unknown,
    widened,
)
from rice_jax.inspection.summands import SUMS, summands

Rule = Callable[..., Interval | list[Interval]]

_INSIDE = (GatherScatterMode.CLIP, GatherScatterMode.PROMISE_IN_BOUNDS)
"""Gathers that read a place of their operand, whatever they are told."""
_AT_PLACES = ("dynamic_slice", "gather")


def _on_ends(equation: Equation, *operands: Interval) -> Interval | list[Interval]:
    """Operations without rounding that never fall as an operand rises: done on each end."""
    if all(operand.exact for operand in operands):
        known = equation.apply(*(operand.lo for operand in operands))
        return _one_or_all([Interval(array, array) for array in known])
    terms = max(operand.terms for operand in operands)
    lows = equation.apply(*(operand.lo.astype(jnp.float32) for operand in operands))
    highs = equation.apply(*(operand.hi.astype(jnp.float32) for operand in operands))
    return _one_or_all([certain(*ends, terms) for ends in zip(lows, highs, strict=True)])


def _at_places(equation: Equation, operand: Interval, *places: Interval) -> Interval:
    """Slices and gathers; of unknown places what is read lies within the ends of all places."""
    low, high = operand.lo, operand.hi
    known = [place.lo for place in places]
    if not all(place.exact for place in places):
        if not _reads_inside(equation):
            return unknown(equation.outputs[0].shape)
        sizes = zip(equation.params["slice_sizes"], low.shape, strict=True)
        axes = tuple(axis for axis, (read, size) in enumerate(sizes) if read < size)
        low = jnp.broadcast_to(low.min(axes, keepdims=True), low.shape)
        high = jnp.broadcast_to(high.max(axes, keepdims=True), high.shape)
        known = [jnp.zeros(value.shape, value.dtype) for value in equation.inputs[1:]]
    (low,) = equation.apply(low, *known)
    (high,) = equation.apply(high, *known)
    return certain(low, high)


def _reads_inside(equation: Equation) -> bool:
    return equation.params.get("mode", GatherScatterMode.CLIP) in _INSIDE


def bounding(equation: Equation) -> Sequence[Value]:
    """The operands whose bounds a result needs: not the places, where each is one of the first."""
    of_places = equation.name in _AT_PLACES and _reads_inside(equation)
    return equation.inputs[:1] if of_places else equation.inputs


def _same(equation: Equation, *operands: Interval) -> Interval | list[Interval]:
    return _one_or_all(list(operands))


def _add(equation: Equation, a: Interval, b: Interval) -> Interval:
    # Relative to both and not to their sum: a compiler may start a convolution's sum with its
    # bias. With a zero it is exact.
    terms = a.terms + b.terms
    error = gamma(terms) + roundoff(equation.outputs[0].dtype) - UNIT
    rounds = (a.magnitude > 0) & (b.magnitude > 0)
    at_lo, at_hi = (
        jnp.where(rounds, jnp.abs(one) + jnp.abs(other), 0.0)
        for one, other in ((a.lo, b.lo), (a.hi, b.hi))
    )
    return _off_by(error, a.lo + b.lo, a.hi + b.hi, (at_lo, at_hi), terms=terms)


def _sub(equation: Equation, a: Interval, b: Interval) -> Interval:
    return _add(equation, a, _negative(b))


def _negative(a: Interval) -> Interval:
    lo = -a.hi
    return Interval(lo, lo if a.exact else -a.lo, a.terms)


def _neg(equation: Equation, a: Interval) -> Interval:
    return _negative(a)


def _mul(equation: Equation, a: Interval, b: Interval) -> Interval:
    if equation.inputs[0] is equation.inputs[1]:
        return _power(equation, a, 2)
    return _product(a, b, 2 * roundoff(equation.outputs[0].dtype))


def _product(a: Interval, b: Interval, error: float) -> Interval:
    corners = [x * y for x in (a.lo, a.hi) for y in (b.lo, b.hi)]
    nothing = (a.magnitude == 0) | (b.magnitude == 0)
    lo, hi = _least(corners), _most(corners)
    bound = _off_by(error, lo, hi, least=jnp.where(nothing, 0.0, SMALLEST))
    # It has the sign that its factors give it, however it rounds.
    return _clipped(bound, jnp.where(lo >= 0, 0.0, -math.inf), jnp.where(hi <= 0, 0.0, math.inf))


def _div(equation: Equation, a: Interval, b: Interval) -> Interval:
    return _product(a, _inverse(b), 4 * roundoff(equation.outputs[0].dtype))


def _inverse(a: Interval) -> Interval:
    apart = ((a.lo > 0) | (a.hi < 0)) & (a.magnitude < 1 / SMALLEST)
    lo = jnp.where(apart, 1 / a.hi, -jnp.inf)
    hi = jnp.where(apart, 1 / a.lo, jnp.inf)
    return widened(lo, hi, 0.0)


def _integer_pow(equation: Equation, a: Interval) -> Interval:
    return _power(equation, a, equation.params["y"])


def _square(equation: Equation, a: Interval) -> Interval:
    return _power(equation, a, 2)


def _power(equation: Equation, a: Interval, exponent: int) -> Interval:
    if exponent < 0:
        a, exponent = _inverse(a), -exponent
    lo, hi = a.lo, a.hi
    if exponent % 2 == 0:
        lo, hi = _nearest(a), a.magnitude
    lo, hi = lax.integer_pow(lo, exponent), lax.integer_pow(hi, exponent)
    error = 2 * exponent * roundoff(equation.outputs[0].dtype)
    bound = _off_by(error, lo, hi, least=jnp.where(a.magnitude == 0, 0.0, SMALLEST))
    return _clipped(bound, 0.0, math.inf) if exponent % 2 == 0 else bound


def _abs(equation: Equation, a: Interval) -> Interval:
    return certain(_nearest(a), a.magnitude)


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
        bound = _off_by(error, lo, hi, least=jnp.where(defined, absolute, jnp.inf))
        return _clipped(bound, least, most)

    return rule


def _clipped(a: Interval, least: Any, most: Any) -> Interval:
    """Tightened to the function's values, except where nothing is known."""
    finite = jnp.isfinite(a.lo) & jnp.isfinite(a.hi)
    return Interval(
        jnp.where(finite, jnp.clip(a.lo, least, most), a.lo),
        jnp.where(finite, jnp.clip(a.hi, least, most), a.hi),
    )


def _off_by(
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


def _sum(equation: Equation, a: Interval) -> Interval:
    terms = summands(equation)
    (lo,), (hi,) = (equation.apply(end) for end in (a.lo, a.hi))
    (at_lo,), (at_hi,) = (equation.apply(jnp.abs(end)) for end in (a.lo, a.hi))
    # The net's error, which XLA's CPU backend rounds to a short type after each term, and that of
    # the sums here, whose sizes are themselves rounded.
    unit = roundoff(equation.outputs[0].dtype)
    error = (gamma(terms, unit) + gamma(terms)) * (1 + 2 * gamma(terms)) + unit
    return _off_by(error, lo, hi, (at_lo, at_hi))


def _greater(equation: Equation, a: Interval, b: Interval) -> Interval:
    """From 1 where it is certain to 0 where it is excluded; a truth value is a number here."""
    # Which of > and >= is meant matters to no bound: it may only cost an end that is met.
    lo, hi = a.lo > b.hi, a.hi >= b.lo
    return Interval(lo.astype(jnp.float32), hi.astype(jnp.float32))


def _less(equation: Equation, a: Interval, b: Interval) -> Interval:
    return _greater(equation, b, a)


def _unequal(equation: Equation, a: Interval, b: Interval) -> Interval:
    apart = (a.lo > b.hi) | (b.lo > a.hi)
    same = (a.lo == a.hi) & (b.lo == b.hi) & (a.lo == b.lo)
    return Interval(apart.astype(jnp.float32), (~same).astype(jnp.float32))


def _equal(equation: Equation, a: Interval, b: Interval) -> Interval:
    return _not(equation, _unequal(equation, a, b))


def _and(equation: Equation, a: Interval, b: Interval) -> Interval:
    """Of truth values, as the next two: whole numbers have no bounds but where they are known."""
    (a_lo, a_hi), (b_lo, b_hi) = _truth(a), _truth(b)
    return Interval(jnp.minimum(a_lo, b_lo), jnp.minimum(a_hi, b_hi))


def _or(equation: Equation, a: Interval, b: Interval) -> Interval:
    (a_lo, a_hi), (b_lo, b_hi) = _truth(a), _truth(b)
    return Interval(jnp.maximum(a_lo, b_lo), jnp.maximum(a_hi, b_hi))


def _not(equation: Equation, a: Interval) -> Interval:
    lo, hi = _truth(a)
    return Interval(1 - hi, 1 - lo)


def _truth(a: Interval) -> tuple[jax.Array, jax.Array]:
    """The ends as numbers, also of what is known and so has its own type."""
    return a.lo.astype(jnp.float32), a.hi.astype(jnp.float32)


def _select(equation: Equation, which: Interval, *cases: Interval) -> Interval:
    lows = [case.lo.astype(jnp.float32) for case in cases]
    highs = [case.hi.astype(jnp.float32) for case in cases]
    if which.exact:
        return certain(lax.select_n(which.lo, *lows), lax.select_n(which.lo, *highs))
    lo, hi = _least(lows), _most(highs)
    if len(cases) == 2:
        no, yes = which.hi == 0, which.lo == 1
        lo = jnp.where(no, lows[0], jnp.where(yes, lows[1], lo))
        hi = jnp.where(no, highs[0], jnp.where(yes, highs[1], hi))
    return certain(lo, hi)


def _clamp(equation: Equation, least: Interval, a: Interval, most: Interval) -> Interval:
    # Step by step, so that a value of which nothing is known stays one.
    above = certain(jnp.maximum(a.lo, least.lo), jnp.maximum(a.hi, least.hi))
    return certain(jnp.minimum(above.lo, most.lo), jnp.minimum(above.hi, most.hi))


def _convert(equation: Equation, a: Interval) -> Interval:
    source, target = equation.inputs[0].dtype, equation.outputs[0].dtype
    if not jnp.issubdtype(target, jnp.floating):  # of an unknown number: whether it is 0
        return Interval(jnp.zeros_like(a.lo), jnp.ones_like(a.lo))
    if not jnp.issubdtype(source, jnp.floating):
        if a.exact:  # numbers above 2^24 are rounded
            known = a.lo.astype(jnp.float32)
            return _off_by(roundoff(target), known, known)
        return a
    if jnp.finfo(target).eps <= jnp.finfo(source).eps:
        return a
    return _off_by(roundoff(target), a.lo, a.hi)


def _reduce_precision(equation: Equation, a: Interval) -> Interval:
    error = 2.0 ** -equation.params["mantissa_bits"]
    exponent = equation.params["exponent_bits"] >= np.finfo(np.float32).nexp
    return _off_by(error, a.lo, a.hi) if exponent else unknown(a.lo.shape)


def _one_or_all(results: list[Interval]) -> Interval | list[Interval]:
    return results[0] if len(results) == 1 else results


def _least(arrays: list[jax.Array]) -> jax.Array:
    return _folded(jnp.minimum, arrays)


def _most(arrays: list[jax.Array]) -> jax.Array:
    return _folded(jnp.maximum, arrays)


def _folded(merge: Any, arrays: list[jax.Array]) -> jax.Array:
    result = arrays[0]
    for array in arrays[1:]:
        result = merge(result, array)
    return result


_MONOTONE = ARRANGES | {
    *("slice", "pad", "concatenate", "split", "max", "min", "relu", "floor", "ceil", "round"),
    *("reduce_max", "reduce_min", "reduce_window_max", "reduce_window_min"),
}

RULES: dict[str, Rule] = {
    **dict.fromkeys(_MONOTONE, _on_ends),
    **dict.fromkeys(RENAMES, _same),
    **dict.fromkeys(_AT_PLACES, _at_places),
    "add": _add,
    "sub": _sub,
    "neg": _neg,
    "mul": _mul,
    "div": _div,
    "integer_pow": _integer_pow,
    "square": _square,
    "abs": _abs,
    "exp": _function(0.0, near_zero=False),
    "exp2": _function(0.0, near_zero=False),
    "expm1": _function(-1.0),
    "log": _function(above=0.0),
    "log1p": _function(above=-1.0),
    "tanh": _function(-1.0, 1.0),
    "logistic": _function(0.0, 1.0),
    "erf": _function(-1.0, 1.0),
    "erfc": _function(0.0, 2.0, falls=True),
    "sqrt": _function(0.0, above=-SMALLEST, near_zero=False),
    "rsqrt": _function(0.0, above=0.0, near_zero=False, falls=True),
    **dict.fromkeys(SUMS, _sum),
    **dict.fromkeys(("gt", "ge"), _greater),
    **dict.fromkeys(("lt", "le"), _less),
    "ne": _unequal,
    "eq": _equal,
    "and": _and,
    "or": _or,
    "not": _not,
    "select_n": _select,
    "clamp": _clamp,
    "convert_element_type": _convert,
    "reduce_precision": _reduce_precision,
}
