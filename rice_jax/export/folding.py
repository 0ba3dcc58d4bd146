"""Batch norms taken into the layers that they follow: a file has neither their work nor theirs."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from flax.core import FrozenDict

from rice_jax import train
from rice_jax.graph.fronts import is_nnx
from rice_jax.graph.origins import Origins
from rice_jax.graph.primitives import RENAMES
from rice_jax.graph.trace import Layer, Trace, Value, trace
from rice_jax.models.statistics import AFFINE, STATISTICS, norms


def folded(trained: train.Trained) -> train.Trained:
    """The same net without the norms that follow a convolution or a dense layer, and alone read it.

    With running statistics a norm multiplies each channel and adds to it. The kernel before it is
    multiplied instead, and what is added goes into that layer's bias; of a layer without one the
    norm stays, and does nothing but add. Equal but for float rounding.
    """
    if not norms(trained.params):
        return trained
    side = trained.config.data.image_size
    traced = trace(trained.module, (1, side, side, 3), train=False)
    origins = Origins(traced)
    image = jnp.zeros((1, side, side, 3), jnp.float32)
    _, left = trained.module.apply({"params": trained.params}, image, mutable=[AFFINE])
    affine = traverse_util.flatten_dict(left[AFFINE], sep="/")
    flat: dict[Any, Any] = dict(traverse_util.flatten_dict(trained.params))
    gone: dict[str, bool] = {}
    for norm in [path for path in traced.layers if f"{path}/factor" in affine]:
        before = _layer_before(traced, origins, norm)
        if before is None:
            continue
        factor, offset = (np.asarray(affine[f"{norm}/{name}"]) for name in ("factor", "offset"))
        its, theirs = tuple(norm.split("/")), tuple(before.split("/"))
        flat[*theirs, "kernel"] = flat[*theirs, "kernel"] * factor
        for name in (*STATISTICS, "scale", "bias"):
            flat.pop((*its, name), None)
        gone[norm] = (*theirs, "bias") not in flat
        if gone[norm]:
            flat[*its, "bias"] = offset
        else:
            flat[*theirs, "bias"] = flat[*theirs, "bias"] * factor + offset
    module = trained.module.clone(folded=FrozenDict(gone))
    params = jax.tree.map(np.asarray, traverse_util.unflatten_dict(flat))
    return dataclasses.replace(trained, module=module, params=params)


def _layer_before(traced: Trace, origins: Origins, norm: str) -> str | None:
    """The layer with a kernel whose output the norm takes, and nothing else does."""
    layer = traced.layers[norm]
    value = layer.input
    if value is None or value in traced.outputs or layer.calls != 1:
        return None
    if any(reader.layer != norm for reader in traced.consumers(value)):
        return None
    return next(
        (path for path, each in traced.layers.items() if _makes(origins, path, each, value)), None
    )


def _makes(origins: Origins, path: str, layer: Layer, value: Value) -> bool:
    """Whether a value is a layer's product of its input and its kernel, and its bias if any.

    A class derived from Flax's may do something else to either.
    """
    kinds: tuple[type, ...] = (nn.Conv, nn.Dense)
    if is_nnx(layer.module):
        from flax import nnx  # importing it takes seconds

        kinds = (nnx.Conv, nnx.Linear)
    if not issubclass(layer.module, kinds) or layer.output is not value or layer.calls != 1:
        return False
    made = origins.maker(value)
    if "bias" in layer.params:
        if made is None or made.name != "add":
            return False
        product, bias = made.inputs
        if origins.origin(bias).path != f"params/{path}/bias":
            return False
        made = origins.maker(product)
    products = ("conv_general_dilated", "dot_general")
    return (
        made is not None
        and made.name in products
        and origins.origin(made.inputs[1], RENAMES).path == f"params/{path}/kernel"
    )
