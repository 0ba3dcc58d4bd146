"""What can be left out of a net of the user's own, as far as its trace tells."""

import json
from collections.abc import Collection
from typing import Any

import ml_collections
from flax import traverse_util

from rice_jax import train
from rice_jax.graph import narrowed
from rice_jax.graph.trace import Layer, Trace, trace


def blocks(config: ml_collections.ConfigDict) -> list[str]:
    """Paths of the layers that can be left out, in the order in which they run.

    What such a layer gives is a map of the shape of the one that it takes, so that the latter can
    stand for it; it is called once, and has kernels. Of layers in each other the outermost.
    """
    traced = _trace(config)
    kernels = {path for path, layer in traced.layers.items() if "kernel" in layer.params}
    found: list[str] = []
    for path, layer in traced.layers.items():
        inside = path and any(f"{kernel}/".startswith(f"{path}/") for kernel in kernels)
        if inside and _keeps_shape(layer) and not _below(path, found):
            found.append(path)
    return found


def _keeps_shape(layer: Layer) -> bool:
    taken, given = layer.input, layer.output
    if taken is None or given is None or layer.calls != 1 or taken is given:
        return False
    return (taken.shape, taken.dtype) == (given.shape, given.dtype) and len(taken.shape) == 4


def without(
    config: ml_collections.ConfigDict, params: Any, paths: Collection[str]
) -> tuple[ml_collections.ConfigDict, Any]:
    """The net without some of its `blocks`, each of which gives what it takes: all others stay."""
    dropped = sorted({*narrowed.fields(config.model.narrowed).get("dropped", ()), *paths})
    smaller = _changed(config, dropped=dropped)
    frozen = [path for path in config.train.frozen if not _below(path, paths)]
    with smaller.unlocked():
        smaller.train.frozen = tuple(frozen)
    flat = traverse_util.flatten_dict(params, sep="/")
    left = {path: array for path, array in flat.items() if not _below(path, paths)}
    return smaller, traverse_util.unflatten_dict(left, sep="/")


def with_stem_stride(
    config: ml_collections.ConfigDict, factor: int
) -> tuple[ml_collections.ConfigDict, int, int] | str:
    """The net with other steps of its first convolution.

    Returns:
        The configuration, and the stride before and after; or in a line why there is none.
    """
    traced = _trace(config)
    first = next((e for e in traced.equations if e.name == "conv_general_dilated"), None)
    layer = traced.layers.get(first.layer) if first else None
    if first is None or layer is None or "kernel" not in layer.params or layer.calls != 1:
        return "its first convolution is no layer of Flax's that is called once"
    strides = {int(step) for step in first.params["window_strides"]}
    if len(strides) != 1:
        return f"the stride of {layer.path} differs between height and width"
    stride = strides.pop()
    axes = len(first.params["window_strides"])
    made = _changed(config, widths={layer.path: {"strides": [factor * stride] * axes}})
    return made, stride, factor * stride


def _changed(config: ml_collections.ConfigDict, **fields: Any) -> ml_collections.ConfigDict:
    """The configuration of a net of which config.model.narrowed says more."""
    content = json.loads(config.model.narrowed or "{}")
    for path, sizes in fields.pop("widths", {}).items():
        content.setdefault("widths", {}).setdefault(path, {}).update(sizes)
    made = ml_collections.ConfigDict(config.to_dict()).unlock()
    made.model.update(narrowed=json.dumps(content | fields, sort_keys=True), weights="")
    return made.lock()


def _trace(config: ml_collections.ConfigDict) -> Trace:
    side = config.data.image_size
    return trace(train.build(config), (1, side, side, 3), train=False)


def _below(path: str, others: Collection[str]) -> bool:
    return any(f"{path}/".startswith(f"{other}/") for other in others)
