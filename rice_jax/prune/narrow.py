"""The widths of a Linen module that is run with fewer filters than its code asks for."""

from typing import Any

import flax.linen as nn
import numpy as np
from flax.core import FrozenDict

from rice_jax.errors import UserError
from rice_jax.graph.arrays import Chosen
from rice_jax.graph.narrowed import Held, Narrowed
from rice_jax.prune.dependencies import Dependencies, among, layer_told
from rice_jax.prune.places import reads_and_writes

_FLAX = (nn.Dense, nn.Conv, nn.ConvLocal, nn.ConvTranspose)
"""Layers with a number of filters as their field 'features'."""


def narrow(
    module: nn.Module, graph: Dependencies, removed: Chosen, held: Chosen | None = None
) -> Narrowed:
    """The module without the `removed` channels (bool, one each).

    Args:
        module: the module, or one that was narrowed before.
        graph: its dependencies.
        removed: bool, one a channel.
        held: channels whose places between layers are kept; by default those that the module's
            code picks or parts by their place.

    Raises:
        UserError: for a layer that has no field for its width.
    """
    widths = _widths(graph, removed)
    before = (module.reads, module.writes) if isinstance(module, Narrowed) else ({}, {})
    held = graph.by_place if held is None else held
    reads, writes = reads_and_writes(graph, removed, held, before)
    narrowed = module if isinstance(module, Narrowed) else Narrowed(Held(module), FrozenDict())
    for path, fields in narrowed.widths.items():
        widths[path] = {**fields, **widths.get(path, {})}
    frozen: Any = FrozenDict({path: FrozenDict(fields) for path, fields in widths.items()})
    return narrowed.clone(widths=frozen, reads=FrozenDict(reads), writes=FrozenDict(writes))


def _widths(graph: Dependencies, removed: Chosen) -> dict[str, dict[str, Any]]:
    """By layer path: the fields that tell sizes, and what they are without the removed channels.

    Flax's own layers have theirs set though they lose nothing: `features=x.shape[-1] // 4` would
    else be another number.
    """
    widths: dict[str, dict[str, Any]] = {}
    gone = graph.by_layer(removed)
    for path, filters in graph.filters.items():
        layer = graph.trace.layers.get(path)
        if path in gone and not has_width(graph, path):
            kind = layer.module.__name__ if layer else "its module"
            raise UserError(
                f"the width of {layer_told(path)} cannot be set: "
                f"{kind} has no field 'features'; leave it whole with on_unknown='keep' "
                "(--on_unknown=keep), or in Python pass rebuild=, a function from widths by layer "
                "to your module"
            )
        if path in gone or (layer and issubclass(layer.module, _FLAX)):
            widths[path] = {"features": _left(filters.channels, removed)}
    for path, layer in graph.trace.layers.items():  # tables have rows, and no filters
        table = graph.trace.variables.get(f"params/{path}/embedding")
        if table is not None and issubclass(layer.module, nn.Embed):
            widths[path] = {"features": _left(graph.axes[table][-1], removed)}
    for path, fields in groupings(graph, removed, nn.GroupNorm).items():
        if path in widths or "num_groups" in fields:
            widths.setdefault(path, {}).update(fields)
    return widths


def groupings(graph: Dependencies, removed: Chosen, norm: type) -> dict[str, dict[str, int]]:
    """How many groups of channels are left, where that is told by a number in the layer.

    Args:
        graph: the net's dependencies.
        removed: bool, one a channel.
        norm: the class of group norms.

    Returns:
        By layer path 'feature_group_count' of a depthwise convolution, 'num_groups' of a norm.
    """
    found: dict[str, dict[str, int]] = {}
    for equation in graph.trace.equations:
        layer = graph.trace.layers.get(equation.layer)
        if equation.name == "conv_general_dilated":
            channels = graph.axes[equation.inputs[0]]
            numbers, kernel = equation.params["dimension_numbers"], equation.inputs[1]
            depthwise = kernel.shape[numbers.rhs_spec[1]] == 1
            grouped = equation.params["feature_group_count"] > 1
            if depthwise and grouped and graph.origins.is_weight(kernel):
                left = _left(channels[numbers.lhs_spec[1]], removed)
                found.setdefault(equation.layer, {})["feature_group_count"] = left
        elif equation.name == "reshape" and layer and issubclass(layer.module, norm):
            (x,), (split,) = equation.inputs, equation.outputs
            line = graph.axes[x][-1]
            if np.any(among(line, removed)) and split.shape[:-2] == x.shape[:-1]:
                # The first is of the layer's input; those of its means may look the same.
                groups = _left(line, removed) // split.shape[-1]
                found.setdefault(equation.layer, {}).setdefault("num_groups", groups)
    return found


def has_width(graph: Dependencies, path: str) -> bool:
    """Whether the layer has a field for its width."""
    layer = graph.trace.layers.get(path)
    return "features" in getattr(layer and layer.module, "__dataclass_fields__", {})


def _left(channels: np.ndarray, removed: Chosen) -> int:
    return int(np.sum(~among(channels, removed)))
