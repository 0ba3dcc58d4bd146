"""How far float rounding alone may move one number that a net gives."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rice_jax.graph import once
from rice_jax.graph.equations import Equation, Value
from rice_jax.graph.primitives import MOVES
from rice_jax.graph.trace import Trace
from rice_jax.inspection.linear import backend_roundoff
from rice_jax.inspection.summands import PRODUCTS, SUMS, summands

CONFIDENCE = 8.0
"""Of sums of independent errors one in 10^13 is larger than this many times the root of the sum of
their squared bounds: 2 exp(-8^2 / 2), Hoeffding 1963, doi 10.2307/2282952."""

_EXACT = MOVES | {
    *("abs", "clamp", "gather", "max", "min", "neg", "relu", "select_n", "sign"),
    *("reduce_max", "reduce_min", "reduce_window_max", "reduce_window_min"),
    *("ceil", "floor", "round", "sort", "select_and_gather_add"),
}


def rounding(
    traced: Trace,
    variables: Any,
    x: Any,
    wanted: Value,
    place: tuple[int, ...],
    *,
    operand_roundoff: float | None = None,
) -> float:
    """What rounding may move `wanted[place]` by, to first order, for this input.

    Each operation's result is off by at most a unit in the last place, a sum of n terms by sqrt(n)
    of them relative to the terms' magnitudes (Higham and Mary 2019, doi 10.1137/18M1226312), and
    each error reaches the number through its derivative. The errors are taken for independent:
    the result is `CONFIDENCE` times the root of the sum of the squares. A function (exp, tanh)
    counts by its last place alone: two nets that are compared compute the same function.

    Args:
        traced: the net's trace.
        variables: its variables.
        x: one input of the traced shape.
        wanted: a value of the trace, of a floating type.
        place: index of one number in it.
        operand_roundoff: relative rounding of what convolutions and dot products multiply; by
            default that of JAX's backend in use, as `map_bounds` has it.

    Raises:
        ValueError, NotImplementedError, TypeError: where an operation has no derivative (a `while`
            loop), or JAX does not find it; where a product goes by an algorithm of its own.
    """
    rounded = [
        (equation, value)
        for equation in traced.needed([wanted])
        for value in equation.outputs
        if equation.name not in _EXACT and jnp.issubdtype(value.dtype, jnp.floating)
    ]
    operands = list(dict.fromkeys(v for equation, _ in rounded for v in equation.inputs))
    results = [value for _, value in rounded]
    short = {
        equation: backend_roundoff(equation) if operand_roundoff is None else operand_roundoff
        for equation, _ in rounded
        if equation.name in PRODUCTS
    }
    if not all(map(math.isfinite, short.values())):
        raise NotImplementedError("products by an algorithm of their own")

    def number(moved: list[jax.Array], variables: Any, x: jax.Array) -> tuple[jax.Array, Any]:
        edits = {value: _by(each) for value, each in zip(results, moved, strict=True)}
        found, *arrays = traced.evaluate(variables, x, [wanted, *operands, *results], edits)
        return found[place], arrays

    def squares(variables: Any, x: jax.Array) -> jax.Array:
        unmoved = [jnp.zeros(value.shape, value.dtype) for value in results]
        slopes, arrays = jax.grad(number, has_aux=True)(unmoved, variables, x)
        known = dict(zip((*operands, *results), arrays, strict=True))
        errors = [
            _error(equation, known, value, short.get(equation, 0.0)) for equation, value in rounded
        ]
        terms = [
            jnp.sum((slope * error).astype(jnp.float32) ** 2)
            for slope, error in zip(slopes, errors, strict=True)
        ]
        return sum(terms, jnp.float32(0))

    return CONFIDENCE * math.sqrt(float(once.jit(squares)(variables, x)))


def _by(moved: jax.Array) -> Any:
    return lambda array: array + moved


def _error(
    equation: Equation, known: dict[Value, Any], value: Value, operand_roundoff: float
) -> jax.Array:
    """What the result of one operation may be off by, element by element."""
    error = jnp.finfo(value.dtype).eps * jnp.abs(known[value])
    if equation.name in (*PRODUCTS, *SUMS):
        (size,) = equation.apply(*(jnp.abs(known[operand]) for operand in equation.inputs))
        # Products are summed in float32 at least, whatever the result is rounded to.
        unit = np.finfo(np.float32).eps if equation.name in PRODUCTS else jnp.finfo(value.dtype).eps
        share = unit * math.sqrt(summands(equation))
        error += (share + 2 * operand_roundoff) * size
    return error
