"""Which operation of a net a format lacks: each is tried alone."""

from collections.abc import Callable, Sequence
from typing import Any

import jax

from rice_jax.graph.primitives import RENAMES
from rice_jax.graph.trace import Equation, Trace

Converts = Callable[[Callable[..., Any], Sequence[jax.ShapeDtypeStruct]], bool]
"""Whether a function of arrays of these shapes, which returns a list of arrays, has a form."""


def lacking(traced: Trace, converts: Converts) -> Equation | None:
    """The first operation that cannot be converted by itself; None where each can."""
    tried = set()
    for equation in traced.equations:
        given = [value for value in equation.inputs if value.constant is None]
        shapes = [jax.ShapeDtypeStruct(value.shape, value.dtype) for value in given]
        kind = (equation.name, str(equation.params), str(shapes))
        if not given or equation.name in RENAMES or kind in tried:
            continue
        tried.add(kind)
        if not converts(_alone(equation), shapes):
            return equation
    return None


def _alone(equation: Equation) -> Callable[..., Any]:
    """The operation as a function of those of its operands that are no constants."""

    def function(*arrays: jax.Array) -> list[jax.Array]:
        left = iter(arrays)
        return equation.apply(
            *(next(left) if each.constant is None else each.constant for each in equation.inputs)
        )

    return function
