"""Which operation of a net a format lacks: each is tried alone."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from rice_jax.graph.primitives import RENAMES
from rice_jax.graph.trace import Equation, Trace

Converts = Callable[[Callable[..., Any], Sequence[jax.ShapeDtypeStruct]], bool]
"""Whether a function of arrays of these shapes, which returns a list of arrays, has a form."""
Run = Callable[..., list[Any]]
"""Does an equation with its operands, as `Equation.apply`."""


def lacking(traced: Trace, converts: Converts, run: Run = Equation.apply) -> Equation | None:
    """The first operation that cannot be converted by itself; None where each can.

    Of what it gives that alone is asked for which the net reads: formats may have one of the two
    arrays of an operation, and not the other, and what nobody reads is in no file. `run` does an
    operation as the format has it.
    """
    tried = set()
    read = {*traced.outputs, *(value for each in traced.equations for value in each.inputs)}
    for equation in traced.equations:
        given = [value for value in equation.inputs if value.constant is None]
        shapes = [jax.ShapeDtypeStruct(value.shape, value.dtype) for value in given]
        places = [place for place, value in enumerate(equation.outputs) if value in read]
        kind = (equation.name, str(equation.params), str(shapes), str(places))
        if not given or not places or equation.name in RENAMES or kind in tried:
            continue
        tried.add(kind)
        if not converts(_alone(equation, places, run), shapes):
            return equation
    return None


def named(equation: Equation) -> str:
    """The operation with its layer, as it is told: a format may have that of other numbers."""
    values = (*equation.inputs, *equation.outputs)
    of_complex = any(jnp.issubdtype(value.dtype, jnp.complexfloating) for value in values)
    of_these = " of complex numbers" if of_complex else ""
    return f"{equation.layer or 'the net'}: {equation.name}{of_these}"


def _alone(equation: Equation, places: Sequence[int], run: Run) -> Callable[..., Any]:
    """The operation as a function of those of its operands that are no constants.

    It gives those of its arrays that stand at these places.
    """

    def function(*arrays: jax.Array) -> list[jax.Array]:
        left = iter(arrays)
        operands = [
            next(left) if each.constant is None else each.constant for each in equation.inputs
        ]
        results = run(equation, *operands)
        return [results[place] for place in places]

    return function
