"""The most memory that inference needs at one time, by a count of live arrays."""

import dataclasses
from collections.abc import Iterable

from rice_jax.graph.equations import sources
from rice_jax.graph.loops import CARRY, ENTER, LEAVE, LINKS, Opened
from rice_jax.graph.primitives import CASTS, ELEMENTWISE, MOVES
from rice_jax.graph.trace import Equation, Value

_COPIES = frozenset({"concatenate", "pad", "dynamic_update_slice"})
"""Moves whose result is an array of its own."""


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes that inference needs at its peak."""

    weights: int
    """All variables, which are there all the time."""
    activations: int
    """The arrays that are live at once where most are, the input among them."""
    at: str
    """Path of the module that runs then."""

    @property
    def peak(self) -> int:
        """Weights and activations together."""
        return self.weights + self.activations

    def to_json(self) -> dict[str, object]:
        """The figures as plain JSON types, in bytes."""
        return {**vars(self), "peak": self.peak}


def memory(opening: Opened) -> Memory:
    """Run through the equations in their order and add up what is live.

    An array lives from the equation that makes it to the last that reads it, and both are live
    while an equation runs. A result that is made element by element takes the place of an operand
    of the same size that is not needed any more. What is only renamed, reshaped, broadcast or
    sliced takes no memory of its own, put together or padded it does. Within a loop its operands
    stay live, its stacked results are there from its beginning. XLA may do better by fusing or
    reordering operations, and worse by the buffers that its own algorithms take (im2col).
    """
    return _Liveness(opening).peak()


class _Liveness:
    def __init__(self, opening: Opened) -> None:
        self._trace = opening.trace
        self._variables = set(self._trace.variables.values())
        self._held: dict[Value, Value | None] = {}
        self._first: dict[Equation, int] = {}
        self._end: dict[Equation, int] = {}
        for place, equation in enumerate(self._trace.equations):
            if equation.name in LINKS:
                self._first.setdefault(equation.params["of"], place)
                self._end[equation.params["of"]] = place
        self._last = self._last_uses()

    def peak(self) -> Memory:
        live = {a: a.bytes for a in self._arrays([self._trace.input])}
        most, at = sum(live.values()), ""
        beginning = self._stacks()
        for place, equation in enumerate(self._trace.equations):
            live |= {value: value.bytes for value in beginning.get(place, ())}
            made = [v for v in equation.outputs if self._array(v) is v and v not in live]
            size = sum(live.values()) + sum(v.bytes for v in made) - self._reused(equation, place)
            if size > most:
                most, at = size, equation.layer
            live |= {value: value.bytes for value in made}
            live = {array: size for array, size in live.items() if self._last[array] > place}
        weights = sum(value.bytes for value in self._variables)
        return Memory(weights, most, at)

    def _stacks(self) -> dict[int, list[Value]]:
        """By the place of a loop's first equation the stacked results that it fills."""
        found: dict[int, list[Value]] = {}
        for equation in self._trace.equations:
            if equation.name == LEAVE and self._array(equation.outputs[0]) is equation.outputs[0]:
                first = self._first[equation.params["of"]]
                found.setdefault(first, []).append(equation.outputs[0])
        return found

    def _reused(self, equation: Equation, place: int) -> int:
        """Bytes of an operand whose place the result takes; 0 where it takes none."""
        if equation.name not in ELEMENTWISE | CASTS | {CARRY}:
            return 0
        (result,) = equation.outputs
        operands = equation.inputs[:1] if equation.name == CARRY else equation.inputs
        free = (a for a in self._arrays(operands) if self._last[a] <= place)
        return result.bytes if any(a.bytes == result.bytes for a in free) else 0

    def _last_uses(self) -> dict[Value, int]:
        equations = self._trace.equations
        last: dict[Value, int] = dict.fromkeys(self._arrays([self._trace.input]), -1)
        for place, equation in enumerate(equations):
            repeats = equation.name == ENTER and equation.params["of"].name != "cond"
            until = self._end[equation.params["of"]] if repeats else place
            operands = equation.inputs[:1] if equation.name == CARRY else equation.inputs
            for array in self._arrays([*operands, *equation.outputs]):
                last[array] = max(last.get(array, -1), until)
            if equation.name == CARRY:
                end = self._end[equation.params["of"]]
                for array in self._arrays([equation.params["update"]]):
                    last[array] = max(last.get(array, -1), end)
        return last | dict.fromkeys(self._arrays(self._trace.outputs), len(equations))

    def _arrays(self, values: Iterable[Value]) -> set[Value]:
        """The activations that hold the values."""
        held = (self._array(value) for value in values)
        return {array for array in held if array is not None}

    def _array(self, value: Value) -> Value | None:
        """The activation that holds a value; None for variables and constants."""
        if value not in self._held:
            made = self._trace.producer(value)
            if value.constant is not None or value in self._variables:
                self._held[value] = None
            elif made is None or not _is_view(made):
                self._held[value] = value
            else:
                viewed = sources(made, value)
                self._held[value] = self._array(viewed[0]) if viewed else None
        return self._held[value]


def _is_view(equation: Equation) -> bool:
    if equation.name == LEAVE:
        return equation.inputs[0].shape == equation.outputs[0].shape
    return equation.name == ENTER or (equation.name in MOVES and equation.name not in _COPIES)
