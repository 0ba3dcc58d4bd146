"""ReLU whose gradient reads its result, and fuses with that of a 2x2 max pool."""

import jax
import jax.numpy as jnp
from jax import lax

from rice_jax.ops.mode import Mode, mode


def relu(x: jax.Array) -> jax.Array:
    """max(x, 0), with a gradient of 0 at 0; differentiable in reverse, any number of times.

    `jax.nn.relu` has the same values and gradients, and keeps x for its gradient. This one keeps
    the result, which the next layer keeps anyway.
    """
    return jax.nn.relu(x) if mode() is Mode.PLAIN else _relu(x)


@jax.custom_vjp
def _relu(x: jax.Array) -> jax.Array:
    return jnp.maximum(x, 0)


def _forward(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    y = _relu(x)
    return y, y


def _backward(y: jax.Array, gradient: jax.Array) -> tuple[jax.Array]:
    return (lax.platform_dependent(y, gradient, cpu=_masked_by_rows, default=_masked),)


_relu.defvjp(_forward, _backward)


def _masked(y: jax.Array, gradient: jax.Array) -> jax.Array:
    return jnp.where(y > 0, gradient, jnp.zeros_like(gradient))


def _masked_by_rows(y: jax.Array, gradient: jax.Array) -> jax.Array:
    """`_masked` over pairs of rows: a 2x2 pool's gradient is made so, and XLA fuses the two."""
    if y.ndim != 4 or y.shape[1] % 2:
        return _masked(y, gradient)
    pairs = (y.shape[0], y.shape[1] // 2, 2, y.shape[2] * y.shape[3])
    return _masked(y.reshape(pairs), gradient.reshape(pairs)).reshape(y.shape)
