"""The equations of a traced net run by this room's operations, which are fast on CPU."""

from typing import Any

import jax.numpy as jnp

from rice_jax.graph.equations import Equation
from rice_jax.ops.convolution import conv_general_dilated
from rice_jax.ops.pooling import max_pool


def replayed(equation: Equation, *operands: Any) -> list[Any]:
    """What `Equation.apply` gives: by our convolution or max pooling where the equation is one.

    For `Trace.evaluate(run=...)`, whatever net was traced. Values and gradients are equal but for
    the order of summation; differentiable in reverse, not in forward mode.
    """
    if equation.name == "conv_general_dilated":
        lhs, rhs = operands
        return [conv_general_dilated(lhs, rhs, **equation.params)]
    if equation.name == "reduce_window_max" and _pools_maps(equation):
        window, strides, padding = (
            equation.params[name][1:3]
            for name in ("window_dimensions", "window_strides", "padding")
        )
        return [max_pool(operands[0], window, strides, padding)]
    return equation.apply(*operands)


def _pools_maps(equation: Equation) -> bool:
    """Whether the maximum is over windows of floats (N, H, W, C), along H and W alone."""
    (x,), params = equation.inputs, equation.params
    if len(x.shape) != 4 or not jnp.issubdtype(x.dtype, jnp.floating):
        return False
    ends = [
        params[name][axis] for name in ("window_dimensions", "window_strides") for axis in (0, 3)
    ]
    dilations = (*params["base_dilation"], *params["window_dilation"])
    return {*ends, *dilations} == {1} and all(tuple(params["padding"][a]) == (0, 0) for a in (0, 3))
