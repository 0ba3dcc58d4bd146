"""Where a value of a trace comes from, and who else reads that."""

import dataclasses
import functools
from collections.abc import Callable, Collection
from typing import Any

import jax
import numpy as np

from rice_jax.graph.call import by_path
from rice_jax.graph.equations import sources
from rice_jax.graph.primitives import ALIASES, ARRANGES
from rice_jax.graph.trace import Equation, Trace, Value


@dataclasses.dataclass(frozen=True, eq=False)
class Origin:
    """What a value is but for its name, its shape or its precision."""

    value: Value
    """The variable, the input, the constant or the result of an operation that it comes from."""
    path: str | None
    """Of the variable, with its collection ('params/conv1/kernel'); None for anything else."""
    steps: tuple[Equation, ...]
    """What leads from the origin to the value, in order."""
    _read: Callable[[], tuple[tuple[Equation, ...], bool]] = dataclasses.field(repr=False)

    @functools.cached_property
    def readers(self) -> tuple[Equation, ...]:
        """Every operation that reads the origin, under whatever name, shape or precision."""
        return self._read()[0]

    @functools.cached_property
    def returned(self) -> bool:
        """Whether the net returns it, under whatever name."""
        return self._read()[1]

    def places(self) -> np.ndarray:
        """For each element of the value the index in the flattened origin that it comes from.

        For an origin that was followed through renaming, arranging and casting alone.
        """
        indices = np.arange(self.value.size).reshape(self.value.shape)
        for step in self.steps:
            if step.name in ARRANGES:
                indices = np.asarray(step.apply(indices)[0])
        return indices


class Origins:
    """Answers about the values of one trace."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._paths = {value: path for path, value in trace.variables.items()}

    def origin(self, value: Value, through: Collection[str] = ALIASES) -> Origin:
        """Follow `value` to where it comes from.

        Args:
            value: a value of the trace.
            through: names of the primitives to look through; by default those that rename,
                arrange or cast (`primitives.ALIASES`). One with several operands is looked
                through where all but one of them are constants.

        Returns:
            The origin with every reader of it, those of its other aliases among them.
        """
        steps: list[Equation] = []
        made = self._trace.producer(value)
        while made is not None and (source := self._source(made, value, through)) is not None:
            steps.append(made)
            value, made = source, self._trace.producer(source)
        read = functools.partial(self._readers, value, through)
        return Origin(value, self._paths.get(value), tuple(steps[::-1]), read)

    def maker(self, value: Value, through: Collection[str] = ALIASES) -> Equation | None:
        """The operation that computes `value`, followed as by `origin`."""
        return self._trace.producer(self.origin(value, through).value)

    def roots(self, value: Value) -> frozenset[Value]:
        """The variables and inputs that `value` depends on; none for a constant."""
        return self._roots.get(value, frozenset())

    def is_constant(self, value: Value) -> bool:
        """Whether `value` depends on no variable and no input."""
        return not self.roots(value)

    def constant(self, value: Value) -> np.ndarray | None:
        """The array that `value` always is, None where variables or inputs change it."""
        if value.constant is not None:
            return value.constant
        if not self.is_constant(value):
            return None
        arrays: dict[Value, Any] = {}
        with jax.ensure_compile_time_eval():
            for equation in self._trace.needed([value]):
                known = (arrays.get(each, each.constant) for each in equation.inputs)
                arrays.update(zip(equation.outputs, equation.apply(*known), strict=True))
        return np.asarray(arrays[value])

    def is_weight(self, value: Value) -> bool:
        """Whether `value` is made of variables alone, which no image changes."""
        roots = self.roots(value)
        return bool(roots) and roots <= self._paths.keys()

    def paths(self, value: Value) -> list[str]:
        """Paths of the variables that `value` depends on, in the order of `Trace.variables`."""
        roots = self.roots(value)
        return [path for each, path in self._paths.items() if each in roots]

    def identity(self, value: Value) -> frozenset[Value]:
        """What tells a kernel from others: what it is made of, or itself where that is nothing."""
        return self.roots(value) or frozenset([self.origin(value).value])

    def compute(self, value: Value, variables: Any) -> Any:
        """The array that a weight or a constant is for these variables."""
        flat = by_path(variables)
        arrays = {each: flat[path] for each, path in self._paths.items() if path in flat}
        for equation in self._trace.needed([value]):
            operands = [arrays.get(each, each.constant) for each in equation.inputs]
            arrays.update(zip(equation.outputs, equation.apply(*operands), strict=True))
        return arrays.get(value, value.constant)

    def _source(self, step: Equation, value: Value, through: Collection[str]) -> Value | None:
        """The operand that `value`, an output of `step`, is an alias of."""
        if step.name not in through:
            return None
        if len(step.outputs) > 1:
            one_each = len(step.inputs) == len(step.outputs)
            return step.inputs[step.outputs.index(value)] if one_each else None
        if len(step.inputs) == 1:
            return step.inputs[0]
        changing = [operand for operand in step.inputs if not self.is_constant(operand)]
        return changing[0] if len(changing) == 1 else None

    def _readers(
        self, origin: Value, through: Collection[str]
    ) -> tuple[tuple[Equation, ...], bool]:
        readers: dict[Equation, None] = {}
        aliases = [origin]
        for alias in aliases:
            for reader in self._trace.consumers(alias):
                known = len(aliases)
                aliases += [v for v in reader.outputs if self._source(reader, v, through) is alias]
                if len(aliases) == known:
                    readers[reader] = None
        return tuple(readers), not set(aliases).isdisjoint(self._trace.outputs)

    @functools.cached_property
    def _roots(self) -> dict[Value, frozenset[Value]]:
        roots: dict[Value, frozenset[Value]] = {}
        for equation in self._trace.equations:
            for value in equation.inputs:
                if value not in roots:
                    known = frozenset([value]) if value.constant is None else frozenset()
                    roots[value] = known
            for value in equation.outputs:
                roots[value] = frozenset().union(*(roots[v] for v in sources(equation, value)))
        for value in (self._trace.input, *self._trace.variables.values()):
            roots[value] = frozenset([value])
        return roots
