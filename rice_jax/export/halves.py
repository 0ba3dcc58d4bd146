"""Rounding of halves away from 0, where formats and converters know that to even numbers alone."""

from typing import Any

import jax
import jax.numpy as jnp

from rice_jax.graph.trace import Equation


def go_away(equation: Equation) -> bool:
    """Whether it rounds 0.5 to 1 and -0.5 to -1."""
    method = equation.params.get("rounding_method")
    return equation.name == "round" and method == jax.lax.RoundingMethod.AWAY_FROM_ZERO


class Away:
    """Stands in for such a rounding's primitive."""

    multiple_results = False

    def bind(self, x: jax.Array, **_: Any) -> jax.Array:
        """As a primitive's."""
        size = jnp.abs(x)
        whole = jnp.floor(size)
        return jnp.sign(x) * (whole + (size - whole >= 0.5))
