"""Channels that never change: zero, or always the same, wherever they are summed over."""

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rice_jax import inspection, ops
from rice_jax.errors import UserError
from rice_jax.graph.maps import ConvMap, UnitMap, convolutions, dense_layers
from rice_jax.graph.trace import Value
from rice_jax.prune.biases import folds_exactly
from rice_jax.prune.dependencies import Dependencies, among
from rice_jax.prune.surgery import unread

_ROUNDING = 1e-6
"""How far apart, relative to max(1, |value|), the bounds of a constant may lie."""
_AS_ROUNDED = 2.0
"""How often as far as rounding alone sets them for one image: what images change, however little,
a later layer may make large."""

Extremes = list[tuple[np.ndarray, np.ndarray]]
"""For each of `Dependencies.contractions`, then for each of `_maps`, the least and the largest
value at each index."""


@dataclasses.dataclass(frozen=True)
class Dead:
    """What can go at no change to the logits."""

    removed: np.ndarray
    """bool, one a channel."""
    constants: list[np.ndarray]
    """For each contraction what each index of its axis always is; 0 where it is not removed."""
    spared: np.ndarray
    """Channels that never change but stay: their layer would be empty."""
    refused: np.ndarray
    """Channels that are constant, not zero, and stay: padding or no bias forbids to fold them."""
    tied: Mapping[str, Sequence[int]] = dataclasses.field(default_factory=dict)
    """By layer path: filters that never change but stay: what goes only with them changes."""
    unbounded: Sequence[str] = ()
    """Operations behind which nothing could be proven."""


def measured_extremes(graph: Dependencies, variables: Any, batches: Iterable[Any]) -> Extremes:
    """The extremes over all images of `batches`, arrays (B, H, W, C) of any length each."""
    places = _places(graph)
    values = [value for value, _ in places]

    @jax.jit
    def measure(variables: Any, images: jax.Array) -> list[tuple[jax.Array, jax.Array]]:
        def evaluate(image: jax.Array) -> list[jax.Array]:
            return graph.trace.evaluate(variables, image[None], values, run=ops.replayed)

        with ops.inference():
            found = jax.vmap(evaluate)(images)
        return [
            (_over_others(jnp.min, array, axis + 1), _over_others(jnp.max, array, axis + 1))
            for array, (_, axis) in zip(found, places, strict=True)
        ]

    extremes: Extremes = []
    for images in batches:
        batch = jax.device_get(measure(variables, images))
        extremes = [
            (np.minimum(low, least), np.maximum(high, most))
            for (low, high), (least, most) in zip(extremes or batch, batch, strict=True)
        ]
    if not extremes and places:
        raise UserError("no images to find dead filters on: give a split that has some")
    return extremes


def proven_extremes(
    graph: Dependencies, variables: Any, low: float = 0.0, high: float = 1.0
) -> tuple[Extremes, Sequence[str]]:
    """Bounds of the extremes for every image with pixels from `low` to `high`.

    Where they are no further apart than float rounding sets them they are taken for one value.
    With them the operations that bound nothing, as `inspection.map_bounds` tells them.
    """
    every, unbounded = _bounds(graph, variables, low, high)
    close = [_close(*ends) for ends in every]
    if not any(np.any(met) for met in close):
        return every, unbounded
    grey = (low + high) / 2
    of_grey, _ = _bounds(graph, variables, grey, grey)
    met = [
        _meeting(ends, near & (_width(*ends) <= _AS_ROUNDED * _width(*alone)))
        for ends, near, alone in zip(every, close, of_grey, strict=True)
    ]
    return met, unbounded


def dead(graph: Dependencies, extremes: Extremes, optional: Collection[str] = ()) -> Dead:
    """The channels that are zero, or constant and foldable, wherever they are read.

    Args:
        graph: the net's dependencies.
        extremes: measured or proven.
        optional: layers that may be left without a filter, and so be left out.
    """
    summed = len(graph.contractions)
    extremes, of_maps = extremes[:summed], extremes[summed:]
    constant = _everywhere(graph, [least == most for least, most in extremes])
    foldable = _everywhere(
        graph,
        [
            (least == most) & ((least == 0) | folds_exactly(graph, contraction))
            for contraction, (least, most) in zip(graph.contractions, extremes, strict=True)
        ],
    )
    removed = foldable & ~_last_of_its_group(graph, foldable, optional)
    removed |= unread(graph, removed)
    constants = [
        np.where(among(graph.read(contraction), removed) & (least == most), least, 0)
        for contraction, (least, most) in zip(graph.contractions, extremes, strict=True)
    ]
    tied = _tied(graph, of_maps, removed | constant)
    return Dead(removed, constants, foldable & ~removed, constant & ~foldable, tied)


def _places(graph: Dependencies) -> list[tuple[Value, int]]:
    """Where extremes are taken: values and their axes of channels."""
    maps = [(made.value, made.channel_axis) for made in _maps(graph)]
    return [contraction.place for contraction in graph.contractions] + maps


def _maps(graph: Dependencies) -> list[ConvMap | UnitMap]:
    """Of each call of a convolution, then of a dense layer."""
    return [*convolutions(graph.trace), *dense_layers(graph.trace)]


def _tied(graph: Dependencies, of_maps: Extremes, told: np.ndarray) -> dict[str, list[int]]:
    """By layer path the filters that never change, of channels that are not `told` of and hold
    more than the one filter, or that are never cut; a logit is the net's own."""
    lines = [np.empty(0, int), *(filters.channels for filters in graph.filters.values())]
    every = np.concatenate(lines)
    shared = np.bincount(every[every >= 0], minlength=graph.channels) > 1
    candidates = {
        path: (filters.channels < 0) & ~filters.output | among(filters.channels, shared & ~told)
        for path, filters in graph.filters.items()
    }
    found: dict[str, np.ndarray] = {}
    for made, (least, most) in zip(_maps(graph), of_maps, strict=True):
        own = candidates.get(made.path)
        if own is not None and len(own) == len(least):  # not `nn.vmap`'s, of several nets
            found[made.path] = found.get(made.path, own) & (least == most)  # in every call
    return {path: np.flatnonzero(each).tolist() for path, each in found.items() if each.any()}


def _over_others(reduce: Any, array: Any, axis: int) -> Any:
    return reduce(array, axis=tuple(other for other in range(array.ndim) if other != axis))


def _bounds(
    graph: Dependencies, variables: Any, low: float, high: float
) -> tuple[Extremes, Sequence[str]]:
    places = _places(graph)
    values = [value for value, _ in places]
    bounds, unbounded = inspection.value_bounds(graph.trace, variables, values, low, high)
    extremes = [
        (_over_others(np.min, least, axis), _over_others(np.max, most, axis))
        for (least, most), (_, axis) in zip(bounds, places, strict=True)
    ]
    return extremes, unbounded


def _width(least: np.ndarray, most: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):  # nothing is known where both are infinite
        return most - least


def _close(least: np.ndarray, most: np.ndarray) -> np.ndarray:
    """Where bounds do not meet, and are no further apart than rounding may set them."""
    size = np.maximum(1, np.maximum(np.abs(least), np.abs(most)))
    apart = _width(least, most)
    return (apart > 0) & (apart <= _ROUNDING * size)


def _meeting(ends: tuple[np.ndarray, np.ndarray], met: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    least, most = ends
    with np.errstate(invalid="ignore"):
        middle = (least + most) / 2
    return np.where(met, middle, least), np.where(met, middle, most)


def _everywhere(graph: Dependencies, holds: Sequence[np.ndarray]) -> np.ndarray:
    """The channels for which it holds at every index of every contraction."""
    result = np.ones(graph.channels, bool)
    for contraction, truth in zip(graph.contractions, holds, strict=True):
        channels = graph.read(contraction)
        result[channels[(channels >= 0) & ~truth]] = False
    return result


def _last_of_its_group(
    graph: Dependencies, removed: np.ndarray, optional: Collection[str]
) -> np.ndarray:
    """The first channel of each group that would be empty and must not be."""
    kept = np.zeros(graph.channels, bool)
    for group in np.flatnonzero(graph.sizes(removed) == 0):
        if not set(graph.layers(int(group))) <= set(optional):
            kept[np.flatnonzero(graph.group == group)[0]] = True
    return kept
