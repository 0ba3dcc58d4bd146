"""Two nets run on random images, where their traces differ and no number need do so."""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rice_jax.graph import once
from rice_jax.graph.cpu import cpu
from rice_jax.graph.trace import Trace, Value
from rice_jax.prune.dependencies import Dependencies, along, among

_CLOSE = 1e-5
"""Of the largest logit: how far equal nets may be apart."""
_BRIGHT = 255
"""The largest pixel of a net that takes them as bytes."""


def agree(
    graph: Dependencies,
    removed: np.ndarray,
    constants: Sequence[np.ndarray],
    variables: Any,
    smaller: Trace,
    fewer: Any,
) -> bool:
    """Whether the smaller net gives on random images what the whole one does without `removed`.

    On the CPU, whatever device the nets are for: a GPU's products in TF32, which it takes for some
    sizes and not for others, would set equal nets a thousandth apart.

    Args:
        graph: the whole net's dependencies.
        removed: bool, one a channel.
        constants: for each of `graph.contractions` what the removed channels are; none for 0.
        variables: the whole net's.
        smaller: the smaller net's trace.
        fewer: its variables.
    """
    edits: dict[Value, Any] = {}
    for number, contraction in enumerate(graph.contractions):
        value, axis = contraction.place
        gone = among(graph.read(contraction), removed)
        always = np.asarray(constants[number] if constants else np.zeros(len(gone)))
        rank = len(value.shape)
        strikes = along(gone, axis, rank), along(always, axis, rank)
        edits[value] = _struck(*strikes, before=edits.get(value))
    traced = graph.trace
    whole = _compiled(lambda v, x: traced.evaluate(v, x, traced.outputs, edits))
    narrowed = _compiled(lambda v, x: smaller.evaluate(v, x, smaller.outputs))
    variables, fewer = jax.device_get((variables, fewer))
    rng, told = np.random.default_rng(0), False
    with jax.default_device(cpu("nets are held against each other")):
        for image in _images(rng, traced.input.shape, traced.input.dtype):
            expected, found = whole(variables, image), narrowed(fewer, image)
            if not all(bool(jnp.isfinite(each).all()) for each in expected):
                continue  # an index that a table lacks, the logarithm of what is below 0
            told = True
            if not all(map(_close, expected, found)):
                return False
    return told


def _images(rng: np.random.Generator, shape: Sequence[int], dtype: Any) -> Iterator[np.ndarray]:
    """Random ones as nets take them: of pixels to 1, to 255, or normalised ones."""
    if not jnp.issubdtype(dtype, jnp.integer):
        yield from (rng.random(shape).astype(dtype), rng.normal(size=shape).astype(dtype))
        yield (_BRIGHT * rng.random(shape)).astype(dtype)
    else:
        for brightest in (1, min(_BRIGHT, jnp.iinfo(dtype).max)):
            yield rng.integers(0, brightest, shape, endpoint=True).astype(dtype)


def _close(one: jax.Array, other: jax.Array) -> bool:
    """Whether what the whole net gives is near what the smaller one does."""
    if not jnp.issubdtype(one.dtype, jnp.inexact):
        return bool(jnp.array_equal(one, other))
    size = float(jnp.max(jnp.abs(one), initial=0))
    return float(jnp.max(jnp.abs(one - other), initial=0)) <= _CLOSE * size


def _compiled(function: Any) -> Any:
    return jax.jit(function, compiler_options=once.HASTY)


def _struck(gone: np.ndarray, always: np.ndarray, before: Any) -> Any:
    def strike(array: Any) -> Any:
        array = array if before is None else before(array)
        return jnp.where(gone, jnp.asarray(always, array.dtype), array)

    return strike
