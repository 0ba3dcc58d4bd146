"""feature_maps.json: what a net makes of a few images, small enough for a page to hold it."""

import dataclasses
from typing import Annotated, ClassVar

import msgspec

from rice_jax.records.store import MOST_CLASSES, FileRecord, Name


@dataclasses.dataclass(frozen=True, kw_only=True)
class PictureShown:
    """An image, and what the net says of it."""

    label: Name
    """Its class; '' for one that is not known."""
    kind: str
    """'clean' or 'augmented'."""
    predicted: Name
    probabilities: list[float | None]
    picture: str
    """A JPEG in base64."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class KernelShown:
    """The kernels of a layer in 8 bits: the inputs of each filter that weigh most."""

    size: tuple[int, int]
    """Height and width."""
    inputs: int
    """Of the whole kernel."""
    of: list[list[int]]
    """The inputs that are kept, by filter."""
    scale: list[float | None]
    """By filter: a weight is its value times this over 127."""
    values: str
    """int8 (filters, inputs, height, width) in base64."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerShown:
    """A layer's maps of all images."""

    path: Name
    filters: int
    size: tuple[int, int]
    """Height and width of a map."""
    drawn: tuple[int, int]
    """What they are reduced to."""
    columns: int
    """Of maps in a sprite."""
    rectified: bool
    shown: list[int]
    """The filters whose maps are kept."""
    sprites: list[str]
    """A PNG in base64 for each image."""
    ranges: list[list[list[float] | None]]
    """By image and filter: the values that are darkest and brightest; None where not finite."""
    kernel: KernelShown | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeatureMapsFile(FileRecord):
    """Images, and the maps of every layer."""

    FILE: ClassVar[str] = "feature_maps.json"

    classes: Annotated[list[Name], msgspec.Meta(max_length=MOST_CLASSES)]
    """In the order of the probabilities."""
    images: list[PictureShown]
    layers: list[LayerShown]
