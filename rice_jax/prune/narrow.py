"""Any Linen module run with fewer filters than its code asks for."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import numpy as np
from flax.core import FrozenDict

from rice_jax.errors import UserError
from rice_jax.prune.dependencies import Dependencies, among


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
    widths: dict[str, dict[str, Any]] = {}
    cut = graph.by_layer(removed)
    for path, filters in graph.filters.items():
        layer = graph.trace.layers.get(path)
        # A layer that loses no filter too: its code may ask for as many as an input has channels.
        if layer and "features" in getattr(layer.module, "__dataclass_fields__", {}):
            widths[path] = {"features": _left(filters.channels, removed)}
        elif path in cut:
            kind = layer.module.__name__ if layer else "its module"
            raise UserError(
                f"the width of {path or 'the outermost module'} cannot be set: "
                f"{kind} has no field 'features'; "
                "pass rebuild=, a function from widths by layer to your module"
            )
    for equation in graph.trace.equations:
        if equation.name == "conv_general_dilated" and equation.layer in widths:
            channels = graph.axes[equation.inputs[0]]
            numbers = equation.params["dimension_numbers"]
            if equation.inputs[1].shape[numbers.rhs_spec[1]] == 1:
                groups = equation.params["feature_group_count"]
                left = _left(channels[numbers.lhs_spec[1]], removed)
                if groups > 1:
                    widths[equation.layer]["feature_group_count"] = left
    return Narrowed(module, FrozenDict({path: FrozenDict(each) for path, each in widths.items()}))


def _left(channels: np.ndarray, removed: np.ndarray) -> int:
    return int(np.sum(~among(channels, removed)))
