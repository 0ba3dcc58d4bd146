"""How labels of channels pass through a reshape: merged with other axes, or parted into several."""

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from rice_jax.graph.primitives import CASTS, ELEMENTWISE, RENAMES
from rice_jax.graph.trace import Equation, Trace, Value
from rice_jax.prune.propagation import ANY, FIXED, Labels, Propagation, solid, uniform

_FAR = 100
"""Operations after a reshape that are asked which axis they read as channels."""


def reshape(p: Propagation, equation: Equation) -> list[Labels]:
    """The rule of `reshape`.

    An axis of channels that is parted into several keeps them apart along the one that the net
    reads as channels; those that then have the same place there are tied together.
    """
    (value, *_), (output,) = equation.inputs, equation.outputs
    source, target = value.shape, output.shape
    labels, result = p.of(value), list(uniform(ANY, target))
    if 0 in target:  # no number, whichever channel's it would be
        return [tuple(result)]
    if equation.params["dimensions"] is not None:
        for line in labels:
            p.refuse(equation, line)
        return [uniform(FIXED, target)]
    for ins, outs in _blocks(source, target):
        if all(np.all(labels[axis] == ANY) for axis in ins):
            continue
        named = [axis for axis in ins if np.any(labels[axis] > FIXED)]
        for axis in outs:
            result[axis] = np.full(target[axis], FIXED)
        if len(named) > 1:
            for axis in named:
                p.refuse(equation, labels[axis])
        elif named:
            line = labels[named[0]]
            if len(ins) > 1:
                p.reshaped.append(line[line > FIXED])
            block = _laid_out(line, ins.index(named[0]), ins, outs, source, target)
            axis, result[axis] = _told_apart(block, outs) or _tied(p, block, outs, output)
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


def _laid_out(
    line: np.ndarray,
    place: int,
    ins: Sequence[int],
    outs: Sequence[int],
    source: Sequence[int],
    target: Sequence[int],
) -> np.ndarray:
    """The labels of the axis at `place` of `ins` at each place of the axes `outs`."""
    other = tuple(each for each in range(len(ins)) if each != place)
    full = np.broadcast_to(np.expand_dims(solid(line), other), [source[axis] for axis in ins])
    return full.reshape([target[axis] for axis in outs])


def _told_apart(block: np.ndarray, outs: Sequence[int]) -> tuple[int, np.ndarray] | None:
    """The output axis, and its labels, that alone tells the labels apart."""
    for position, axis in enumerate(outs):
        rows = np.moveaxis(block, position, 0).reshape(block.shape[position], -1)
        if np.all(rows == rows[:, :1]):
            return axis, rows[:, 0]
    return None


def _tied(
    p: Propagation, block: np.ndarray, outs: Sequence[int], output: Value
) -> tuple[int, np.ndarray]:
    """The output axis that is read as channels, and its labels: one of those at each place."""
    p.place(block)
    axis = _channel_axis(p.trace, output, outs)
    rows = np.moveaxis(block, outs.index(axis), 0).reshape(output.shape[axis], -1)
    for column in rows.T[1:]:
        p.link(rows[:, 0], column)
    return axis, rows[:, 0]


def _channel_axis(trace: Trace, value: Value, axes: Sequence[int]) -> int:
    """The one of some axes that a later operation reads as channels; else the largest."""
    paths = [(value, {axis: axis for axis in axes})]  # where each is then: where it is now
    for reached, places in paths:
        if len(places) == 1:
            return next(iter(places.values()))
        for reader in trace.consumers(reached):
            found = _followed(reader, reached, places)
            if found and len(paths) < _FAR:
                paths.append((reader.outputs[0], found))
    return max(axes, key=lambda axis: (value.shape[axis], axis))


def _followed(reader: Equation, value: Value, places: Mapping[int, int]) -> dict[int, int]:
    """The axes that may still be channels after `reader`; {} where it hides them."""
    name, params = reader.name, reader.params
    if name in ELEMENTWISE | RENAMES | CASTS and reader.outputs[0].shape == value.shape:
        return dict(places)
    if name == "transpose":
        return {params["permutation"].index(now): was for now, was in places.items()}
    if name.startswith("reduce_") and "axes" in params:
        kept = [axis for axis in range(len(value.shape)) if axis not in params["axes"]]
        return {kept.index(now): was for now, was in places.items() if now in kept}
    if name == "reshape":
        alone = {
            ins[0]: outs[0]
            for ins, outs in _blocks(value.shape, reader.outputs[0].shape)
            if len(ins) == len(outs) == 1
        }
        return {alone[now]: was for now, was in places.items() if now in alone}
    read: Sequence[int] = ()
    if name == "conv_general_dilated" and reader.inputs[0] is value:
        read = (params["dimension_numbers"].lhs_spec[1],)
    if name == "dot_general":
        read = params["dimension_numbers"][0][reader.inputs.index(value)]
    return {now: was for now, was in places.items() if now in read}
