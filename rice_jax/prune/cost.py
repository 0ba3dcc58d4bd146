"""What a net costs as a function of how many channels each group has left."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Literal

import numpy as np

from rice_jax.errors import UserError
from rice_jax.graph.trace import Equation, Value
from rice_jax.profile.rules import flops
from rice_jax.prune.dependencies import Dependencies

Measure = Literal["formula", "study", "xla", "params", "filters"]
"""FLOPs in one of the three conventions, parameters, or filters of convolutions."""


@dataclasses.dataclass(frozen=True)
class Cost:
    """A quadratic function of the groups' sizes n: terms of lengths, lengths linear in n.

    Every operation costs a product of the lengths of its axes, of which at most two, or one
    twice, depend on channels: channels in times channels out.
    """

    base: int
    """What the net costs beside the terms."""
    constant: np.ndarray
    """For each length what does not depend on n."""
    slope: np.ndarray
    """For each length and group the entries that a channel takes."""
    linear: np.ndarray
    """For each length its factor."""
    quadratic: np.ndarray
    """For each pair of lengths its factor; upper triangle."""
    parts: int = 1
    """Of how many parts of a FLOP the factors tell."""

    def __call__(self, sizes: np.ndarray) -> int:
        """The cost of the net with groups of these sizes."""
        lengths = self.constant + self.slope @ sizes
        cost = int(self.linear @ lengths + lengths @ self.quadratic @ lengths)
        return self.base + cost // self.parts

    def of_one(self, sizes: np.ndarray) -> np.ndarray:
        """For each group what one channel less saves."""
        lengths = self.constant + self.slope @ sizes
        both = self.quadratic + self.quadratic.T
        slopes = (self.linear + both @ lengths) @ self.slope
        curvature = np.einsum("lg,lm,mg->g", self.slope, self.quadratic, self.slope)
        saved = slopes - curvature
        return saved if self.parts == 1 else saved / self.parts


def cost(graph: Dependencies, measure: Measure, total: int) -> Cost:
    """The function whose value is `total` where nothing is removed.

    Args:
        graph: the net's dependencies, found for the input shape that FLOPs are of.
        measure: what is counted; an operation without a rule in `profile.rules` is taken to cost
            the same at any width.
        total: the whole net's, as `profile.count` gives it.
    """
    lengths: dict[bytes, int] = {}
    rows: list[np.ndarray] = []
    linear: dict[int, Fraction] = {}
    quadratic: dict[tuple[int, int], Fraction] = {}
    for values, function, unit in _countable(graph, measure):
        lines = {
            line.tobytes(): line
            for value in values
            for line in graph.axes.get(value, ())
            if np.any(line >= 0)
        }
        numbers = []
        for key, line in lines.items():
            if key not in lengths:
                lengths[key] = len(rows)
                rows.append(line)
            numbers.append(lengths[key])
        one, two = _factors(list(lines), [len(line) for line in lines.values()], function, unit)
        for number, factor in zip(numbers, one, strict=True):
            linear[number] = linear.get(number, Fraction()) + factor
        for (i, j), factor in two.items():
            pair = numbers[i], numbers[j]
            quadratic[pair] = quadratic.get(pair, Fraction()) + factor
    return _assemble(graph, rows, linear, quadratic, total)


Function = Callable[[dict[bytes, int]], int]
"""From the length of each kind of axis to a count."""


def _factors(
    keys: Sequence[bytes], full: Sequence[int], function: Function, unit: int
) -> tuple[list[Fraction], dict[tuple[int, int], Fraction]]:
    """The factors of a quadratic function without constant part, rounded down between units.

    They are found from its values at 0, 1 and 2 units.
    """

    def at(*raised: int) -> int:
        return function({key: unit * raised.count(i) for i, key in enumerate(keys)})

    nothing = at()
    two: dict[tuple[int, int], Fraction] = {}
    one = []
    for i in range(len(keys)):
        square = Fraction(at(i, i) - 2 * at(i) + nothing, 2 * unit**2)
        two[i, i] = square
        one.append(Fraction(at(i) - nothing, unit) - square * unit)
    for i, j in itertools.combinations(range(len(keys)), 2):
        two[i, j] = Fraction(at(i, j) - at(i) - at(j) + nothing, unit**2)
    fitted = nothing + sum(a * n for a, n in zip(one, full, strict=True))
    fitted += sum(factor * full[i] * full[j] for (i, j), factor in two.items())
    if math.floor(fitted) != function(dict(zip(keys, full, strict=True))):
        raise UserError(
            "a budget is not possible for this net: an operation's cost is no quadratic function "
            "of its channels; name the filters to remove"
        )
    return one, two


def _countable(
    graph: Dependencies, measure: Measure
) -> Sequence[tuple[Sequence[Value], Function, int]]:
    """What is counted: the values whose lengths decide a count, the function of the lengths, and
    multiples of which it does not round: of a transposed convolution `study` has a share."""
    if measure == "params":
        paths = (path for path in graph.trace.variables if path.startswith("params/"))
        values = (graph.trace.variables[path] for path in paths)
        return [([value], _sized(graph, value), 1) for value in values]
    if measure == "filters":
        return [([value], _rows(graph, value, axis), 1) for value, axis in _convolved(graph)]
    return [
        (
            (*equation.inputs, *equation.outputs),
            _counted(graph, equation, measure),
            math.prod(equation.params.get("lhs_dilation", ())),
        )
        for equation in graph.trace.needed(graph.trace.outputs)
        if flops(equation) is not None
    ]


def _sized(graph: Dependencies, value: Value) -> Function:
    return lambda lengths: _resized(graph, value, lengths).size


def _rows(graph: Dependencies, value: Value, axis: int) -> Function:
    return lambda lengths: _resized(graph, value, lengths).shape[axis]


def _counted(graph: Dependencies, equation: Equation, measure: Measure) -> Function:
    def function(lengths: dict[bytes, int]) -> int:
        inputs = tuple(_resized(graph, value, lengths) for value in equation.inputs)
        outputs = tuple(_resized(graph, value, lengths) for value in equation.outputs)
        count = flops(dataclasses.replace(equation, inputs=inputs, outputs=outputs))
        assert count is not None
        return count.to_json()[measure]

    return function


def _resized(graph: Dependencies, value: Value, lengths: dict[bytes, int]) -> Value:
    if value not in graph.axes:
        return value
    shape = tuple(lengths.get(line.tobytes(), len(line)) for line in graph.axes[value])
    return Value(shape, value.dtype)


def _convolved(graph: Dependencies) -> list[tuple[Value, int]]:
    """The kernels of convolutions, each once, and their axes that hold filters."""
    kernels: dict[frozenset[Value], tuple[Value, int]] = {}
    for equation in graph.trace.equations:
        if equation.name == "conv_general_dilated":
            kernel = equation.inputs[1]
            axis = equation.params["dimension_numbers"].rhs_spec[0]
            kernels.setdefault(graph.origins.identity(kernel), (kernel, axis))
    return list(kernels.values())


def _assemble(
    graph: Dependencies,
    rows: Sequence[np.ndarray],
    linear: dict[int, Fraction],
    quadratic: dict[tuple[int, int], Fraction],
    total: int,
) -> Cost:
    constant = np.array([np.sum(line < 0) for line in rows], np.int64)
    slope = np.zeros((len(rows), graph.groups), np.int64)
    sizes = graph.sizes()
    for number, line in enumerate(rows):
        entries = np.bincount(graph.group[line[line >= 0]], minlength=graph.groups)
        slope[number] = entries // np.maximum(sizes, 1)
    factors = np.zeros(len(rows), np.int64)
    parts = math.lcm(*(each.denominator for each in (*linear.values(), *quadratic.values())))
    for number, factor in linear.items():
        factors[number] = int(factor * parts)
    products = np.zeros((len(rows), len(rows)), np.int64)
    for pair, factor in quadratic.items():
        products[pair] += int(factor * parts)
    shape = Cost(0, constant, slope, factors, products, parts)
    return dataclasses.replace(shape, base=total - shape(sizes))
