"""A narrowed module's trace held against the whole one's: what came from a shape must not change.

A module may read its sizes from its input: 1 / sqrt(channels), channels // 4. Narrowed it reads
other ones, and computes something else than the whole module does without those channels.

Where the traces are the same but for sizes, the smaller module computes what the whole one does
without those channels on every input: a channel that is cut meets others in contractions alone
(`propagation`), and there it is gone. Along axes that keep their places a channel that is gone may
stay as a place that no contraction reads, whatever stands there.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from rice_jax.graph.arrays import Chosen
from rice_jax.graph.primitives import ELEMENTWISE, REDUCTIONS
from rice_jax.graph.trace import Equation, Trace, Value
from rice_jax.prune.dependencies import BROADCAST, Dependencies, among, told
from rice_jax.prune.propagation import Contraction
from rice_jax.prune.rules import RULES

_SIZES = frozenset({"shape", "new_sizes", "sizes", "slice_sizes", "feature_group_count"})
"""Parameters that follow from the shapes of what goes in and comes out."""
_PLACES = frozenset({"start_indices", "limit_indices", "strides"})
"""Parameters of a slice that say which places it takes."""


def departure(
    graph: Dependencies, removed: Chosen, smaller: Trace, held: np.ndarray | None = None
) -> str | None:
    """The first place where the smaller module differs by more than the sizes of what was cut.

    Args:
        graph: the whole module's dependencies.
        removed: bool, one a channel.
        smaller: the smaller module's trace, for the same input.
        held: channels (bool, one each) whose places may stay between layers; none by default.

    Returns:
        The layer with what stood there and what stands there now; None where all is as it was.
    """
    held = np.zeros(graph.channels, bool) if held is None else held
    found = _Comparison(graph, removed, held, smaller, removed).first_difference()
    if found and np.any(removed & held):
        # What only made channels that are gone is still there where these keep their places.
        placed = _Comparison(graph, removed, held, smaller, removed & ~held)
        return None if placed.first_difference() is None else found
    return found


class _Comparison:
    """Two traces walked side by side."""

    def __init__(
        self,
        graph: Dependencies,
        removed: Chosen,
        held: np.ndarray,
        smaller: Trace,
        absent: Chosen,
    ) -> None:
        self.graph, self.absent = graph, absent
        self.removed, self.stays = removed, ~removed | held
        self.smaller = smaller
        self.twins: dict[Value, set[Value]] = {graph.trace.input: {smaller.input}}
        """By value of the whole module: the values of the smaller one that are its channels left,
        with or without the places of those that are gone."""
        for path, value in graph.trace.variables.items():
            twin = smaller.variables.get(path)
            self.twins[value] = set() if twin is None else {twin}
        self.summed: dict[Equation, list[Contraction]] = {}
        for contraction in graph.contractions:
            self.summed.setdefault(contraction.equation, []).append(contraction)

    def first_difference(self) -> str | None:
        """As `departure` tells it."""
        first, second = self._first(), self.smaller.needed(self.smaller.outputs)
        at = 0
        for one in first:
            found = self._difference(one, second[at]) if at < len(second) else _missing(one)
            while found and (moved := self._moved(second, at)):
                at += moved
                found = self._difference(one, second[at]) if at < len(second) else _missing(one)
            if found:
                return found
            for value, twin in zip(one.outputs, second[at].outputs, strict=True):
                self.twins[value] = {twin}
            at += 1
        while at < len(second) and (moved := self._moved(second, at)):
            at += moved
        if at < len(second):
            return _missing(second[at])
        return self._other_outputs()

    def _first(self) -> list[Equation]:
        """The whole module's equations, without those that only made what is gone."""
        needed = set(self.graph.trace.outputs)
        found = []
        for equation in reversed(self.graph.trace.equations):
            if not needed.isdisjoint(equation.outputs):
                found.append(equation)
                needed |= {value for value in equation.inputs if not self._is_gone(value)}
        return found[::-1]

    def _is_gone(self, value: Value) -> bool:
        """Whether an axis has nothing but what is absent."""
        lines = self.graph.axes.get(value, ())
        return any(len(line) and among(line, self.absent).all() for line in lines)

    def _other_outputs(self) -> str | None:
        for value, twin in zip(self.graph.trace.outputs, self.smaller.outputs, strict=True):
            if not self._is_twin(value, twin) or value.shape != twin.shape:
                return "the smaller module returns something else"
        return None

    def _difference(self, one: Equation, other: Equation) -> str | None:
        inputs = [value for value in one.inputs if not self._is_gone(value)]
        if one.name != other.name or len(inputs) != len(other.inputs):
            return f"{told(one)} becomes {told(other)}"
        return (
            self._other_operands(one, inputs, other)
            or self._other_params(one, other)
            or self._other_shapes(one, other)
            or self._other_picks(one, other)
        )

    def _is_twin(self, value: Value, twin: Value) -> bool:
        return twin in self.twins.setdefault(value, {twin})

    def _other_operands(
        self, one: Equation, inputs: Sequence[Value], other: Equation
    ) -> str | None:
        for a, b in zip(inputs, other.inputs, strict=True):
            if a.constant is None or b.constant is None:
                if (a.constant is None) != (b.constant is None) or not self._is_twin(a, b):
                    return f"{told(one)} reads something else"
            elif not self._same_numbers(a, a.constant, b.constant):
                if self._picks_alike(one, other):
                    continue
                return f"{told(one)} takes {_shown(a.constant)} in the whole module, " + (
                    f"{_shown(b.constant)} in the smaller one"
                )
            if self._repeats_otherwise(one, a, b):
                return (
                    f"{told(one)} takes one number {a.shape} times in the whole module, "
                    f"{b.shape} times in the smaller one"
                )
        for each in self.summed.get(one, ()):
            line = self.graph.read(each)
            if other.inputs[each.operand].shape[each.axis] != self._left(line):
                return f"{told(one)} sums over places of channels that are gone"
        return None

    def _same_numbers(self, value: Value, whole: np.ndarray, fewer: np.ndarray) -> bool:
        """Whether a constant is what it was, along axes of equal numbers however often it is so."""
        if whole.ndim != fewer.ndim:
            return False
        lines = self.graph.axes.get(value, ((),) * whole.ndim)
        repeated = [len(line) > 0 and bool(np.all(line == BROADCAST)) for line in lines]
        sizes = [
            new if again else size
            for again, size, new in zip(repeated, whole.shape, fewer.shape, strict=True)
        ]
        one = whole[tuple(slice(1) if again else slice(None) for again in repeated)]
        wanted = np.broadcast_to(one, sizes)
        return (wanted.shape, wanted.tobytes()) == (fewer.shape, fewer.tobytes())

    def _repeats_otherwise(self, one: Equation, value: Value, twin: Value) -> bool:
        """Whether an operation makes one number of a repeated one's repetitions, and of fewer now.

        Elsewhere an axis of repeated numbers may take another size: that of what it meets.
        """
        if one.name in RULES and one.name not in REDUCTIONS:
            return False
        lines = self.graph.axes.get(value, ())
        mixed = one.params["axes"] if one.name in REDUCTIONS else range(len(lines))
        return any(
            np.any(lines[axis] == BROADCAST) and value.shape[axis] != twin.shape[axis]
            for axis in mixed
            if lines
        )

    def _other_params(self, one: Equation, other: Equation) -> str | None:
        by_place = _PLACES if one.name == "slice" else ()
        for name, value in one.params.items():
            if name in _SIZES or name in by_place or _same(value, other.params.get(name)):
                continue
            return (
                f"{told(one)} has {name}={value} in the whole module, "
                f"{name}={other.params.get(name)} in the smaller one"
            )
        return None

    def _other_shapes(self, one: Equation, other: Equation) -> str | None:
        for value, twin in zip(one.outputs, other.outputs, strict=True):
            lines = self.graph.axes[value]
            if len(lines) != len(twin.shape) or any(
                size not in (self._left(line), self._held(line).size)
                and not np.all(line == BROADCAST)
                for line, size in zip(lines, twin.shape, strict=True)
            ):
                wanted = tuple(map(self._left, lines))
                return (
                    f"{told(one)} gives {value.shape} in the whole module and would give "
                    f"{wanted}, but gives {twin.shape} in the smaller one"
                )
            if _spreads(one, value, other, twin):
                return f"{told(one)} spreads one channel over the places of several"
        return None

    def _other_picks(self, one: Equation, other: Equation) -> str | None:
        """Where an operation takes by number what has other numbers now."""
        if one.name not in ("slice", "dynamic_slice", "gather"):
            return None
        whole, fewer = one.inputs[0], other.inputs[0]
        source = self._places(whole, fewer)
        if one.name == "gather":
            picked = one.params["dimension_numbers"].start_index_map
            alike = all(
                source[axis] is None or fewer.shape[axis] == whole.shape[axis] for axis in picked
            ) or self._picks_alike(one, other)
        else:
            alike = all(
                _take_alike(_window(one, axis), _window(other, axis), places)
                for axis, places in enumerate(source)
            )
        return None if alike else f"{told(one)} takes other channels in the smaller one"

    def _left(self, line: np.ndarray) -> int:
        """How many indices of an axis are left."""
        return int(np.sum(~among(line, self.removed)))

    def _held(self, line: np.ndarray) -> np.ndarray:
        """The indices of an axis that are left or keep their place."""
        return np.flatnonzero(~among(line, ~self.stays))

    def _places(self, value: Value, twin: Value) -> list[np.ndarray | None]:
        """By axis: the index in `value` of each index of its twin; None for one without labels."""
        found: list[np.ndarray | None] = []
        for line, size in zip(self.graph.axes[value], twin.shape, strict=True):
            left = np.flatnonzero(~among(line, self.removed))
            full = left if size == left.size else self._held(line)
            found.append(full if np.any(line >= 0) else None)
        return found

    def _picks_alike(self, one: Equation, other: Equation) -> bool:
        """Whether two gathers along one axis differ in places of what is gone alone."""
        first, second = _gathered(one), _gathered(other)
        if first is None or second is None or first[0] != second[0]:
            return False
        axis, wanted = first
        source = self._places(one.inputs[0], other.inputs[0])[axis]
        target = self._places(one.outputs[0], other.outputs[0])[axis]
        if source is None or target is None:
            return False
        kept = ~among(self.graph.axes[one.outputs[0]][axis][target], self.removed)
        return _picks(source, second[1][kept], wanted[target[kept]])

    def _moved(self, second: list[Equation], at: int) -> int:
        """How many equations from `at` on only take channels from their places or put them there.

        What they give is then a twin of whatever they read is a twin of.
        """
        width = 1 if second[at].name != "pad" else 2
        first, last = second[at], second[min(at + width, len(second)) - 1]
        gathered = _gathered(last)
        if gathered is None or (width == 2 and not _one_place(first, last, gathered[0])):
            return 0
        (axis, taken), array, (output,) = gathered, first.inputs[0], last.outputs
        for value in self._whole(array):
            line = self.graph.axes[value][axis]
            source = self._places(value, array)[axis]
            for target in (np.flatnonzero(~among(line, self.removed)), self._held(line)):
                if source is None or target.size != taken.size:
                    continue
                kept = ~among(line[target], self.removed)
                if _picks(source, taken[kept], target[kept]):
                    self.twins[value].add(output)
                    return width
        return 0

    def _whole(self, twin: Value) -> Iterator[Value]:
        """The values of the whole module that a value of the smaller one is a twin of."""
        return (value for value, twins in self.twins.items() if twin in twins)


def _picks(source: np.ndarray, taken: np.ndarray, wanted: np.ndarray) -> bool:
    """Whether places `taken` out of an axis that has the indices `source` are those `wanted`."""
    inside = (taken >= 0) & (taken < source.size)
    return bool(np.all(inside) and np.array_equal(source[taken], wanted))


def _window(equation: Equation, axis: int) -> range | None:
    """The places that a slice takes along an axis; None where they are not known."""
    if equation.name == "slice":
        steps = equation.params["strides"]
        start, end = (equation.params[name][axis] for name in ("start_indices", "limit_indices"))
        return range(start, end, 1 if steps is None else steps[axis])
    size, taken = equation.inputs[0].shape[axis], equation.outputs[0].shape[axis]
    start = equation.inputs[1 + axis].constant
    if start is None and taken < size:
        return None
    first = 0 if start is None else int(np.clip(int(start), 0, size - taken))
    return range(first, first + taken)


def _take_alike(one: range | None, other: range | None, source: np.ndarray | None) -> bool:
    """Whether two windows have the same channels, but for what is gone.

    Args:
        one: the whole axis's window.
        other: the smaller one's.
        source: the index in the whole axis of each index of the smaller; None if they are equal.
    """
    if one is None or other is None:  # at a place that is computed: both axes are whole
        return one is other and (source is None or np.array_equal(source, np.arange(source.size)))
    if source is None:
        return one == other
    inside = len(other) == 0 or max(other) < source.size
    return inside and np.array_equal(source[list(other)], source[np.isin(source, list(one))])


def _gathered(equation: Equation) -> tuple[int, np.ndarray] | None:
    """The axis along which an equation picks slices, and which, where they stand in the code."""
    if equation.name != "gather":
        return None
    numbers, (array, indices) = equation.params["dimension_numbers"], equation.inputs
    if indices.constant is None or len(numbers.collapsed_slice_dims) != 1:
        return None
    (axis,) = numbers.collapsed_slice_dims
    others = tuple(each for each in range(len(array.shape)) if each != axis)
    whole = all(equation.params["slice_sizes"][each] == array.shape[each] for each in others)
    if not whole or numbers.offset_dims != others or numbers.operand_batching_dims:
        return None
    return axis, indices.constant.ravel()


def _one_place(pad: Equation, gather: Equation, axis: int) -> bool:
    """Whether `pad` adds one place behind an axis, and `gather` reads what it gives."""
    added = [(0, 0, 0)] * len(pad.inputs[0].shape)
    added[axis] = (0, 1, 0)
    config = [tuple(map(int, edges)) for edges in pad.params["padding_config"]]
    return config == added and gather.inputs[0] is pad.outputs[0]


def _spreads(one: Equation, value: Value, other: Equation, twin: Value) -> bool:
    """Whether an axis that is as long as the result's in the whole net is so no more."""
    axes = one.params.get("broadcast_dimensions", range(len(value.shape)))
    return one.name in ELEMENTWISE | {"broadcast_in_dim"} and any(
        whole == value.shape[axis] and size != twin.shape[axis]
        for a, b in zip(one.inputs, other.inputs, strict=True)
        for whole, size, axis in zip(a.shape, b.shape, axes, strict=False)
    )


def _missing(equation: Equation) -> str:
    return f"{told(equation)} is in one of the two nets alone"


def _same(value: object, other: object) -> bool:
    """Whether two parameters are equal; what holds a computation is compared as it is written."""
    try:
        return bool(np.all(value == other)) or str(value) == str(other)
    except (TypeError, ValueError):
        return str(value) == str(other)


def _shown(constant: np.ndarray) -> str:
    if constant.size == 1:
        return f"{constant.item():.6g}"
    return f"an array {constant.shape}"
