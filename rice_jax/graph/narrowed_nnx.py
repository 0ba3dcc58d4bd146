"""NNX modules whose variables are smaller than their class makes them: the sizes they note."""

import functools
from collections.abc import Mapping
from typing import Any

from flax import nnx

from rice_jax.graph.fronts.nnx import become, modules, subclass
from rice_jax.graph.narrowed import Places


def fit(
    module: nnx.Module,
    groups: Mapping[str, Mapping[str, int]],
    reads: Mapping[str, Places],
    writes: Mapping[str, Places],
) -> None:
    """Make the layers of a module of our own copy run with the variables that they have.

    Flax's own layers have the sizes that they note (`out_features`, `num_features`) set to those of
    their variables. A layer whose channels keep other places between layers than its filters
    becomes one of a class derived from its own, which takes what it needs out of its input and
    gives its output back at the old places.

    Args:
        module: has its smaller variables already.
        groups: by layer path 'feature_group_count' of a depthwise convolution, 'num_groups' of a
            norm, where not as the layer has it.
        reads: by layer path: what the layer takes of its input.
        writes: by layer path: where the layer's output goes.
    """
    for path, layer in list(modules(module)):
        for name, size in _sizes(layer, groups.get(path, {})).items():
            if hasattr(layer, name):
                setattr(layer, name, size)
        if path in reads or path in writes:
            placed = getattr(layer, "_reads", None) or getattr(layer, "_writes", None)
            cls = type(layer) if placed else _placed(type(layer))
            become(layer, cls, _reads=reads.get(path), _writes=writes.get(path))


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
