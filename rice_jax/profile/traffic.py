"""Bytes that the layers of a net read and write.

The model: each row reads once what comes from outside it, weights and activations, and writes once
what is read outside it, each at its own precision; what is made and used within a row stays in
registers or caches, and what only moves data (reshape, slice, concatenation) costs nothing. A
broadcast or widened array (bfloat16 to float32) is read at its size before, a sliced or gathered
one at its size after. A layer that
is called again reads its weights again, and so does each iteration of a loop. Real devices do worse
where a row does not fit their caches, and better where several rows are fused.
"""

import dataclasses
from collections.abc import Collection, Iterable, Mapping

from rice_jax.graph.equations import sources
from rice_jax.graph.loops import CARRY, ENTER, LEAVE, LINKS, Opened
from rice_jax.graph.primitives import MOVES
from rice_jax.graph.trace import Equation, Value


@dataclasses.dataclass(frozen=True)
class Traffic:
    """Bytes between a row and memory, all iterations of a loop together."""

    read: int = 0
    written: int = 0

    def __add__(self, other: "Traffic") -> "Traffic":
        return Traffic(self.read + other.read, self.written + other.written)

    @property
    def total(self) -> int:
        """Bytes in either direction."""
        return self.read + self.written


def traffic(opening: Opened, members: Mapping[str, Collection[Equation]]) -> dict[str, Traffic]:
    """Bytes by row.

    Args:
        opening: the opened trace.
        members: the equations of each row, by its path.
    """
    return _Memory(opening, members).traffic()


class _Memory:
    def __init__(self, opening: Opened, members: Mapping[str, Collection[Equation]]) -> None:
        self._opening, self._members = opening, members
        self._row = {equation: path for path, row in members.items() for equation in row}
        self._known: dict[Value, dict[Value, int]] = {}

    def traffic(self) -> dict[str, Traffic]:
        kept = self._kept()
        return {
            path: Traffic(self._read(path, row), self._written(row, kept))
            for path, row in self._members.items()
        }

    def _read(self, path: str, row: Collection[Equation]) -> int:
        read: dict[tuple[Value, Equation | None, int], int] = {}
        for equation in row:
            times = self._opening.times[equation]
            for array, amount in self._operands(equation):
                if self._maker(array) == path:
                    continue
                # Each call of a layer reads its weights; an activation is of one call.
                made = array is self._opening.trace.input or self._opening.trace.producer(array)
                call = None if made else equation
                already = read.get((array, call, times), 0)
                read[array, call, times] = min(already + amount, array.bytes)
        return sum(amount * times for (_, _, times), amount in read.items())

    def _written(self, row: Collection[Equation], kept: set[Value]) -> int:
        return sum(
            value.bytes * self._opening.times[equation]
            for equation in row
            for value in equation.outputs
            if value in kept and not _passes(equation)
        )

    def _kept(self) -> set[Value]:
        """The arrays that something outside their own row reads."""
        trace = self._opening.trace
        kept = self._arrays(trace.outputs)
        for equation in trace.equations:
            row = self._row.get(equation)
            if equation.name == CARRY:
                kept |= self._arrays([equation.inputs[0], equation.params["update"]])
            elif equation.name == LEAVE:
                kept |= self._arrays(equation.inputs)
            for array, _ in self._operands(equation):
                if row is None or self._maker(array) != row:
                    kept.add(array)
        return kept

    def _arrays(self, values: Iterable[Value]) -> set[Value]:
        return {array for value in values for array in self._sources(value)}

    def _maker(self, array: Value) -> str | None:
        made = self._opening.trace.producer(array)
        return None if made is None else self._row.get(made)

    def _operands(self, equation: Equation) -> list[tuple[Value, int]]:
        """The arrays that an operation reads, and how many bytes of each."""
        if equation.name in LINKS or _passes(equation):
            return []
        found = [
            (array, amount)
            for value in dict.fromkeys(equation.inputs)
            for array, amount in self._sources(value).items()
        ]
        if equation.name == "gather":
            taken = sum(value.bytes for value in equation.outputs)
            found = [(array, min(amount, taken)) for array, amount in found]
        return found

    def _sources(self, value: Value) -> dict[Value, int]:
        """The arrays in memory that a value is read from, with the bytes of each that it needs."""
        if value in self._known:
            return self._known[value]
        made = self._opening.trace.producer(value)
        found: dict[Value, int] = {}
        if made is None or not _passes(made):
            is_number = value.constant is not None and value.size == 1
            found = {} if is_number else {value: value.bytes}
        else:
            for operand in sources(made, value):
                for array, amount in self._sources(operand).items():
                    found[array] = found.get(array, 0) + amount
            needed = sum(found.values())
            if needed > value.bytes:
                found = {array: amount * value.bytes // needed for array, amount in found.items()}
        self._known[value] = found
        return found


def _passes(equation: Equation) -> bool:
    """Whether an equation's outputs are its inputs, moved or read in a wider precision."""
    if equation.name == "convert_element_type":
        return equation.inputs[0].bytes < equation.outputs[0].bytes
    if equation.name == LEAVE:
        return equation.inputs[0].shape == equation.outputs[0].shape
    return equation.name in MOVES or equation.name == ENTER
