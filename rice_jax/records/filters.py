"""dead_filters.json: which filters do nothing."""

import dataclasses
from typing import Annotated, ClassVar

import msgspec

from rice_jax.records.store import MOST_LAYERS, FileRecord, Name

_MOST_FILTERS = 1_000_000
"""Each gets a fate: a file from elsewhere may tell of any number of them."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerFilters:
    """The filters of a convolution, by their indices."""

    path: Name
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

    layers: Annotated[list[LayerFilters], msgspec.Meta(max_length=MOST_LAYERS)]
    images: int
    unseen: list[Name] = dataclasses.field(default_factory=list)
    """Convolutions in a loop, which no census counts."""

    def __post_init__(self) -> None:
        told = sum(layer.filters for layer in self.layers)
        if told > _MOST_FILTERS or any(layer.filters < 0 for layer in self.layers):
            raise ValueError(f"it tells of {told:,} filters")
