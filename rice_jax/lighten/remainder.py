"""A net on its way to a smaller one, with what each filter of it was in the trained one."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import ml_collections

from rice_jax import models, train
from rice_jax.graph.trace import trace
from rice_jax.prune.pruner import Pruned
from rice_jax.records import CutTold


@dataclasses.dataclass
class Remainder:
    """What is left of a trained net."""

    config: ml_collections.ConfigDict
    params: Any
    kept: dict[str, list[int]]
    """By path in this net: its filters' indices in the trained one."""
    origin: dict[str, str]
    """By path in this net: the layer's path in the trained one."""

    @classmethod
    def whole(cls, config: ml_collections.ConfigDict, params: Any) -> "Remainder":
        """All of a trained net, its layers in the order in which they run."""
        order = [*trace(train.build(config), train.input_shape(config)).layers]
        widths = {path: layer["kernel"].shape[-1] for path, layer in layers(params)}
        paths = sorted(widths, key=lambda path: order.index(path) if path in order else len(order))
        kept = {path: list(range(widths[path])) for path in paths}
        return cls(config, params, kept, {path: path for path in kept})

    @property
    def pair(self) -> tuple[models.Adjustable, Any]:
        """The module and its variables."""
        return train.build(self.config), {"params": self.params}

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of one image."""
        return train.input_shape(self.config)

    def with_layers_of(self, cut: Pruned | CutTold) -> "Remainder":
        """The same, with the net's layers of its own kinds too, whose kernels have other names."""
        own = {
            path: list(range(len(left) + len(cut.removed.get(path, ()))))
            for path, left in cut.kept.items()
            if path not in self.kept
        }
        origin = {path: path for path in own}
        return dataclasses.replace(self, kept=self.kept | own, origin=self.origin | origin)

    def left_of(self, whole: "Remainder") -> dict[str, list[int]]:
        """By path in the trained net: the filters that are left, of every layer that it has."""
        left = {self.origin[path]: indices for path, indices in self.kept.items()}
        return {path: left.get(path, []) for path in whole.kept}

    def gone_from(self, whole: "Remainder") -> dict[str, list[int]]:
        """By path in the trained net: the filters that are gone, where any is."""
        left = self.left_of(whole)
        gone = {path: sorted({*whole.kept[path]} - {*left[path]}) for path in whole.kept}
        return {path: indices for path, indices in gone.items() if indices}


def layers(params: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """Path and parameters of each layer that has a kernel."""
    if not isinstance(params, Mapping):  # a norm's scale
        return []
    if "kernel" in params:
        return [(prefix, params)]
    return [
        found
        for name, inner in params.items()
        for found in layers(inner, f"{prefix}/{name}" if prefix else name)
    ]
