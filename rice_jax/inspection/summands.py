"""Operations that add numbers up, and how many: what rounding of their sums is told by."""

import math

from rice_jax.graph.equations import Equation

PRODUCTS = ("conv_general_dilated", "dot_general")
"""Sums of products."""
SUMS = ("reduce_sum", "reduce_window_sum")


def summands(equation: Equation) -> int:
    """How many terms each number of the result of `PRODUCTS` or `SUMS` is the sum of."""
    first, params = equation.inputs[0], equation.params
    if equation.name == "conv_general_dilated":
        kernel = equation.inputs[1]
        return kernel.size // kernel.shape[params["dimension_numbers"].rhs_spec[0]]
    if equation.name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        return math.prod(first.shape[axis] for axis in contracted)
    if equation.name == "reduce_window_sum":
        return math.prod(params["window_dimensions"])
    return first.size // max(equation.outputs[0].size, 1)
