"""A copy of an NNX module with fewer filters: its variables, and the sizes that it has noted."""

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import nnx

from rice_jax.graph.fronts import Net
from rice_jax.graph.fronts.nnx import NNXNet, become, modules, subclass
from rice_jax.prune.dependencies import Dependencies
from rice_jax.prune.narrow import groupings
from rice_jax.prune.places import reads_and_writes


def narrow(
    net: Net, variables: Any, graph: Dependencies, removed: np.ndarray, held: np.ndarray
) -> NNXNet:
    """The module without the `removed` channels (bool, one each); the given one is left as it is.

    Flax's own layers have the sizes that they note (`out_features`, `num_features`) set to those of
    their variables. Where `held` channels keep their places between layers, a layer with variables
    of theirs becomes one of a class derived from its own, which takes what it needs out of its
    input and gives its output back at the old places.

    Args:
        net: the net, or one that was narrowed before.
        variables: the smaller net's.
        graph: the net's dependencies.
        removed: bool, one a channel.
        held: bool, one a channel.
    """
    module, _ = net.given(variables)
    layers = dict(modules(module))
    before = tuple(
        {path: places for path, layer in layers.items() if (places := getattr(layer, name, None))}
        for name in ("_reads", "_writes")
    )
    reads, writes = reads_and_writes(graph, removed, held, (before[0], before[1]))
    groups = groupings(graph, removed, nnx.GroupNorm)
    for path, layer in layers.items():
        for name, size in _sizes(layer, groups.get(path, {})).items():
            if hasattr(layer, name):
                setattr(layer, name, size)
        if path in reads or path in writes:
            cls = type(layer) if path in before[0] or path in before[1] else _placed(type(layer))
            become(layer, cls, _reads=reads.get(path), _writes=writes.get(path))
    return NNXNet(module)


def _sizes(layer: Any, groups: Mapping[str, int]) -> dict[str, Any]:
    """What a layer of Flax's own notes of its sizes, by its variables as they are now."""
    shapes = {
        name: value.shape for name, value in vars(layer).items() if isinstance(value, nnx.Variable)
    }
    kernel = shapes.get("kernel", ())
    if isinstance(layer, nnx.Conv):
        count = groups.get("feature_group_count", layer.feature_group_count)
        return {
            "kernel_shape": kernel,
            "in_features": kernel[-2] * count,
            "out_features": kernel[-1],
            "feature_group_count": count,
        }
    if isinstance(layer, nnx.ConvTranspose):
        out, into = kernel[-2:] if layer.transpose_kernel else kernel[:-3:-1]
        return {"kernel_shape": kernel, "in_features": into, "out_features": out}
    if isinstance(layer, nnx.Linear):
        return {"in_features": kernel[0], "out_features": kernel[1]}
    if isinstance(layer, nnx.LinearGeneral):
        batch, into = len(layer.batch_axis), len(layer.in_features)
        return {
            "in_features": kernel[batch : batch + into],
            "out_features": kernel[batch + into :],
        }
    if isinstance(layer, nnx.Einsum):
        return {"kernel_shape": kernel, "bias_shape": shapes.get("bias")}
    if isinstance(layer, nnx.Embed):
        return {"features": shapes["embedding"][-1]}
    if isinstance(layer, _NORMS) and shapes:
        return {"num_features": next(iter(shapes.values()))[-1], **groups}
    return dict(groups)


_NORMS = tuple(
    getattr(nnx, name)
    for name in ("BatchNorm", "GroupNorm", "InstanceNorm", "LayerNorm", "RMSNorm")
    if hasattr(nnx, name)  # older versions have not all
)


@functools.cache  # JAX and NNX keep each class of modules that they met, so it is made once
def _placed(cls: type) -> type:
    """A class as `cls` whose input and output have channels at more places than its filters."""

    def call(self: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
        x = x if self._reads is None else self._reads.read(x)
        result = cls.__call__(self, x, *args, **kwargs)  # type: ignore[operator]
        return result if self._writes is None else self._writes.write(result)

    return subclass(cls, {"__call__": call})
