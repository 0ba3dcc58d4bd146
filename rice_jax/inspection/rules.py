"""What each primitive does to bounds. A primitive that is in no table here bounds nothing."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.lax import GatherScatterMode

from rice_jax.graph.primitives import ARRANGES, RENAMES
from rice_jax.graph.trace import Equation, Value
from rice_jax.inspection.functions import FUNCTIONS, inverse, power
from rice_jax.inspection.interval import (
    SMALLEST,
    UNIT,
    Interval,
    Rule,
    certain,
    clipped,
    gamma,
    off_by,
    roundoff,
    unknown,
)
from rice_jax.inspection.summands import SUMS, summands

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
    """The operands whose bounds a result needs: not the places, where each is one of the first, nor
    keys, which are no numbers."""
    of_places = equation.name in _AT_PLACES and _reads_inside(equation)
    operands = equation.inputs[:1] if of_places else equation.inputs
    return [each for each in operands if not jnp.issubdtype(each.dtype, jax.dtypes.prng_key)]


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
    return off_by(error, a.lo + b.lo, a.hi + b.hi, (at_lo, at_hi), terms=terms)


def _sub(equation: Equation, a: Interval, b: Interval) -> Interval:
    return _add(equation, a, _negative(b))


def _negative(a: Interval) -> Interval:
    lo = -a.hi
    return Interval(lo, lo if a.exact else -a.lo, a.terms)


def _neg(equation: Equation, a: Interval) -> Interval:
    return _negative(a)


def _mul(equation: Equation, a: Interval, b: Interval) -> Interval:
    if equation.inputs[0] is equation.inputs[1]:
        return power(equation, a, 2)
    return _product(a, b, 2 * roundoff(equation.outputs[0].dtype))


def _product(a: Interval, b: Interval, error: float) -> Interval:
    corners = [x * y for x in (a.lo, a.hi) for y in (b.lo, b.hi)]
    nothing = (a.magnitude == 0) | (b.magnitude == 0)
    lo, hi = _least(corners), _most(corners)
    bound = off_by(error, lo, hi, least=jnp.where(nothing, 0.0, SMALLEST))
    # It has the sign that its factors give it, however it rounds.
    return clipped(bound, jnp.where(lo >= 0, 0.0, -math.inf), jnp.where(hi <= 0, 0.0, math.inf))


def _div(equation: Equation, a: Interval, b: Interval) -> Interval:
    return _product(a, inverse(b), 4 * roundoff(equation.outputs[0].dtype))


def _sum(equation: Equation, a: Interval) -> Interval:
    terms = summands(equation)
    (lo,), (hi,) = (equation.apply(end) for end in (a.lo, a.hi))
    (at_lo,), (at_hi,) = (equation.apply(jnp.abs(end)) for end in (a.lo, a.hi))
    # The net's error, which XLA's CPU backend rounds to a short type after each term, and that of
    # the sums here, whose sizes are themselves rounded.
    unit = roundoff(equation.outputs[0].dtype)
    error = (gamma(terms, unit) + gamma(terms)) * (1 + 2 * gamma(terms)) + unit
    return off_by(error, lo, hi, (at_lo, at_hi))


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
            return off_by(roundoff(target), known, known)
        return a
    if jnp.finfo(target).eps <= jnp.finfo(source).eps:
        return a
    return off_by(roundoff(target), a.lo, a.hi)


def _reduce_precision(equation: Equation, a: Interval) -> Interval:
    error = 2.0 ** -equation.params["mantissa_bits"]
    exponent = equation.params["exponent_bits"] >= np.finfo(np.float32).nexp
    return off_by(error, a.lo, a.hi) if exponent else unknown(a.lo.shape)


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
    **FUNCTIONS,
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
