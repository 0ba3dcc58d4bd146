"""Where channels stand along axes that keep their size between the layers of a narrower net."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax import lax

from rice_jax.graph.trace import Value
from rice_jax.prune.dependencies import Dependencies, among


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


def reads_and_writes(
    graph: Dependencies,
    removed: np.ndarray,
    held: np.ndarray,
    before: tuple[Mapping[str, Places], Mapping[str, Places]],
) -> tuple[dict[str, Places], dict[str, Places]]:
    """What the layers with variables of held channels take of their inputs, and what they give.

    Args:
        graph: the net's dependencies.
        removed: bool, one a channel.
        held: channels (bool, one each) whose places between layers are kept.
        before: what the layers take and give already, in a net that was narrowed before.

    Returns:
        Places by layer path, of inputs and of outputs.
    """
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
