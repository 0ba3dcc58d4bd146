"""A rule for each primitive: how labels of channels pass through it."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from rice_jax.graph.primitives import CASTS, ELEMENTWISE, REDUCTIONS, RENAMES, WINDOWS
from rice_jax.graph.trace import Equation, Trace
from rice_jax.prune import picking
from rice_jax.prune.propagation import (
    ANY,
    FIXED,
    UNSEEN,
    Contraction,
    Labels,
    Propagation,
    solid,
    uniform,
)
from rice_jax.prune.reshape import reshape

Rule = Callable[[Propagation, Equation], Sequence[Labels]]
"""From what is known so far and an equation to the labels of its outputs. `p.of(value)` are an
operand's, one array an axis; `p.link` ties two axes, `p.fix` keeps labels, `p.refuse` gives up."""


def propagate(trace: Trace, rules: Mapping[str, Rule] = MappingProxyType({})) -> Propagation:
    """Label every value of a trace, from its variables to its outputs; `rules` before our own."""
    p = Propagation(trace)
    for equation in trace.equations:
        p.at = equation
        rule = rules.get(equation.name) or RULES.get(equation.name, _unknown)
        p.give(equation, rule(p, equation))
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
        filters = p.link(filters, np.repeat(solid(maps), len(filters) // groups))
    else:  # the same position of every group together, so that groups stay equally wide
        rows = p.link(p.of(kernel)[in_axis], solid(maps)[: len(maps) // groups])
        p.link(solid(maps), np.tile(rows, groups))
        p.link(filters, np.tile(filters[: len(filters) // groups], groups))
        p.contractions.append(Contraction(equation, 0, feature))
    p.note_filters(kernel, [out_axis])
    result = list(uniform(FIXED, equation.outputs[0].shape))
    result[numbers.out_spec[0]] = p.of(image)[batch]
    result[numbers.out_spec[1]] = filters
    return [tuple(result)]


_HEADS = "makes several axes at once (heads by their width), which stay as they are"


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
            lines = [p.refuse(equation, line, _HEADS) for line in lines]
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
    """A channel that is repeated goes with all its copies; a single entry is broadcast."""
    result = []
    for line, times in zip(p.of(equation.inputs[0]), equation.params["reps"], strict=True):
        if times == 1:
            result.append(line)
        elif len(line) == 1:
            p.fix(line)
            result.append(np.full(times, ANY))
        else:
            result.append(np.tile(solid(line), times))
    return [tuple(result)]


def _reverse(p: Propagation, equation: Equation) -> list[Labels]:
    turned = equation.params["dimensions"]
    labels = p.of(equation.inputs[0])
    return [tuple(line[::-1] if axis in turned else line for axis, line in enumerate(labels))]


def _windows(p: Propagation, equation: Equation) -> list[Labels]:
    """An axis that no window spans keeps its labels."""
    output, window = equation.outputs[0].shape, equation.params["window_dimensions"]
    result = []
    for labels, size, wide in zip(p.of(equation.inputs[0]), output, window, strict=True):
        if len(labels) == size and wide == 1:
            result.append(labels)
        else:
            p.refuse(equation, labels)
            result.append(np.full(size, FIXED))
    return [tuple(result)] * len(equation.outputs)


_TOGETHER = (
    "is made of all channels together, as a layer norm's means are, and would be another without "
    "some of them"
)


def _along(name: str, drop: bool) -> Rule:
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
                p.refuse(equation, labels[axis], _TOGETHER if drop else UNSEEN)
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


_SEVERAL = frozenset({"device_put", "optimization_barrier"})
"""What renames several arrays at once, each of its own shape."""
_SAME_SHAPE = ELEMENTWISE | (RENAMES - _SEVERAL) | CASTS
_SCANS = (
    "cumlogsumexp",
    "cummax",
    "cummin",
    "cumprod",
    "cumsum",
)

RULES: dict[str, Rule] = {
    **dict.fromkeys(_SAME_SHAPE, _elementwise),
    **dict.fromkeys(REDUCTIONS, _along("axes", drop=True)),
    **dict.fromkeys(_SEVERAL, _each_alone),
    **dict.fromkeys(WINDOWS, _windows),
    **dict.fromkeys(_SCANS, _along("axis", drop=False)),
    "broadcast_in_dim": _broadcast,
    "concatenate": _concatenate,
    "conv_general_dilated": _convolution,
    "dot_general": _dot,
    "dynamic_slice": picking.dynamic_slice,
    "gather": picking.gather,
    "pad": _pad,
    "reshape": reshape,
    "rev": _reverse,
    "slice": picking.static_slice,
    "split": picking.split,
    "squeeze": _squeeze,
    "tile": _tile,
    "transpose": _transpose,
}
"""From JAX's name of a primitive to the rule that sees through it."""
