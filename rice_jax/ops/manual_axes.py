"""Over which axes of a `shard_map` an array varies: JAX's type check asks for it by name."""

from typing import Any

import jax
from jax import lax


def varying_like(arrays: Any, *examples: jax.Array) -> Any:
    """The arrays (a pytree), made to vary over every axis over which one of `examples` does.

    An identity outside of `shard_map` and under its check_vma=False. Its transpose sums over the
    axes that were added.
    """
    axes = frozenset[str]().union(*map(_axes, examples))
    return jax.tree.map(lambda array: _vary(array, tuple(sorted(axes - _axes(array)))), arrays)


def _axes(array: jax.Array) -> frozenset[str]:
    kind = jax.typeof(array)
    if hasattr(kind, "vma"):  # until jax 0.9
        return kind.vma
    return getattr(getattr(kind, "manual_axis_type", None), "varying", frozenset())


def _vary(array: jax.Array, axes: tuple[str, ...]) -> jax.Array:
    if not axes:
        return array
    if hasattr(lax, "pcast"):
        return lax.pcast(array, axes, to="varying")
    return getattr(lax, "pvary")(array, axes)  # noqa: B009 (until jax 0.9)
