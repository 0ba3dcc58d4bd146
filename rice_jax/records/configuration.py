"""config.json: what a run is of."""

import dataclasses
from typing import Annotated, Any, ClassVar

import msgspec

from rice_jax.records.store import MOST_CLASSES, FileRecord, Name, left_out

Classes = Annotated[tuple[Name, ...], msgspec.Meta(max_length=MOST_CLASSES)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Copies:
    """Images that are there more than once, byte for byte."""

    in_training: dict[str, int]
    """By split, how many of its images are training images too: of these no accuracy is one of
    images that a net has not seen."""
    in_two_classes: int
    """How many another class has too: what their class is cannot be learned."""
    pairs: tuple[tuple[Name, Name], ...] = ()
    """Names of two images that are the same: of two classes, then held out and for training. No
    more than a hundred."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImagesTold:
    """The images that a run learns from."""

    name: Name
    synthetic: bool
    fingerprint: str
    classes: Classes
    images: dict[str, int] = dataclasses.field(default_factory=dict)
    """How many, by split."""
    skipped: int = 0
    """Files that could not be used."""
    size: tuple[int, int] | None = left_out()
    """Height and width as they come, in pixels: medians."""
    copies: Copies | None = left_out()


@dataclasses.dataclass(frozen=True, kw_only=True)
class WeightsTold:
    """Where a net's weights are from, and as far as that is known how they were trained."""

    source: Name
    epochs: int | None = left_out()
    recipe: Name | None = left_out()
    image_size: int | None = left_out()
    data: Name | None = left_out()
    images: int | None = left_out()
    """For training."""
    classes: Classes | None = left_out()

    @property
    def augmented(self) -> bool:
        """Whether they are known to have learned from augmented images."""
        return "augmented" in (self.recipe or "").split(", ")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConfigFile(FileRecord):
    """The resolved configuration, what it was computed with, and on which images."""

    FILE: ClassVar[str] = "config.json"

    config: dict[str, Any]
    """By the names of config.FIELDS, nested."""
    versions: dict[Name, Annotated[str, msgspec.Meta(max_length=1 << 20)]] = dataclasses.field(
        default_factory=dict
    )
    seed: int | None = None
    data: ImagesTold | None = None
    """None where the run has seen none yet."""
    weights: WeightsTold | None = None
    """None for those that are random."""

    @property
    def augmented(self) -> bool:
        """Whether augmented images are in its recipe, or were its weights' before, or may be."""
        recipe = self.config.get("train") or {}
        before = self.weights is not None and self.weights.augmented
        return recipe.get("augment", True) or before
