"""Batch norms in training: statistics of the global batch, kept as parameters no gradient reaches.

As parameters they are where the others are: in checkpoints, in what is evaluated, inspected, pruned
and exported. Keras counts them so too.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct, traverse_util
from jax import lax

from rice_jax.errors import UserError

COLLECTION = "statistics"
"""What a norm writes in training: what its statistics are to be after the step."""
AFFINE = "affine"
"""What a norm leaves by its running statistics: 'factor' and 'offset' of each channel."""
STATISTICS = ("running_mean", "running_var")


class Rows(struct.PyTreeNode):
    """The images of a device's share of a batch."""

    weight: jax.Array
    """(N,), 0 for what only fills up the batch."""
    axis: str | None = struct.field(pytree_node=False, default=None)
    """Of the mesh, over which the batch is spread; None for a batch that is all here."""
    alone: bool = struct.field(pytree_node=False, default=False)
    """Whether norms leave this batch's statistics, not a running average with them."""


def places(params: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The batch norms among these parameters, or among statistics: the names that lead to each."""
    flat = traverse_util.flatten_dict(dict(params))
    return [path[:-1] for path in flat if path[-1] == STATISTICS[0]]


def norms(params: Mapping[str, Any]) -> frozenset[str]:
    """Paths of the batch norms whose statistics are among these parameters."""
    return frozenset(map("/".join, places(params)))


def arrays(params: Mapping[str, Any]) -> list[str]:
    """Paths of the statistics among these parameters, as 'bn1/running_mean', that do not learn."""
    return ["/".join((*place, name)) for place in places(params) for name in STATISTICS]


def updated(params: Mapping[str, Any], statistics: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters with other statistics, where they have them."""
    if not statistics:
        return dict(params)
    given = traverse_util.flatten_dict(dict(statistics))
    flat = traverse_util.flatten_dict(dict(params))
    return traverse_util.unflatten_dict(
        {path: given.get(path, array) for path, array in flat.items()}
    )


@dataclasses.dataclass(frozen=True)
class Norm:
    """The numbers of a batch norm of C channels."""

    mean: jax.Array
    var: jax.Array
    scale: jax.Array | None
    bias: jax.Array | None
    momentum: float
    epsilon: float

    def affine(self) -> tuple[jax.Array, jax.Array]:
        """What it multiplies a channel by, and then adds, by its running statistics."""
        factor = self._factor(self.var)
        bias = jnp.zeros(()) if self.bias is None else self.bias
        return factor, bias - self.mean * factor

    def __call__(
        self, x: jax.Array, *, running: bool, rows: Rows | None = None
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        """Normalise x (N, ..., C).

        Args:
            x: activations.
            running: by the running statistics; else by those of the batch, over all of its images
                whatever devices they are on.
            rows: which rows of x count, and what they are spread over; None for all of them, here.

        Returns:
            x normalised, and what mean and variance are to be after the step.
        """
        mean, var = kept = self.mean, self.var
        if not running:
            mean, var = _of_batch(x.astype(jnp.float32), rows)
            fresh = lax.stop_gradient((mean, var))
            momentum = 0.0 if rows is not None and rows.alone else self.momentum
            kept = (
                momentum * self.mean + (1 - momentum) * fresh[0],
                momentum * self.var + (1 - momentum) * fresh[1],
            )
        result = (x - mean) * self._factor(var)
        return (result if self.bias is None else result + self.bias), kept

    def _factor(self, var: jax.Array) -> jax.Array:
        factor = lax.rsqrt(var + self.epsilon)
        return factor if self.scale is None else factor * self.scale


def normalised(
    layer: nn.BatchNorm, x: jax.Array, *, running: bool, rows: Rows | None = None
) -> jax.Array:
    """What a batch norm of Linen's makes of x (N, ..., C), as `Norm` has it.

    Its numbers are made in its own scope; what its statistics are to be is left in `COLLECTION`.

    Raises:
        UserError: a norm of another axis than the last.
    """
    require_last_axis(layer, "/".join(layer.path))
    shape, scope = x.shape[-1:], layer.scope
    assert scope is not None
    mean = scope.param(STATISTICS[0], lambda _: jnp.zeros(shape, jnp.float32))
    var = scope.param(STATISTICS[1], lambda _: jnp.ones(shape, jnp.float32))
    scale = bias = None
    if layer.use_scale:
        scale = scope.param("scale", layer.scale_init, shape, layer.param_dtype)
    if layer.use_bias:
        bias = scope.param("bias", layer.bias_init, shape, layer.param_dtype)
    norm = Norm(mean, var, scale, bias, layer.momentum, layer.epsilon)
    result, kept = norm(x, running=running, rows=rows)
    if not running and scope.is_mutable_collection(COLLECTION):
        for name, new in zip(STATISTICS, kept, strict=True):
            scope.put_variable(COLLECTION, name, new)
    if running and scope.is_mutable_collection(AFFINE) and not layer.is_initializing():
        for name, number in zip(("factor", "offset"), norm.affine(), strict=True):
            scope.put_variable(AFFINE, name, number)
    return result.astype(layer.dtype or x.dtype)


def require_last_axis(layer: Any, path: str) -> None:
    """UserError for a batch norm, Linen's or NNX's, of another axis than the last."""
    if layer.axis != -1 or layer.axis_index_groups is not None:
        raise UserError(f"{path}: a batch norm is trained along the last axis only")


def added(layer: nn.BatchNorm, x: jax.Array) -> jax.Array:
    """x (N, ..., C) and a norm's bias, which is all that is left of it."""
    assert layer.scope is not None
    bias = layer.scope.param("bias", layer.bias_init, x.shape[-1:], layer.param_dtype)
    return (x + bias).astype(layer.dtype or x.dtype)


def _of_batch(x: jax.Array, rows: Rows | None) -> tuple[jax.Array, jax.Array]:
    """Mean and variance of each channel of x (N, ..., C) over the images that count."""
    weight = jnp.ones(len(x)) if rows is None else rows.weight
    counted = weight.reshape(-1, *[1] * (x.ndim - 1))
    axes, places = tuple(range(x.ndim - 1)), x[0, ..., 0].size

    def over_all(value: Any) -> Any:
        return value if rows is None or rows.axis is None else lax.psum(value, rows.axis)

    total, images = over_all((jnp.sum(x * counted, axes), jnp.sum(weight)))
    number = images * places
    mean = total / number
    # A second pass: squares less a square would lose what is small beside its mean.
    return mean, over_all(jnp.sum((x - mean) ** 2 * counted, axes)) / number
