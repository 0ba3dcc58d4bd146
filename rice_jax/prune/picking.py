"""How labels of channels pass through what picks a part of an axis: slices, splits, gathers."""

import numpy as np

from rice_jax.graph.trace import Equation
from rice_jax.prune.propagation import FIXED, Labels, Propagation, uniform


def static_slice(p: Propagation, equation: Equation) -> list[Labels]:
    """The rule of `slice`: start, limit and step of each axis are written in the computation."""
    params = equation.params
    ends = zip(
        params["start_indices"],
        params["limit_indices"],
        params["strides"] or (1,) * len(params["start_indices"]),
        strict=True,
    )
    lines = zip(p.of(equation.inputs[0]), ends, strict=True)
    return [tuple(_picked(p, line, np.arange(*end)) for line, end in lines)]


def dynamic_slice(p: Propagation, equation: Equation) -> list[Labels]:
    """The rule of `dynamic_slice`: starts that the input changes leave no labels."""
    operand, *starts = equation.inputs
    result = []
    for line, at, size in zip(p.of(operand), starts, equation.params["slice_sizes"], strict=True):
        start = p.origins.constant(at)
        if size == len(line):
            result.append(line)
        elif start is None:
            p.refuse(equation, line)
            result.append(np.full(size, FIXED))
        else:
            first = int(np.clip(start, 0, len(line) - size))
            result.append(_picked(p, line, np.arange(first, first + size)))
    return [tuple(result)]


def split(p: Propagation, equation: Equation) -> list[Labels]:
    """The rule of `split`."""
    labels, along = p.of(equation.inputs[0]), equation.params["axis"]
    sizes = equation.params["sizes"]
    return [
        tuple(
            _picked(p, line, np.arange(end - size, end)) if axis == along else line
            for axis, line in enumerate(labels)
        )
        for end, size in zip(np.cumsum(sizes), sizes, strict=True)
    ]


def gather(p: Propagation, equation: Equation) -> list[Labels]:
    """The rule of `gather`: places along one axis that are known, or whole slices of an axis."""
    operand, indices = equation.inputs
    taken = _taken(p, equation)
    if taken is None:
        for line in p.of(indices):
            p.refuse(equation, line)
        return [_of_slices(p, equation)]
    along, places = taken
    return [
        tuple(
            _picked(p, line, places) if axis == along else line
            for axis, line in enumerate(p.of(operand))
        )
    ]


def _of_slices(p: Propagation, equation: Equation) -> Labels:
    """Labels of what is gathered at any places: only axes along which all is taken keep theirs."""
    operand, (output,) = equation.inputs[0], equation.outputs
    numbers, sizes = equation.params["dimension_numbers"], equation.params["slice_sizes"]
    result = list(uniform(FIXED, output.shape))
    gone = (*numbers.collapsed_slice_dims, *numbers.operand_batching_dims)
    kept = [axis for axis in range(len(operand.shape)) if axis not in gone]
    target = dict(zip(kept, numbers.offset_dims, strict=True))
    for axis, line in enumerate(p.of(operand)):
        whole = axis not in numbers.start_index_map and sizes[axis] == len(line)
        if whole and axis in target:
            result[target[axis]] = line
        else:
            p.refuse(equation, line)
    return tuple(result)


def _taken(p: Propagation, equation: Equation) -> tuple[int, np.ndarray] | None:
    """The axis that is gathered along and the places there, if that is all that is done."""
    (operand, indices), (output,) = equation.inputs, equation.outputs
    numbers, sizes = equation.params["dimension_numbers"], list(equation.params["slice_sizes"])
    places = p.origins.constant(indices)
    if len(numbers.start_index_map) != 1 or numbers.operand_batching_dims or places is None:
        return None
    (axis,) = numbers.start_index_map
    whole = list(operand.shape)
    whole[axis] = 1
    others = tuple(other for other in range(len(output.shape)) if other != axis)
    if (
        sizes != whole
        or tuple(numbers.collapsed_slice_dims) != (axis,)
        or tuple(numbers.offset_dims) != others
        or places.ndim != 2
        or not np.all((places >= 0) & (places < operand.shape[axis]))
    ):
        return None
    return axis, places[:, 0]


def _picked(p: Propagation, labels: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The labels at some places of an axis."""
    if not np.array_equal(places, np.arange(len(labels))):
        p.place(labels)
    return labels[places]
