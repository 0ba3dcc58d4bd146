"""Filters taken out of a net: smaller variables, a smaller net that computes the same."""

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from rice_jax.errors import UserError
from rice_jax.graph.arrays import Chosen
from rice_jax.graph.call import by_path, nested
from rice_jax.graph.fronts import PureNet, front
from rice_jax.graph.trace import Trace
from rice_jax.prune.agreement import agree
from rice_jax.prune.biases import folded
from rice_jax.prune.departure import departure
from rice_jax.prune.dependencies import Dependencies, among
from rice_jax.prune.fitting import fitted, narrowed, rebuilt

Rebuild = Callable[[Mapping[str, int]], Any]
"""From the filters left by layer path to a module of the same kind that is as wide."""


@dataclasses.dataclass(frozen=True)
class Cut:
    """A smaller net, and which filters of the whole one it has."""

    net: PureNet
    variables: Any
    """As the net takes them: plain nested dictionaries."""
    removed: Mapping[str, Sequence[int]]
    """By layer path: the removed filters' indices in the net as it was."""
    kept: Mapping[str, Sequence[int]]
    """By layer path: the remaining filters' indices in the net as it was."""
    trace: Trace
    """The smaller net's, for the input shape of the whole one's."""
    departure: str | None
    """Where the smaller net's trace differs from the whole one's by more than sizes, though no
    logit did on random images; None where it does not, and so no logit can on any."""

    @property
    def module(self) -> Any:
        """The smaller module; an NNX module holds the variables."""
        return self.net.given(self.variables)[0]


def remove(
    module: Any,
    variables: Any,
    graph: Dependencies,
    removed: Chosen,
    *,
    constants: Sequence[np.ndarray] = (),
    rebuild: Rebuild | None = None,
    optional: Collection[str] = (),
    **kwargs: Any,
) -> Cut:
    """Take channels out of a net: it computes what the whole one would with those at zero.

    Args:
        module: the net, of any kind.
        variables: its variables, plain nested dictionaries: {'params': ...} and more.
        graph: its `dependencies`.
        removed: bool, one a channel.
        constants: for each of `graph.contractions` what the removed channels always are, one
            value an index of its axis; folded into the bias that follows. Empty for zero.
        rebuild: makes the smaller module out of the filters left by layer path; without it the
            module's own code runs with narrower layers (`Narrowed`).
        optional: layers that the rebuilt module leaves out where no filter remains.
        **kwargs: what else the module's call needs.

    Raises:
        UserError: for a layer with no filter left, or a smaller module that doesn't fit or, for a
            number that it reads from its shapes, computes something else.
    """
    net = front(module)
    idle = unread(graph, removed)
    removed = removed | idle
    _refuse_empty(graph, removed, idle, optional)
    whole = folded(variables, graph, removed, constants) if constants else variables
    smaller = _without_empty(cut(whole, graph, removed))
    gone, kept = graph.by_layer(removed), graph.by_layer(~removed)
    for path, filters in graph.filters.items():
        fixed = np.flatnonzero(filters.channels < 0).tolist()
        kept[path] = sorted([*kept.get(path, []), *fixed])
    kept = {path: kept[path] for path in graph.filters}
    widths = {path: len(indices) for path, indices in kept.items()}
    if rebuild is None:
        fit = narrowed(net, smaller, graph, removed, **kwargs)
    else:
        fit = fitted(rebuilt(net, rebuild(widths), smaller), smaller, graph, kwargs)
    traced, found = fit.trace, departure(graph, removed, fit.trace, fit.held)
    if found and not agree(graph, removed, constants, variables, traced, smaller):
        raise UserError(
            f"the smaller module computes something else than the whole one without those filters: "
            f"{found}; remove other filters, or in Python pass rebuild= with a module that keeps "
            "that number"
        )
    return Cut(fit.net, smaller, gone, kept, traced, found)


def cut(variables: Any, graph: Dependencies, removed: Chosen) -> Any:
    """The variables without the entries of the `removed` channels."""

    def without(array: Any, axis: int, stays: np.ndarray) -> jax.Array:
        # On the host: on a device each shape would be a program to compile.
        return jax.device_put(np.take(np.asarray(array), stays, axis=axis))

    return _cut(variables, graph, removed, without)


def cut_shapes(graph: Dependencies, removed: Chosen) -> Any:
    """The shapes (`jax.ShapeDtypeStruct`) of what `cut` gives."""

    def without(array: Any, axis: int, stays: np.ndarray) -> jax.ShapeDtypeStruct:
        left = [len(stays) if other == axis else size for other, size in enumerate(array.shape)]
        return jax.ShapeDtypeStruct(left, array.dtype)

    return _cut(graph.trace.variable_shapes, graph, removed, without)


def _cut(
    variables: Any,
    graph: Dependencies,
    removed: Chosen,
    without: Callable[[Any, int, np.ndarray], Any],
) -> Any:
    arrays = by_path(variables)
    for path, axis, channels in graph.variables():
        arrays[path] = without(arrays[path], axis, np.flatnonzero(~among(channels, removed)))
    return nested(arrays, variables)


def unread(graph: Dependencies, removed: Chosen) -> np.ndarray:
    """The channels (bool, one each) that only layers without a filter left read."""
    by_nothing, by_something = np.zeros((2, graph.channels), bool)
    for contraction in graph.contractions:
        (output,) = contraction.equation.outputs
        empty = any(len(line) and among(line, removed).all() for line in graph.axes[output])
        channels = graph.read(contraction)
        (by_nothing if empty else by_something)[channels[channels >= 0]] = True
    found = by_nothing & ~by_something
    return found if not np.any(found & ~removed) else unread(graph, removed | found)


def _refuse_empty(
    graph: Dependencies, removed: Chosen, idle: np.ndarray, optional: Collection[str]
) -> None:
    for group in np.flatnonzero(graph.sizes(removed) == 0):
        layers = [path for path in graph.layers(int(group)) if path not in optional]
        if layers and not idle[graph.group == group].all():
            raise UserError(
                f"{layers[0]} would be left without a filter: keep at least one of its "
                f"{graph.sizes()[group]}"
            )


def _without_empty(variables: Any) -> Any:
    """The variables without the layers that have no filter."""
    arrays: dict[Any, Any] = dict(traverse_util.flatten_dict(variables))
    empty = {path[:-1] for path, array in arrays.items() if array.size == 0}
    return traverse_util.unflatten_dict(
        {path: array for path, array in arrays.items() if path[:-1] not in empty}
    )
