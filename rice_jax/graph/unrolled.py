"""A trace whose loops and branches are written out: for what knows neither."""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from rice_jax.graph.equations import Body, Equation, Value, scanned
from rice_jax.graph.inlining import Inliner
from rice_jax.graph.trace import Trace

_MOST = 10_000
"""Operations that one loop may become."""

Values = tuple[Value, ...]


def unrolled(traced: Trace) -> Trace:
    """The same computation without branches, and without the loops whose length is known.

    A loop's body stands there as often as it runs. Of branches all are computed, and one is taken.
    Loops that run until something holds, and those of more than 10,000 operations, stay.
    """
    if not any(equation.bodies for equation in traced.equations):
        return traced
    writer = _Writer()
    known = writer.write(traced.equations, {})

    def now(value: Value) -> Value:
        return known.get(value, value)

    return dataclasses.replace(
        traced,
        equations=writer.equations,
        outputs=list(map(now, traced.outputs)),
        returned={name: now(value) for name, value in traced.returned.items()},
        logits=traced.logits and now(traced.logits),
        choices={},  # their places are others now
    )


class _Writer:
    """Writes equations one after the other; each time that a body is written its values are new."""

    def __init__(self) -> None:
        self.equations: list[Equation] = []

    def write(self, equations: Sequence[Equation], known: dict[Value, Value]) -> dict[Value, Value]:
        """Append equations that read `known` values in the place of their own; what stands now
        in the place of what they give."""
        known = dict(known)
        for equation in equations:
            inputs = tuple(known.get(value, value) for value in equation.inputs)
            if equation.name == "scan" and 0 < _size(equation) <= _MOST:
                outputs = self._loop(equation, inputs)
            elif equation.name == "cond":
                outputs = self._branches(equation, inputs)
            else:
                outputs = tuple(Value(each.shape, each.dtype) for each in equation.outputs)
                self.equations.append(dataclasses.replace(equation, inputs=inputs, outputs=outputs))
            known.update(zip(equation.outputs, outputs, strict=True))
        return known

    def _run(self, body: Body, inputs: Sequence[Value]) -> Values:
        known = self.write(body.equations, dict(zip(body.inputs, inputs, strict=True)))
        return tuple(known.get(value, value) for value in body.outputs)

    def _loop(self, equation: Equation, inputs: Values) -> Values:
        (body,) = equation.bodies
        same, carried = scanned(equation)
        constants, carry, whole = inputs[:same], inputs[same:][:carried], inputs[same + carried :]
        steps: dict[int, Values] = {}
        order = range(equation.params["length"])
        for step in reversed(order) if equation.params["reverse"] else order:
            at_step = functools.partial(_all_at, step=step)
            slices = self._made(at_step, whole, equation.layer)
            results = self._run(body, (*constants, *carry, *slices))
            carry, steps[step] = results[:carried], results[carried:]
        given = zip(*(steps[step] for step in order), strict=True)
        return (*carry, *(self._made(_stacked, each, equation.layer)[0] for each in given))

    def _branches(self, equation: Equation, inputs: Values) -> Values:
        number, *operands = inputs
        results = [self._run(body, operands) for body in equation.bodies]
        return tuple(
            self._made(_taken, (number, *choices), equation.layer)[0]
            for choices in zip(*results, strict=True)
        )

    def _made(self, function: Callable[..., Any], values: Sequence[Value], layer: str) -> Values:
        """Append what a function does with arrays."""
        arrays = [jax.ShapeDtypeStruct(each.shape, each.dtype) for each in values]
        jaxpr = jax.make_jaxpr(function)(*arrays)
        inliner = Inliner(lambda _, outer: outer)
        results = inliner.inline(jaxpr.jaxpr, jaxpr.consts, values, layer)
        self.equations += inliner.equations
        return tuple(results)


def _size(equation: Equation) -> float:
    """Operations that an equation becomes; of a loop over a batch of any size nobody knows.

    A step in which nothing is done still hands its slice on.
    """
    if not equation.bodies:
        return 1
    length = equation.params.get("length", 1)
    inner = sum(_size(each) for body in equation.bodies for each in body.equations)
    return max(inner, 1) * (length if isinstance(length, int) else math.inf)


def _all_at(*sequences: jax.Array, step: int) -> list[jax.Array]:
    return [jax.lax.index_in_dim(each, step, keepdims=False) for each in sequences]


def _stacked(*arrays: jax.Array) -> list[jax.Array]:
    return [jnp.stack(arrays)]


def _taken(number: jax.Array, *choices: jax.Array) -> list[jax.Array]:
    """The choice of that number, the last for a larger one."""
    *others, found = choices
    for place, choice in reversed(list(enumerate(others))):
        found = jnp.where(number <= place, choice, found)
    return [found]
