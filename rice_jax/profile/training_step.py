"""FLOPs of a training step, in the `formula` convention."""

from collections.abc import Iterable, Mapping, Sequence

import jax.numpy as jnp

from rice_jax.graph.equations import sources
from rice_jax.graph.loops import Opened
from rice_jax.graph.trace import Equation, Value
from rice_jax.profile.rules import Flops

_STOPS = frozenset({"stop_gradient", "argmax", "argmin", "sign", "floor", "ceil", "round"})
"""What lets no gradient through, but in a function that says otherwise (`jax.custom_vjp`)."""


def training_flops(
    opening: Opened, members: Mapping[str, Mapping[Equation, Flops]], learned: Iterable[Value]
) -> dict[str, int]:
    """FLOPs of one forward and backward pass by row: convolutions and dense products alone.

    The gradient of a product by one of its operands takes as many multiply-adds as the product:
    a kernel's that learns, and an input's that depends on what learns. So the first layer that
    learns has no gradient by its input, and a frozen one none by its kernel. What the forward pass
    does again under `remat`, the optimiser and the loss are left out.

    Args:
        opening: the opened trace.
        members: the equations of each row, by its path, and what each costs once.
        learned: the variables that are trained.
    """
    reached = _reached(opening.trace.equations, learned)
    counts = {}
    for path, row in members.items():
        total = 0
        for equation, count in row.items():
            gradients = sum(value in reached for value in equation.inputs)
            total += count.formula * opening.times[equation] * (1 + gradients)
        counts[path] = total
    return counts


def _reached(equations: Sequence[Equation], learned: Iterable[Value]) -> set[Value]:
    """The values through which a gradient reaches what is learned."""
    reached = set(learned)
    for equation in equations:
        stops = equation.name in _STOPS and not equation.derived_from
        if not stops:
            reached.update(
                value
                for value in equation.outputs
                if jnp.issubdtype(value.dtype, jnp.inexact)
                and not reached.isdisjoint(equation.derived_from or sources(equation, value))
            )
    return reached
