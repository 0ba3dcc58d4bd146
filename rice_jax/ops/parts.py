"""A batch computed a few images at a time, so that their feature maps stay in a core's cache.

Layer after layer over a whole batch sends every feature map to memory and back. On a CPU that
takes as long as the convolutions themselves where these have few channels.
"""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

_MEAN_MAP = 512 * 1024
"""Bytes of a part's feature maps, by layer: with less, starting operations costs more than memory;
with four times as much it was slower by a tenth to a quarter."""
_MAPS_TO_VARIABLES = 8
"""A part's feature maps are so many times larger than the variables, since it reads all of these,
and reads and writes the sums of their gradients."""

Tree = TypeVar("Tree")


def part_size(module: nn.Module, variables: Any, images: jax.Array, platform: str) -> int:
    """How many of the images (N, H, W, C) to compute at a time: a divisor of N.

    N itself on GPU and TPU. On CPU as few as have maps of half a megabyte on average, and maps
    eight times larger than the variables: a dense layer of millions of weights is used for many
    images at a time.

    Args:
        module: called with images, no other argument needed.
        variables: its variables.
        images: only their shape matters.
        platform: that of the device which computes them.
    """
    if platform != "cpu" or len(images) == 1:
        return len(images)
    image = jax.ShapeDtypeStruct((1, *images.shape[1:]), np.float32)
    apply = functools.partial(module.apply, capture_intermediates=True, mutable=["intermediates"])
    _, maps = jax.eval_shape(apply, variables, image)
    by_layer = _MEAN_MAP * len(jax.tree.leaves(maps))
    most = -(-max(by_layer, _MAPS_TO_VARIABLES * _bytes(variables)) // _bytes(maps))
    divisors = [size for size in range(1, len(images) + 1) if len(images) % size == 0]
    return max(size for size in divisors if size <= most)


def summed(function: Callable[[Any, Any], Tree], arrays: Any, size: int) -> Tree:
    """The sum, leaf by leaf, of function(first, part) over the parts of `arrays`.

    Args:
        function: takes the index of a part's first row, and the part.
        arrays: a pytree of arrays with the same number of rows.
        size: rows of a part; divides their number.
    """
    if size == len(jax.tree.leaves(arrays)[0]):
        return function(0, arrays)
    firsts, parts = _split(arrays, size)
    function = jax.jit(function)  # traced once for the shapes and the loop

    def add(total: Tree, part: tuple[jax.Array, Any]) -> tuple[Tree, None]:
        return jax.tree.map(jnp.add, total, function(*part)), None

    shapes = jax.eval_shape(function, firsts[0], jax.tree.map(lambda array: array[0], parts))
    nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return lax.scan(add, nothing, (firsts, parts))[0]


def mapped(function: Callable[[jax.Array], jax.Array], array: jax.Array, size: int) -> jax.Array:
    """function(part) for the parts of `array`, one below the other.

    Args:
        function: makes as many rows as it is given.
        array: what is cut into parts of `size` rows, which divides their number.
    """
    if size == len(array):
        return function(array)
    results = lax.map(function, _split(array, size)[1])
    return results.reshape(-1, *results.shape[2:])


def _split(arrays: Any, size: int) -> tuple[jax.Array, Any]:
    """The index of each part's first row, and the parts, stacked."""
    rows = len(jax.tree.leaves(arrays)[0])
    parts = jax.tree.map(lambda array: array.reshape(-1, size, *array.shape[1:]), arrays)
    return jnp.arange(0, rows, size), parts


def _bytes(tree: Any) -> int:
    return sum(leaf.size * np.dtype(leaf.dtype).itemsize for leaf in jax.tree.leaves(tree))
