"""Which channels are the same channel: labels carried through every equation of a trace.

Each index of each axis of each variable gets a label. An equation gives labels to its outputs
and links labels that stand for one channel: a kernel's input rows and the map they read, the
two sides of a residual addition. What is linked together must be cut together.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from rice_jax.graph.origins import Origins
from rice_jax.graph.trace import Equation, Trace, Value

FIXED = 0
"""Label of what can never be cut: batch, height, width, classes."""
ANY = -1
"""Label of a broadcast: it takes on the label of what it is combined with."""

UNSEEN = "is not seen through"

Labels = tuple[np.ndarray, ...]
"""One array of labels an axis."""


@dataclasses.dataclass(frozen=True, eq=False)
class Contraction:
    """An operand summed over its channels, the one place where a removed channel is missed."""

    equation: Equation
    operand: int
    axis: int

    @property
    def place(self) -> tuple[Value, int]:
        """The operand itself, and its axis that is summed over."""
        return self.equation.inputs[self.operand], self.axis


class Propagation:
    """The labels of every value of a trace, and the links between them."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.origins = Origins(trace)
        self.count = 1
        self.labels: dict[Value, Labels] = {trace.input: uniform(FIXED, trace.input.shape)}
        self.links: list[tuple[np.ndarray, np.ndarray]] = []
        self.contractions: list[Contraction] = []
        self.filters: dict[str, list[int]] = {}
        """By path of a variable: its axes that hold filters."""
        self.unclear: list[tuple[Equation, np.ndarray, str]] = []
        """Operations that no rule sees through, the labels they touch, and why they stay."""
        self.held: list[tuple[Equation | None, np.ndarray]] = []
        """Operations that tie labels to what is never cut; None is the net's output."""
        self.by_place: list[tuple[str, np.ndarray]] = []
        """The layer of an operation that picks or parts labels by their place along an axis, and
        those labels."""
        self.reshaped: list[np.ndarray] = []
        """Labels whose axis is made one with others."""
        self.at: Equation | None = None
        """The operation whose labels are being found."""
        for value in trace.variables.values():
            self.labels[value] = tuple(self._fresh(size) for size in value.shape)

    def of(self, value: Value) -> Labels:
        """The labels of each axis of `value`."""
        if value.constant is not None:
            self.labels.setdefault(value, _written(value.constant))
        return self.labels[value]

    def link(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Make two equally long axes one; the labels of the result."""
        both = (first != ANY) & (second != ANY) & (first != second)
        self.links.append((first[both], second[both]))
        tied = both & ((first == FIXED) | (second == FIXED))
        if tied.any():
            self.held.append((self.at, np.maximum(first, second)[tied]))
        return np.where(first == ANY, second, first)

    def fix(self, labels: np.ndarray) -> None:
        """Never cut these."""
        self.link(labels, np.full_like(labels, FIXED))

    def refuse(self, equation: Equation, labels: np.ndarray, why: str = UNSEEN) -> np.ndarray:
        """Never cut these, for want of a rule or for what `why` says; the labels of the result."""
        self.unclear.append((equation, labels[labels > FIXED], why))
        return np.full_like(labels, FIXED)

    def place(self, labels: np.ndarray) -> None:
        """The operation at hand picks or parts these by their place."""
        layer = "" if self.at is None else self.at.layer
        self.by_place.append((layer, labels[labels > FIXED]))

    def contract(self, equation: Equation, axes: tuple[int, int]) -> None:
        """Sum over one axis of each of the first two operands: two axes of one length."""
        left, right = (
            solid(self.of(value)[axis]) for value, axis in zip(equation.inputs, axes, strict=False)
        )
        self.link(left, right)
        activations = [
            operand for operand in (0, 1) if not self.origins.is_weight(equation.inputs[operand])
        ]
        for operand in activations:
            self.contractions.append(Contraction(equation, operand, axes[operand]))
        if not activations:  # a kernel that is a product would be another one
            self.fix(left)
            self.fix(right)

    def note_filters(self, weight: Value, axes: Sequence[int]) -> None:
        """Remember that these axes of a weight hold filters.

        They are those of the largest variable that the weight is made of: its kernel, not a gain.
        """
        if not self.origins.is_weight(weight):
            return
        held = np.concatenate([[], *(self.of(weight)[axis] for axis in axes)])
        holding = {}
        for path in self.origins.paths(weight):
            own = self.labels[self.trace.variables[path]]
            inside = [axis for axis, labels in enumerate(own) if np.isin(labels, held).any()]
            if inside:
                holding[path] = inside
        if holding:
            path = max(holding, key=lambda path: self.trace.variables[path].size)
            self.filters.setdefault(path, holding[path])

    def give(self, equation: Equation, outputs: Sequence[Labels]) -> None:
        """Set the labels of an equation's outputs."""
        self.labels.update(zip(equation.outputs, outputs, strict=True))

    def _fresh(self, size: int) -> np.ndarray:
        self.count += size
        return np.arange(self.count - size, self.count)


def uniform(label: int, shape: Sequence[int]) -> Labels:
    """One label along every axis."""
    return tuple(np.full(size, label) for size in shape)


def _written(constant: np.ndarray) -> Labels:
    """Labels of an array in the code: along an axis of equal entries it is a broadcast."""
    return tuple(
        np.full(size, ANY if size > 1 and np.all(constant == constant.take([0], axis)) else FIXED)
        for axis, size in enumerate(constant.shape)
    )


def solid(labels: np.ndarray) -> np.ndarray:
    """A broadcast's size is written in the computation: what meets it keeps that size."""
    return np.where(labels == ANY, FIXED, labels)
