"""Nets of whose layers nothing is known but what a trace tells: those of the user's own."""

from collections.abc import Collection, Mapping
from typing import Any, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import FrozenDict

from rice_jax.graph import narrowed
from rice_jax.graph.call import Output
from rice_jax.graph.fronts import is_nnx
from rice_jax.graph.scopes import is_under
from rice_jax.graph.trace import Layer, trace
from rice_jax.models.adjustable import Adjustable, Shape
from rice_jax.models.statistics import Rows


class Traced(Adjustable):
    """A net around a class of the user's own: a narrowed or a bridged module (`graph.narrowed`)."""

    dtype: Any = jnp.float32
    grid: int = 0
    """Height and width that the image is averaged to before the net sees it; 0 for as it is."""
    first_image: jax.Array | int = 0
    rows: Rows | None = None
    """Which images count for the statistics of batch norms, in training."""
    still: frozenset[str] = frozenset()
    """Paths of the norms that go by their running statistics in training too: frozen layers'."""
    folded: Mapping[str, bool] = FrozenDict()
    """By path the batch norms that the layer before has taken in (`export.folding`), and whether
    they still add what that layer has no bias for."""
    output: Output = None
    """Which of several outputs are the logits."""

    @nn.nowrap
    def settings(self) -> dict[str, Any]:
        """What is left of the class's net, and how coarse it sees the image."""
        net: Any = self
        return {"narrowed": narrowed.to_text(net), "grid": net.grid}

    @nn.nowrap
    def blocks(self, shape: Shape) -> list[str]:
        """Paths of the layers that can be left out, in the order in which they run.

        What such a layer gives is a map of the shape of the one that it takes, so that the latter
        can stand for it; it is called once, and has kernels. Of layers in each other the outermost.
        """
        layers = trace(self, shape, train=False).layers
        kernels = {path for path, layer in layers.items() if "kernel" in layer.params}
        found: list[str] = []
        for path, layer in layers.items():
            inside = path and any(is_under(kernel, [path]) for kernel in kernels)
            if inside and _keeps_shape(layer) and not is_under(path, found):
                found.append(path)
        return found

    @nn.nowrap
    def without(self, paths: Collection[str]) -> tuple[Self, dict[str, str]]:
        """The net in which these layers give what they take: all others stay as they are."""
        net: Any = self
        return net.clone(dropped=tuple(sorted({*net.dropped, *paths}))), {}

    @nn.nowrap
    def with_stem_stride(self, factor: int, shape: Shape) -> tuple[Self, int, int] | str:
        """As `Adjustable` has it, for a layer of Flax's that is called once."""
        traced = trace(self, shape, train=False)
        first = next((e for e in traced.equations if e.name == "conv_general_dilated"), None)
        layer = traced.layers.get(first.layer) if first else None
        if first is None or layer is None or not _has_strides(layer) or layer.calls != 1:
            return "its first convolution is no layer of Flax's that is called once"
        strides = {int(step) for step in first.params["window_strides"]}
        if len(strides) != 1:
            return f"the stride of {layer.path} differs between height and width"
        stride = strides.pop()
        longer = (factor * stride,) * len(first.params["window_strides"])
        net: Any = self
        fields: Any = FrozenDict({**net.widths.get(layer.path, {}), "strides": longer})
        widths: Any = FrozenDict({**net.widths, layer.path: fields})
        return net.clone(widths=widths), stride, factor * stride


def _has_strides(layer: Layer) -> bool:
    """Whether a layer's kernel takes the steps that its field tells."""
    if is_nnx(layer.module):
        from flax import nnx  # importing it takes seconds

        return issubclass(layer.module, nnx.Conv)
    fields = getattr(layer.module, "__dataclass_fields__", {})
    return "kernel" in layer.params and "strides" in fields


def _keeps_shape(layer: Layer) -> bool:
    taken, given = layer.input, layer.output
    if taken is None or given is None or layer.calls != 1 or taken is given:
        return False
    return (taken.shape, taken.dtype) == (given.shape, given.dtype) and len(taken.shape) == 4
