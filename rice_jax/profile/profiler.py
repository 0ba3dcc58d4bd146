"""Counts what a net costs, by layer, without weights, data or compilation."""

import dataclasses
import functools
import operator
from collections.abc import Sequence
from typing import Any

import flax.linen as nn

from rice_jax.errors import UserError
from rice_jax.graph.trace import Trace, trace
from rice_jax.profile import study
from rice_jax.profile.rows import NOT_CALLED, Row, Uncounted, tabulate
from rice_jax.profile.rules import Flops
from rice_jax.profile.softmax import ends_in_softmax
from rice_jax.profile.xla import lowered_flops


@dataclasses.dataclass(frozen=True)
class Profile:
    """What a net costs for one input shape; every total is the sum of its rows."""

    input_shape: tuple[int, ...]
    """With the batch dimension."""
    rows: tuple[Row, ...]
    uncounted: tuple[Uncounted, ...]
    """Operations that are in no count."""
    trainable_params: int
    study_filters: int
    """Filters as the study counts them: a convolution under the root by its own, a block that
    holds convolutions by the channels that leave it."""
    param_bytes: int
    xla_measured: int
    """XLA's own count of the lowered module, without the study's softmax."""

    @property
    def params(self) -> int:
        """Number of parameters (collection 'params' alone)."""
        return sum(row.params for row in self.rows)

    @property
    def filters(self) -> int:
        """Output channels of all convolutions."""
        return sum(row.filters for row in self.rows)

    @property
    def flops(self) -> Flops:
        """FLOPs for the input shape."""
        return functools.reduce(operator.add, (row.flops for row in self.rows), Flops())

    @property
    def not_called(self) -> tuple[str, ...]:
        """Paths of the layers that have parameters and take no part in the call."""
        return tuple(row.path for row in self.rows if row.type == NOT_CALLED)

    def to_json(self, name: str | None = None) -> dict[str, Any]:
        """The profile as plain JSON types, the study's figures beside it.

        Args:
            name: the net's name. If it is one of the study's and the net has the study's widths
                and input, 'reported' holds the study's figures and 'errata' what is wrong in
                them; else they are None and empty.
        """
        reported = study.reported(name, self.params, self.input_shape)
        return {
            "input_shape": list(self.input_shape),
            "layers": [row.to_json() for row in self.rows],
            "totals": {
                "params": self.params,
                "trainable_params": self.trainable_params,
                "param_bytes": self.param_bytes,
                "filters": self.filters,
                "study_filters": self.study_filters,
                "flops": self.flops.to_json(),
                "xla_measured": self.xla_measured,
            },
            "uncounted": [operation.to_json() for operation in self.uncounted],
            "not_called": list(self.not_called),
            "reported": reported,
            "errata": study.errata(name) if name and reported else [],
        }


def count(
    module: nn.Module,
    input_shape: Sequence[int],
    *,
    frozen: Sequence[str] = (),
    softmax: bool = True,
    **call_kwargs: Any,
) -> Profile:
    """Count parameters, filters and FLOPs of any Linen module, layer by layer.

    Nothing is computed or compiled, no weights are needed. The FLOPs are counted in the three
    conventions of `rice_jax.profile.rules`; an operation without a rule is named in `uncounted`
    and is in no count: loops, branches, custom calls, products of two activations (attention).

    Args:
        module: a Linen module called with one array.
        input_shape: three numbers are one image (H, W, C), counted as a batch of one; any other
            number of them is the whole shape with its batch dimension.
        frozen: paths of layers that do not learn; a path stands for all that is under it.
        softmax: whether logits (N, classes) get the softmax that ends the study's graphs: a row
            in `study` alone, unless the module ends in a softmax itself.
        **call_kwargs: what else the module's call takes, such as train=False.

    Returns:
        The profile.

    Raises:
        UserError: a size that is not positive, a frozen path that is no layer's, or a module
            that XLA has no count for.
    """
    shape = batched(input_shape)
    traced = trace(module, shape, **call_kwargs)
    rows, uncounted = tabulate(traced)
    _check_frozen(frozen, rows)
    study_filters = _study_filters(traced, rows)
    if softmax and _returns_logits(traced):
        (logits,) = traced.outputs
        path = "softmax" if all(row.path != "softmax" for row in rows) else "softmax (study)"
        rows.append(Row(path, "softmax", logits.shape, flops=Flops(study=5 * logits.size)))
    params = [value for path, value in traced.variables.items() if path.startswith("params/")]
    return Profile(
        input_shape=shape,
        rows=tuple(rows),
        uncounted=tuple(uncounted),
        trainable_params=sum(row.params for row in rows if not _is_under(row.path, frozen)),
        study_filters=study_filters,
        param_bytes=sum(value.size * value.dtype.itemsize for value in params),
        xla_measured=lowered_flops(module, traced.variable_shapes, shape, call_kwargs),
    )


def batched(input_shape: Sequence[int]) -> tuple[int, ...]:
    """The whole shape: three numbers are one image, which gets a batch of one before it."""
    shape = tuple(input_shape)
    if not shape or any(not isinstance(n, int) or n < 1 for n in shape):
        raise UserError(f"input shape {shape} must be positive whole numbers: (H, W, C)")
    return (1, *shape) if len(shape) == 3 else shape


def _check_frozen(frozen: Sequence[str], rows: Sequence[Row]) -> None:
    paths = [row.path for row in rows if row.params]
    for path in frozen:
        if not any(_is_under(row_path, [path]) for row_path in paths):
            raise UserError(
                f"frozen names {path!r}, where the net has no parameters; layers that have are "
                f"{', '.join(paths)}"
            )


def _is_under(path: str, ancestors: Sequence[str]) -> bool:
    return any(path == ancestor or path.startswith(f"{ancestor}/") for ancestor in ancestors)


def _study_filters(traced: Trace, rows: Sequence[Row]) -> int:
    """A convolution under the root by its filters, a block of them by its output's channels."""
    by_block: dict[str, int] = {}
    for row in rows:
        if row.filters:
            block, *inside = row.path.split("/")
            layer = traced.layers.get(block)
            if inside and layer and layer.output is not None:
                by_block[block] = layer.output.shape[-1]
            else:
                by_block[block] = by_block.get(block, 0) + row.filters
    return sum(by_block.values())


def _returns_logits(traced: Trace) -> bool:
    is_vector = len(traced.outputs) == 1 and len(traced.outputs[0].shape) == 2
    return is_vector and not ends_in_softmax(traced)
