"""How a shape that a user gives is read: with its batch dimension or without."""

import operator
from typing import Any

from rice_jax.errors import UserError
from rice_jax.graph.arrays import InputShape
from rice_jax.graph.failing import taking
from rice_jax.graph.fronts import front
from rice_jax.graph.trace import Trace, trace


def whole_shape(shape: InputShape, batched: bool | None = None) -> tuple[int, ...]:
    """An input shape with its batch dimension.

    Args:
        shape: NumPy's or Python's numbers. Three are one image (H, W, C), which gets a batch of
            one; any other number of them is a whole shape (N, ...).
        batched: whether `shape` has its batch dimension, where that is otherwise.

    Raises:
        UserError: for sizes that are not positive whole numbers.
    """
    try:
        sizes = tuple(operator.index(size) for size in shape)
    except TypeError:
        sizes = ()
    if not sizes or any(size < 1 for size in sizes):
        raise UserError(f"input shape {shape} must be positive whole numbers: (H, W, C)")
    if batched is None:
        batched = len(sizes) != 3
    return sizes if batched else (1, *sizes)


def traced_for(module: Any, shape: InputShape, *args: Any, **kwargs: Any) -> Trace:
    """`trace` for a shape that a user gave; UserError where the net does not run on such."""
    net = front(module)
    with taking(net.name, shape):
        return trace(net, shape, *args, **kwargs)


def traced_alone(
    module: Any, shape: InputShape, batched: bool | None = None, **kwargs: Any
) -> Trace:
    """`trace` for one image, whatever batch a user gave the shape of.

    Raises:
        UserError: sizes that are none, a net that does not run on such, or a shape that was read
            wrongly.
    """
    _, *image = whole_shape(shape, batched)
    traced = traced_for(module, (1, *image), **kwargs)
    check_reading(traced, shape, batched)
    return traced


def dimensions_of(traced: Trace) -> tuple[int, str]:
    """Along how many dimensions the net's convolutions work, at most, and the layer of one that
    does; 0 where there are none."""
    found = (
        (len(equation.inputs[1].shape) - 2, equation.layer)
        for equation in traced.equations
        if equation.name == "conv_general_dilated"
    )
    return max(found, default=(0, ""))


def check_reading(traced: Trace, shape: InputShape, batched: bool | None) -> None:
    """UserError where the net's convolutions show that `shape` was read wrongly.

    A 1-D net takes (N, L, C) and a 3-D net (N, D, H, W, C): other numbers of sizes than an image's
    would be counted as another computation, and Flax runs it.
    """
    dimensions, layer = dimensions_of(traced)
    read = traced.input.shape
    if batched is None and dimensions and len(read) != dimensions + 2:
        raise UserError(
            f"input shape {tuple(shape)} would be read as {read}, where convolution {layer!r} "
            f"works along {dimensions} dimension{'s' * (dimensions > 1)}: give so many sizes and "
            "the channels, and say batched=True if the first number is the batch, batched=False if "
            "there is none"
        )
