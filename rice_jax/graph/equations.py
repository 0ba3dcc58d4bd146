"""What a trace is made of: arrays, the operations on them, and what loops and branches hold."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from rice_jax.graph.primitives import RENAMES


@dataclasses.dataclass(eq=False)
class Value:
    """An array of the computation, known by identity."""

    shape: tuple[int, ...]
    dtype: np.dtype
    constant: np.ndarray | None = None
    """What the value is, where the computation has it written in."""

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Size in memory."""
        return self.size * self.dtype.itemsize


@dataclasses.dataclass(eq=False)
class Equation:
    """One primitive operation: JAX's own, with calls (jit, custom_jvp, remat, ...) inlined."""

    name: str
    """JAX's name of the primitive ('conv_general_dilated'), but 'relu' for a maximum with 0."""
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    params: dict[str, Any]
    layer: str
    """Path of the innermost module that the operation belongs to; '' for the root."""
    primitive: Any = dataclasses.field(repr=False)
    bodies: tuple["Body", ...] = dataclasses.field(default=(), repr=False)
    """What a loop ('scan', 'while': condition and body), a branch ('cond') or a device's share
    ('shard_map') holds; the equation itself stands for the whole of it."""
    derived_from: tuple[Value, ...] = dataclasses.field(default=(), repr=False)
    """Of the last operation in a function with a derivative of its own (custom_jvp, custom_vjp):
    what that function was given. It is that by which its result has a gradient."""

    def apply(self, *operands: Any) -> list[Any]:
        """Run the operation on arrays, one per input; a list with one array per output."""
        functions: Sequence[Any] = ()
        params: Any = self.params
        if self.bodies:
            params = self.primitive.get_bind_params(params)
            # JAX before 0.10 gives the functions that it holds apart.
            functions, params = params if isinstance(params, tuple) else ((), params)
        outputs = self.primitive.bind(*functions, *operands, **params)
        return list(outputs) if self.primitive.multiple_results else [outputs]


@dataclasses.dataclass(eq=False)
class Body:
    """What a loop repeats, a branch or a device does: a list of equations of its own."""

    inputs: list[Value]
    equations: list[Equation]
    outputs: list[Value]
    layer_outputs: dict[str, Value]
    """What the modules called in it return, by path."""


@dataclasses.dataclass(eq=False)
class Choice:
    """An operation that is another on each platform, beside the default that is in the trace."""

    span: slice
    """The equations of the default."""
    index: Callable[[], jax.Array]
    """Gives the number of the platform's operation."""
    whole: Equation
    """Runs the operation of that number; its inputs come after the number."""


def sources(equation: Equation, output: Value) -> tuple[Value, ...]:
    """What an output is made of: all that is read, of several arrays renamed at once its own."""
    if equation.name in RENAMES:
        return (equation.inputs[equation.outputs.index(output)],)
    return equation.inputs


def within(equation: Equation) -> Iterator[Equation]:
    """An equation and all that its bodies hold."""
    yield equation
    for body in equation.bodies:
        for inner in body.equations:
            yield from within(inner)


def scanned(equation: Equation) -> tuple[int, int]:
    """How many of the operands of a `scan` are the same at each step, and how many are carried.

    They come in this order, and what is cut into slices last; of the outputs the carried come
    first, and what is put together of all steps last. Told by shapes: a slice has an axis fewer
    than the whole, whatever its sizes, and what parameters JAX writes these numbers into changed.
    """
    (body,) = equation.bodies

    def whole(inside: Sequence[Value], outside: Sequence[Value]) -> int:
        pairs = zip(inside, outside, strict=True)
        return sum(len(each.shape) == len(other.shape) for each, other in pairs)

    carried = whole(body.outputs, equation.outputs)
    return whole(body.inputs, equation.inputs) - carried, carried


def needed(equations: Sequence[Equation], wanted: Iterable[Value]) -> list[Equation]:
    """Those of the equations that the `wanted` values depend on, in order of execution."""
    values, found = set(wanted), []
    for equation in reversed(equations):
        if not values.isdisjoint(equation.outputs):
            values.update(equation.inputs)
            found.append(equation)
    return found[::-1]
