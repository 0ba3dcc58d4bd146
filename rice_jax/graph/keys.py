"""Random keys carried into a trace as the constants that other arrays are there."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def carried(tree: Any) -> Callable[[], Any]:
    """Gives the tree again; random keys in it are plain numbers until then, as constants are."""
    leaves, structure = jax.tree.flatten(tree)
    opened = [
        (np.asarray(jax.random.key_data(leaf)), jax.random.key_impl(leaf)) if is_key(leaf) else leaf
        for leaf in leaves
    ]

    def close() -> Any:
        return jax.tree.unflatten(
            structure,
            [
                jax.random.wrap_key_data(jnp.asarray(each[0]), impl=each[1])
                if is_key(leaf)
                else each
                for leaf, each in zip(leaves, opened, strict=True)
            ],
        )

    return close


def is_key(leaf: Any) -> bool:
    """Whether it is an array of keys of JAX's own type."""
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
