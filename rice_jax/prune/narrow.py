"""Any Linen module run with fewer filters than its code asks for."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import numpy as np
from flax.core import FrozenDict

from rice_jax.errors import UserError
from rice_jax.prune.dependencies import Dependencies, among

_FLAX = (nn.Dense, nn.Conv, nn.ConvLocal, nn.ConvTranspose)
"""Layers with a number of filters as their field 'features'."""


class Narrowed(nn.Module):
    """A module whose layers have other widths; it initialises, trains and traces as any other.

    The variables keep the paths that they have in the module itself.
    """

    net: nn.Module
    widths: Mapping[str, Mapping[str, Any]]
    """By layer path: the layer's fields ('features', 'feature_group_count') and their values."""

    def setup(self) -> None:
        """Take the module's place: its variables are this module's own."""
        nn.share_scope(self, self.net)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the module; its layers read their widths from `self.widths`."""
        depth = len(self.path)

        def narrow(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
            given = self.widths.get("/".join(context.module.path[depth:]), {})
            # A width of several numbers (DenseGeneral's) is none that filters are taken from.
            fields = {
                name: value
                for name, value in given.items()
                if isinstance(getattr(context.module, name), int)
            }
            # Modules are frozen once made: the fields are set for this one call and put back.
            before = {name: getattr(context.module, name) for name in fields}
            for name, value in fields.items():
                object.__setattr__(context.module, name, value)
            try:
                return call(*args, **kwargs)
            finally:
                for name, value in before.items():
                    object.__setattr__(context.module, name, value)

        with nn.intercept_methods(narrow):
            return self.net(*args, **kwargs)


def narrow(module: nn.Module, graph: Dependencies, removed: np.ndarray) -> Narrowed:
    """The module without the `removed` channels (bool, one each).

    Raises:
        UserError: for a layer that has no field for its width.
    """
    widths = _widths(graph, removed)
    return Narrowed(module, FrozenDict({path: FrozenDict(each) for path, each in widths.items()}))


def _widths(graph: Dependencies, removed: np.ndarray) -> dict[str, dict[str, Any]]:
    """By layer path: the fields that tell sizes, and what they are without the removed channels.

    Flax's own layers have theirs set though they lose nothing: `features=x.shape[-1] // 4` would
    else be another number.
    """
    widths: dict[str, dict[str, Any]] = {}
    gone = graph.by_layer(removed)
    for path, filters in graph.filters.items():
        layer = graph.trace.layers.get(path)
        fields = getattr(layer and layer.module, "__dataclass_fields__", {})
        if path in gone and "features" not in fields:
            kind = layer.module.__name__ if layer else "its module"
            raise UserError(
                f"the width of {path or 'the outermost module'} cannot be set: "
                f"{kind} has no field 'features'; "
                "pass rebuild=, a function from widths by layer to your module"
            )
        if path in gone or (layer and issubclass(layer.module, _FLAX)):
            widths[path] = {"features": _left(filters.channels, removed)}
    for equation in graph.trace.equations:
        if equation.name == "conv_general_dilated" and equation.layer in widths:
            channels = graph.axes[equation.inputs[0]]
            numbers, kernel = equation.params["dimension_numbers"], equation.inputs[1]
            if graph.origins.is_weight(kernel) and kernel.shape[numbers.rhs_spec[1]] == 1:
                groups = equation.params["feature_group_count"]
                left = _left(channels[numbers.lhs_spec[1]], removed)
                if groups > 1:
                    widths[equation.layer]["feature_group_count"] = left
        layer = graph.trace.layers.get(equation.layer)
        if equation.name == "reshape" and layer and issubclass(layer.module, nn.GroupNorm):
            (x,), (split,) = equation.inputs, equation.outputs
            line = graph.axes[x][-1]
            if np.any(among(line, removed)) and split.shape[:-2] == x.shape[:-1]:
                groups = _left(line, removed) // split.shape[-1]
                widths.setdefault(equation.layer, {})["num_groups"] = groups
    return widths


def _left(channels: np.ndarray, removed: np.ndarray) -> int:
    return int(np.sum(~among(channels, removed)))
