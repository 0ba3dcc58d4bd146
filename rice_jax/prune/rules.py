"""A rule for each primitive: how labels of channels pass through it."""

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from rice_jax.graph.primitives import CASTS, ELEMENTWISE, REDUCTIONS, RENAMES, WINDOWS
from rice_jax.graph.trace import Equation, Trace
from rice_jax.prune.propagation import (
    ANY,
    FIXED,
    Contraction,
    Labels,
    Propagation,
    solid,
    uniform,
)


def propagate(trace: Trace) -> Propagation:
    """Label every value of a trace, from its variables to its outputs."""
    p = Propagation(trace)
    for equation in trace.equations:
        p.at = equation
        p.give(equation, RULES.get(equation.name, _unknown)(p, equation))
    p.at = None
    for output in trace.outputs:
        for labels in p.of(output):
            p.fix(labels)
    return p


def _unknown(p: Propagation, equation: Equation) -> list[Labels]:
    for value in equation.inputs:
        for labels in p.of(value):
            p.refuse(equation, labels)
    return [uniform(FIXED, output.shape) for output in equation.outputs]


def _elementwise(p: Propagation, equation: Equation) -> list[Labels]:
    shape = equation.outputs[0].shape
    result = list(uniform(ANY, shape))
    for value in equation.inputs:
        if not value.shape:
            continue
        for axis, labels in enumerate(p.of(value)):
            if len(labels) == shape[axis]:
                result[axis] = p.link(result[axis], labels)
            else:
                p.fix(labels)
    return [tuple(result)] * len(equation.outputs)


def _each_alone(p: Propagation, equation: Equation) -> list[Labels]:
    return [p.of(value) for value in equation.inputs]


def _convolution(p: Propagation, equation: Equation) -> list[Labels]:
    image, kernel = equation.inputs
    numbers, groups = equation.params["dimension_numbers"], equation.params["feature_group_count"]
    if equation.params["batch_group_count"] != 1:
        return _unknown(p, equation)
    (batch, feature, *space), (out_axis, in_axis, *window) = numbers.lhs_spec, numbers.rhs_spec
    for axis in space:
        p.refuse(equation, p.of(image)[axis])
    for axis in window:
        p.fix(p.of(kernel)[axis])
    maps, filters = p.of(image)[feature], p.of(kernel)[out_axis]
    if groups == 1:
        p.contract(equation, (feature, in_axis))
    elif kernel.shape[in_axis] == 1:  # depthwise: each channel on its own
        p.fix(p.of(kernel)[in_axis])
        p.link(np.repeat(solid(maps), len(filters) // groups), filters)
    else:  # the same position of every group together, so that groups stay equally wide
        p.link(solid(maps), np.tile(p.of(kernel)[in_axis], groups))
        p.link(filters, np.tile(filters[: len(filters) // groups], groups))
        p.contractions.append(Contraction(equation, 0, feature))
    p.note_filters(kernel, [out_axis])
    result = list(uniform(FIXED, equation.outputs[0].shape))
    result[numbers.out_spec[0]] = p.of(image)[batch]
    result[numbers.out_spec[1]] = filters
    return [tuple(result)]


def _dot(p: Propagation, equation: Equation) -> list[Labels]:
    (contracted, batch) = equation.params["dimension_numbers"]
    for axes in zip(*contracted, strict=True):
        p.contract(equation, axes)
    left, right = map(p.of, equation.inputs[:2])
    result = [p.link(left[a], right[b]) for a, b in zip(*batch, strict=True)]
    for operand, labels in enumerate((left, right)):
        free = [a for a in range(len(labels)) if a not in (*contracted[operand], *batch[operand])]
        lines = [labels[axis] for axis in free]
        if len(free) > 1 and p.origins.is_weight(equation.inputs[operand]):
            # Heads by their width: a layer has no field for each, and attention scales by them.
            lines = [p.refuse(equation, line) for line in lines]
        p.note_filters(equation.inputs[operand], free)
        result += lines
    return [tuple(result)]


def _broadcast(p: Propagation, equation: Equation) -> list[Labels]:
    result = list(uniform(ANY, equation.params["shape"]))
    mapped = equation.params["broadcast_dimensions"]
    for labels, axis in zip(p.of(equation.inputs[0]), mapped, strict=True):
        if len(labels) == len(result[axis]):
            result[axis] = labels
        else:
            p.fix(labels)
    return [tuple(result)]


def _reshape(p: Propagation, equation: Equation) -> list[Labels]:
    source, target = equation.inputs[0].shape, equation.outputs[0].shape
    if equation.params["dimensions"] is not None or 0 in source:
        return _unknown(p, equation)
    labels, result = p.of(equation.inputs[0]), list(uniform(ANY, target))
    for ins, outs in _blocks(source, target):
        if all(np.all(labels[axis] == ANY) for axis in ins):
            continue
        named = [axis for axis in ins if np.any(labels[axis] > FIXED)]
        if named == ins and len(outs) > 1 and _reduced(p, equation, outs[1:]):
            tied = _tied(p, labels[named[0]], target[outs[0]])
            labels = tuple(tied if axis == named[0] else line for axis, line in enumerate(labels))
        split = _split(labels, ins, outs, named[0], source, target) if len(named) == 1 else None
        for axis in outs:
            result[axis] = np.full(target[axis], FIXED)
        if split:
            result[split[0]] = split[1]
        else:
            for axis in named:
                p.refuse(equation, labels[axis])
    for axis, size in enumerate(source):
        if size == 1:
            p.fix(labels[axis])
    return [tuple(result)]


def _blocks(source: Sequence[int], target: Sequence[int]) -> Iterator[tuple[list[int], list[int]]]:
    """Runs of axes, those of size 1 left out, that a reshape turns into one another."""
    left = [axis for axis, size in enumerate(source) if size != 1]
    right = [axis for axis, size in enumerate(target) if size != 1]
    while left:
        ins, outs = [left.pop(0)], [right.pop(0)]
        while (a := math.prod(source[i] for i in ins)) != (b := math.prod(target[i] for i in outs)):
            (ins if a < b else outs).append((left if a < b else right).pop(0))
        yield ins, outs


def _split(
    labels: Labels,
    ins: Sequence[int],
    outs: Sequence[int],
    named: int,
    source: Sequence[int],
    target: Sequence[int],
) -> tuple[int, np.ndarray] | None:
    """The output axis, and its labels, that alone tells the labels of the axis `named` apart."""
    other = tuple(i for i, axis in enumerate(ins) if axis != named)
    line = np.expand_dims(solid(labels[named]), other)
    full = np.broadcast_to(line, [source[axis] for axis in ins])
    full = full.reshape([target[axis] for axis in outs])
    for position, axis in enumerate(outs):
        rows = np.moveaxis(full, position, 0).reshape(target[axis], -1)
        if np.all(rows == rows[:, :1]):
            return axis, rows[:, 0]
    return None


def _reduced(p: Propagation, split: Equation, inner: Sequence[int]) -> bool:
    """Whether what a reshape splits off is only reduced away, as in a group norm, or joined again.

    Args:
        p: what is known of the trace.
        split: the reshape.
        inner: the axes of its output that vanish.
    """
    values, reduced = list(split.outputs), False
    for value in values:
        for reader in p.trace.consumers(value):
            if reader.name in REDUCTIONS and set(inner) <= set(reader.params["axes"]):
                reduced = True
            elif reader.name in _SAME_SHAPE and reader.outputs[0].shape == value.shape:
                values += [each for each in reader.outputs if each not in values]
            elif reader.name != "reshape" or reader.outputs[0].shape != split.inputs[0].shape:
                return False
    return reduced and not set(values) & set(p.trace.outputs)


def _tied(p: Propagation, labels: np.ndarray, parts: int) -> np.ndarray:
    """The labels of an axis of which each of so many equal parts is one channel."""
    rows = labels.reshape(parts, -1)
    first = np.repeat(rows[:, 0], rows.shape[1])
    p.link(first, labels)
    return first


def _squeeze(p: Propagation, equation: Equation) -> list[Labels]:
    dropped, labels = equation.params["dimensions"], p.of(equation.inputs[0])
    for axis in dropped:
        p.fix(labels[axis])
    return [tuple(line for axis, line in enumerate(labels) if axis not in dropped)]


def _transpose(p: Propagation, equation: Equation) -> list[Labels]:
    labels = p.of(equation.inputs[0])
    return [tuple(labels[axis] for axis in equation.params["permutation"])]


def _concatenate(p: Propagation, equation: Equation) -> list[Labels]:
    along = equation.params["dimension"]
    result = list(uniform(ANY, equation.outputs[0].shape))
    result[along] = np.concatenate([solid(p.of(value)[along]) for value in equation.inputs])
    for value in equation.inputs:
        for axis, labels in enumerate(p.of(value)):
            if axis != along:
                result[axis] = p.link(result[axis], labels)
    return [tuple(result)]


def _pad(p: Propagation, equation: Equation) -> list[Labels]:
    """Added entries stay: how many there are is written in the computation."""
    result = []
    for labels, (low, high, inner) in zip(
        p.of(equation.inputs[0]), equation.params["padding_config"], strict=True
    ):
        if low < 0 or high < 0 or inner:
            labels = p.refuse(equation, labels)
            size = len(labels) + (len(labels) - 1) * inner + low + high
            result.append(np.full(size, FIXED))
        else:
            line = solid(labels) if low or high else labels
            result.append(np.pad(line, (low, high), constant_values=FIXED))
    return [tuple(result)]


def _tile(p: Propagation, equation: Equation) -> list[Labels]:
    """A channel that is repeated goes with all its copies."""
    lines = zip(p.of(equation.inputs[0]), equation.params["reps"], strict=True)
    return [tuple(line if n == 1 else np.tile(solid(line), n) for line, n in lines)]


def _reverse(p: Propagation, equation: Equation) -> list[Labels]:
    turned = equation.params["dimensions"]
    labels = p.of(equation.inputs[0])
    return [tuple(line[::-1] if axis in turned else line for axis, line in enumerate(labels))]


def _whole_axes(p: Propagation, equation: Equation) -> list[Labels]:
    """Slices and windows: an axis of which all is taken as it is keeps its labels."""
    output = equation.outputs[0].shape
    window = equation.params.get("window_dimensions", (1,) * len(output))
    result = []
    for labels, size, wide in zip(p.of(equation.inputs[0]), output, window, strict=True):
        if len(labels) == size and wide == 1:
            result.append(labels)
        else:
            p.refuse(equation, labels)
            result.append(np.full(size, FIXED))
    return [tuple(result)] * len(equation.outputs)


def _along(name: str, drop: bool) -> Callable[[Propagation, Equation], list[Labels]]:
    """A rule for what mixes the axes given by its parameter `name`, and drops them or not."""

    def rule(p: Propagation, equation: Equation) -> list[Labels]:
        given = equation.params[name]
        mixed = (given,) if isinstance(given, int) else tuple(given)
        labels = list(p.of(equation.inputs[0]))
        # A weight's mean or norm is seen through, and would be another one with fewer entries.
        is_weight = p.origins.is_weight(equation.inputs[0])
        for axis in mixed:
            if is_weight:
                p.fix(labels[axis])
            else:
                p.refuse(equation, labels[axis])
            labels[axis] = np.full_like(labels[axis], FIXED)
        kept = [line for axis, line in enumerate(labels) if not (drop and axis in mixed)]
        return [
            tuple(
                line if len(line) == size else np.full(size, FIXED)
                for line, size in zip(kept, output.shape, strict=True)
            )
            for output in equation.outputs
        ]

    return rule


_SAME_SHAPE = ELEMENTWISE | (RENAMES - {"optimization_barrier"}) | CASTS
_WHOLE_AXES = (*WINDOWS, "dynamic_slice", "slice")
_SCANS = (
    "cumlogsumexp",
    "cummax",
    "cummin",
    "cumprod",
    "cumsum",
    "split",
)

RULES: dict[str, Callable[[Propagation, Equation], list[Labels]]] = {
    **dict.fromkeys(_SAME_SHAPE, _elementwise),
    **dict.fromkeys(REDUCTIONS, _along("axes", drop=True)),
    **dict.fromkeys(_WHOLE_AXES, _whole_axes),
    **dict.fromkeys(_SCANS, _along("axis", drop=False)),
    "broadcast_in_dim": _broadcast,
    "concatenate": _concatenate,
    "conv_general_dilated": _convolution,
    "dot_general": _dot,
    "optimization_barrier": _each_alone,
    "pad": _pad,
    "reshape": _reshape,
    "rev": _reverse,
    "squeeze": _squeeze,
    "tile": _tile,
    "transpose": _transpose,
}
"""From JAX's name of a primitive to the rule that sees through it."""
