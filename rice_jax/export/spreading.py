"""Transposed convolutions written as plain ones, which converters do not get wrong.

Of a convolution over an image with zeros between its pixels jax2onnx makes a ConvTranspose that
neither turns the kernel nor spreads the pixels, and litert-converter a TRANSPOSE_CONV that is wrong
at the lower and right edges.
"""

from typing import Any

import jax
import jax.numpy as jnp

from rice_jax.graph.trace import Equation


def is_transposed(equation: Equation) -> bool:
    """Whether it is a convolution over an image with zeros between its pixels."""
    return any(step != 1 for step in equation.params.get("lhs_dilation", ()))


class ZerosBetween:
    """Stands in for such a convolution's primitive: the zeros first, then a convolution."""

    multiple_results = False

    def __init__(self, equation: Equation) -> None:
        self._primitive = equation.primitive

    def bind(self, x: jax.Array, kernel: jax.Array, **params: Any) -> jax.Array:
        """As a primitive's."""
        steps = params["lhs_dilation"]
        for axis, step in zip(params["dimension_numbers"].lhs_spec[2:], steps, strict=True):
            x = _apart(x, axis, step)
        return self._primitive.bind(x, kernel, **params | {"lhs_dilation": (1,) * len(steps)})


def _apart(x: jax.Array, axis: int, step: int) -> jax.Array:
    """The array with `step` - 1 zeros between what it has along an axis.

    By no more axes than it has: LiteRT pads few, tflite-micro four.
    """
    (*before, size), after = x.shape[: axis + 1], x.shape[axis + 1 :]
    rows = x.reshape(*before, size, -1)
    edges = [(0, 0)] * axis + [(0, 0), (0, (step - 1) * rows.shape[-1])]
    spread = jnp.pad(rows, edges).reshape(*before, size * step, *after)
    return jax.lax.slice_in_dim(spread, 0, (size - 1) * step + 1, axis=axis)
