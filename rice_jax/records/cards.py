"""NAME.json beside a trained net of the zoo: its card."""

import dataclasses
from typing import Any

from rice_jax.records.configuration import ImagesTold
from rice_jax.records.costs import FlopCounts
from rice_jax.records.store import left_out


@dataclasses.dataclass(frozen=True, kw_only=True)
class Share:
    """Of how many images a net has which share right."""

    accuracy: float
    images: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class CardAccuracy:
    """On validation images, and on test images as they are and augmented."""

    validation: Share
    clean: Share
    augmented: Share


@dataclasses.dataclass(frozen=True, kw_only=True)
class ZooCard:
    """How a net was trained, on what, and how well it does."""

    name: str
    """In the zoo."""
    config: dict[str, Any]
    """By the names of config.FIELDS, nested."""
    params: int
    flops: FlopCounts
    """Of one image."""
    recipe: str
    epochs: int
    best_epoch: int
    seed: int
    data: ImagesTold
    accuracy: CardAccuracy
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    machine: str = ""
    date: str = ""
    command: str = ""
    """What gives such a run again."""
    note: str | None = left_out()
    sha256: str
    """Of the weights' file."""

    @property
    def model(self) -> dict[str, Any]:
        """The fields of config.model."""
        return self.config["model"]

    @property
    def image_size(self) -> int:
        """Height and width of the images that it was trained on."""
        return self.config["data"]["image_size"]
