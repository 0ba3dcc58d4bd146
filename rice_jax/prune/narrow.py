"""Any Linen module run with fewer filters than its code asks for."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from flax.core import FrozenDict
from jax import lax

from rice_jax.errors import UserError
from rice_jax.graph.trace import Value
from rice_jax.prune.dependencies import Dependencies, among

_FLAX = (nn.Dense, nn.Conv, nn.ConvLocal, nn.ConvTranspose)
"""Layers with a number of filters as their field 'features'."""


@dataclasses.dataclass(frozen=True)
class Whole:
    """The module that is narrowed, held so that Flax does not make a child with a name of it."""

    module: nn.Module


@dataclasses.dataclass(frozen=True)
class Places:
    """Where the channels that a layer has left stand along an axis that keeps its size."""

    axis: int
    """From the end."""
    size: int
    kept: tuple[int, ...]

    def read(self, array: jax.Array) -> jax.Array:
        """The channels that are left, out of an array that has all places."""
        if array.shape[self.axis] != self.size:
            return array
        return _take(array, self.kept, self.axis)

    def write(self, array: jax.Array) -> jax.Array:
        """All places, with zeros where no channel is left."""
        if array.shape[self.axis] != len(self.kept):
            return array
        zero = [(0, 0, 0)] * array.ndim
        zero[self.axis] = (0, 1, 0)
        source = np.full(self.size, len(self.kept))
        source[list(self.kept)] = np.arange(len(self.kept))
        return _take(lax.pad(array, np.zeros((), array.dtype), zero), source, self.axis)


class Narrowed(nn.Module):
    """A module whose layers have other widths; it initialises, trains and traces as any other.

    The variables keep the paths that they have in the module itself. Where the module's code parts
    or picks channels by their place (a split, a reshape to written sizes), their axis keeps its
    size between layers, with zeros for channels that are gone; the layers are narrow all the same.
    """

    whole: Whole
    widths: Mapping[str, Mapping[str, Any]]
    """By layer path: the layer's fields ('features', 'feature_group_count') and their values."""
    reads: Mapping[str, Places] = FrozenDict()
    """By layer path: what the layer takes of its input."""
    writes: Mapping[str, Places] = FrozenDict()
    """By layer path: where the layer's output goes."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the module; its layers read their widths from `self.widths`."""
        # In this very scope: its variables are this module's own, whatever its layers are called.
        net = self.whole.module.clone(parent=self.scope)
        depth = len(self.path)

        def narrow(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
            path = "/".join(context.module.path[depth:])
            if path in self.reads and args and context.method_name == "__call__":
                args = (self.reads[path].read(args[0]), *args[1:])
            # A width of several numbers (DenseGeneral's) is none that filters are taken from.
            fields = {
                name: value
                for name, value in self.widths.get(path, {}).items()
                if isinstance(getattr(context.module, name), int)
            }
            # Modules are frozen once made: the fields are set for this one call and put back.
            before = {name: getattr(context.module, name) for name in fields}
            for name, value in fields.items():
                object.__setattr__(context.module, name, value)
            try:
                result = call(*args, **kwargs)
            finally:
                for name, value in before.items():
                    object.__setattr__(context.module, name, value)
            if path in self.writes and context.method_name == "__call__":
                return self.writes[path].write(result)
            return result

        with nn.intercept_methods(narrow):
            return net(*args, **kwargs)


def narrow(
    module: nn.Module, graph: Dependencies, removed: np.ndarray, held: np.ndarray | None = None
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
    reads, writes = _places(module, graph, removed, graph.by_place if held is None else held)
    if isinstance(module, Narrowed):
        for path, fields in module.widths.items():
            widths[path] = {**fields, **widths.get(path, {})}
        module = module.whole.module
    frozen: Mapping[str, Mapping[str, Any]] = FrozenDict(
        {path: FrozenDict(fields) for path, fields in widths.items()}
    )
    return Narrowed(Whole(module), frozen, FrozenDict(reads), FrozenDict(writes))


def _widths(graph: Dependencies, removed: np.ndarray) -> dict[str, dict[str, Any]]:
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


def has_width(graph: Dependencies, path: str) -> bool:
    """Whether the layer has a field for its width."""
    layer = graph.trace.layers.get(path)
    return "features" in getattr(layer and layer.module, "__dataclass_fields__", {})


def _places(
    module: nn.Module, graph: Dependencies, removed: np.ndarray, held: np.ndarray
) -> tuple[dict[str, Places], dict[str, Places]]:
    """What the layers with variables of held channels take of their inputs, and what they give."""
    before = (module.reads, module.writes) if isinstance(module, Narrowed) else ({}, {})
    reads: dict[str, Places] = {}
    writes: dict[str, Places] = {}
    owners = {
        graph.trace.owners[value]
        for value in graph.trace.variables.values()
        if any((line >= 0).any() for line in graph.axes[value])
    }
    for path, layer in graph.trace.layers.items():
        for value, known, found in zip(
            (layer.input, layer.output), before, (reads, writes), strict=True
        ):
            if value is not None and (path in owners or path in known):
                places = _along_axis(graph, value, removed, held, known.get(path))
                if places is not None:
                    found[path] = places
    return reads, writes


def _along_axis(
    graph: Dependencies,
    value: Value,
    removed: np.ndarray,
    held: np.ndarray,
    known: Places | None,
) -> Places | None:
    """Where channels of a value stand, of which some are removed and held; None if none are."""
    for axis, line in enumerate(graph.axes.get(value, ())):
        from_end = axis - len(value.shape)
        gone = among(line, removed & held)
        if not gone.any() and (known is None or known.axis != from_end):
            continue
        stays = ~among(line, removed & ~held)
        places = np.cumsum(stays) - 1
        filled = range(len(line)) if known is None else known.kept
        kept = tuple(int(places[at]) for at in filled if stays[at] and not gone[at])
        return Places(from_end, int(stays.sum()), kept)
    return None


def _take(array: jax.Array, places: Any, axis: int) -> jax.Array:
    """Some places of one axis, counted from the end."""
    axis += array.ndim
    numbers = lax.GatherDimensionNumbers(
        offset_dims=tuple(other for other in range(array.ndim) if other != axis),
        collapsed_slice_dims=(axis,),
        start_index_map=(axis,),
    )
    sizes = [1 if other == axis else size for other, size in enumerate(array.shape)]
    indices = np.asarray(places, np.int32)[:, None]
    inside = lax.GatherScatterMode.PROMISE_IN_BOUNDS
    return lax.gather(array, indices, numbers, sizes, mode=inside)


def _left(channels: np.ndarray, removed: np.ndarray) -> int:
    return int(np.sum(~among(channels, removed)))
