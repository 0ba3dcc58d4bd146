"""dead_filters.json: which filters do nothing."""

import dataclasses
from typing import ClassVar

from rice_jax.records.store import FileRecord


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerFilters:
    """The filters of a convolution, by their indices."""

    path: str
    filters: int
    dead_clean: list[int] = dataclasses.field(default_factory=list)
    """Zero on every pixel of every clean image."""
    dead_augmented: list[int] = dataclasses.field(default_factory=list)
    proven_dead: list[int] = dataclasses.field(default_factory=list)
    """Zero on every image that there can be."""
    zero_fraction: list[float | None] = dataclasses.field(default_factory=list)
    """Of each filter: the share of its values on clean images that are zero."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeadFiltersFile(FileRecord):
    """The census of all convolutions, and what is proven."""

    FILE: ClassVar[str] = "dead_filters.json"

    layers: list[LayerFilters]
    images: int
    unseen: list[str] = dataclasses.field(default_factory=list)
    """Convolutions in a loop, which no census counts."""
