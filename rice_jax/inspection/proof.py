"""Filters that no image can wake: proved by bounds, not by looking at images."""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from rice_jax.graph.arrays import Ends, InputShape
from rice_jax.graph.fronts import takes_variables
from rice_jax.graph.maps import unseen
from rice_jax.inspection.interval import Rule
from rice_jax.inspection.ranges import traced_map_bounds

_CONSTANT = 2e-5
"""How far a constant filter may be from its value, relative to max(1, |value|): what rounding in
a few layers may come to."""


@dataclasses.dataclass(frozen=True)
class Proof:
    """What holds for every image in a box."""

    dead: dict[str, list[int]]
    """By the layer's path: filters whose map is zero at every pixel."""
    constant: dict[str, dict[int, float]]
    """By the layer's path: filters, not dead, whose map is this value at every pixel, within 2e-5
    of max(1, |value|)."""
    unbounded: tuple[str, ...]
    """Operations behind which nothing is proved ('sort in layer conv1'), as `map_bounds` tells."""
    unseen: tuple[str, ...]
    """Paths of the convolutions of which nothing is told, since they run inside a loop."""


@takes_variables
def prove(
    module: Any,
    variables: Any,
    input_shape: InputShape,
    low: Any = 0.0,
    high: Any = 1.0,
    **kwargs: Any,
) -> Proof:
    """Find the filters that are zero, or constant, for every image in [low, high].

    The bounds are those of `map_bounds`, which takes the same arguments and raises the same errors.
    A filter of a layer called several times is dead if it is so in each call, and constant if it
    has one value in all of them.
    """
    traced, bounds, unbounded = traced_map_bounds(
        module, variables, input_shape, low, high, **kwargs
    )
    ends: dict[str, Ends] = {}
    for name, (lo, hi) in bounds.items():
        path = name.partition("@")[0]
        pixels = tuple(range(lo.ndim - 1))
        least, most = lo.min(pixels), hi.max(pixels)
        if path in ends:
            least, most = np.minimum(least, ends[path][0]), np.maximum(most, ends[path][1])
        ends[path] = least, most
    return Proof(
        dead={
            path: np.flatnonzero((lo == 0) & (hi == 0)).tolist() for path, (lo, hi) in ends.items()
        },
        constant={path: _constants(lo, hi) for path, (lo, hi) in ends.items()},
        unbounded=unbounded,
        unseen=tuple(unseen(traced)),
    )


@takes_variables
def proven_dead(
    module: Any,
    variables: Any,
    input_shape: InputShape,
    low: Any = 0.0,
    high: Any = 1.0,
    *,
    rules: Mapping[str, Rule] = MappingProxyType({}),
    **kwargs: Any,
) -> dict[str, list[int]]:
    """The dead filters alone that `prove` finds, by the layer's path; [] where there are none.

    Args:
        module: any net called with one array of images: a Linen module, an NNX module, a function.
        variables: of a Linen module, or params of a function; an NNX module is followed by none.
        input_shape: (H, W, C) of an image, or (N, H, W, C).
        low: least pixel value, a number or an array that broadcasts to `input_shape`.
        high: largest pixel value, likewise.
        rules: more rules for bounds by JAX's name of a primitive: `rule(equation, *operands)` takes
            an `Interval` for each operand and gives one for each output, as `map_bounds` says.
        **kwargs: what else `map_bounds` takes, and the module's call.
    """
    return prove(module, variables, input_shape, low, high, rules=rules, **kwargs).dead


def _constants(lo: np.ndarray, hi: np.ndarray) -> dict[int, float]:
    """The filters whose ends meet, dead ones left out."""
    found = {}
    for index, (least, most) in enumerate(zip(lo.tolist(), hi.tolist(), strict=True)):
        value = (least + most) / 2
        if (least, most) != (0, 0) and most - value <= _CONSTANT * max(1.0, abs(value)):
            found[index] = value
    return found
