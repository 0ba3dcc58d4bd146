"""config.json: what a run is of."""

import dataclasses
from typing import Any, ClassVar

from rice_jax.records.store import FileRecord, left_out


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImagesTold:
    """The images that a run learns from."""

    name: str
    synthetic: bool
    fingerprint: str
    classes: tuple[str, ...]
    images: dict[str, int] = dataclasses.field(default_factory=dict)
    """How many, by split."""
    skipped: int = 0
    """Files that could not be used."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class WeightsTold:
    """Where a net's weights are from, and as far as that is known how they were trained."""

    source: str
    epochs: int | None = left_out()
    recipe: str | None = left_out()
    image_size: int | None = left_out()
    data: str | None = left_out()
    images: int | None = left_out()
    """For training."""
    classes: tuple[str, ...] | None = left_out()


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConfigFile(FileRecord):
    """The resolved configuration, what it was computed with, and on which images."""

    FILE: ClassVar[str] = "config.json"

    config: dict[str, Any]
    """By the names of config.FIELDS, nested."""
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    seed: int | None = None
    data: ImagesTold | None = None
    """None where the run has seen none yet."""
    weights: WeightsTold | None = None
    """None for those that are random."""
