"""Exact 64-bit counts on devices that add 32-bit integers."""

import jax
import jax.numpy as jnp
import numpy as np


def zeros(number: int) -> np.ndarray:
    """Counts of nothing: uint32 (2, number), the lower and the upper half of each."""
    return np.zeros((2, number), np.uint32)


def add(counts: jax.Array, more: jax.Array) -> jax.Array:
    """The counts with `more`, uint32 (number,), added."""
    low = counts[0] + more
    carry = (low < more).astype(jnp.uint32)
    return jnp.stack([low, counts[1] + carry])


def to_host(counts: jax.Array) -> np.ndarray:
    """The counts as int64 (number,)."""
    low, high = np.asarray(counts).astype(np.int64)
    return low + (high << 32)
