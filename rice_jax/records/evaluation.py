"""evaluation.json: how well a net does on test images."""

import dataclasses
from typing import ClassVar

from rice_jax.records.store import FileRecord, left_out


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scores:
    """Of a class, or the mean of all."""

    precision: float
    recall: float
    f1: float
    support: int
    """Images."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """On one kind of images."""

    images: int
    accuracy: float
    loss: float | None = None
    """The mean cross-entropy in nats; None where it is not finite."""
    confusion_matrix: list[list[int]]
    """Rows are the true class."""
    per_class: dict[str, Scores]
    macro_avg: Scores
    """The plain mean of the classes."""
    weighted_avg: Scores | None = None
    """Their mean weighted by support."""

    def __post_init__(self) -> None:
        if any(len(row) != len(self.confusion_matrix) for row in self.confusion_matrix):
            raise ValueError("its confusion matrix is not square")


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationFile(FileRecord):
    """Clean and augmented test images."""

    FILE: ClassVar[str] = "evaluation.json"

    clean: Result | None = left_out()
    augmented: Result | None = left_out()
    path: str | None = None
    """Where the images are from: 'test split', or a folder."""

    def parts(self) -> dict[str, Result]:
        """Those of the two that there are, by name."""
        both = {"clean": self.clean, "augmented": self.augmented}
        return {name: result for name, result in both.items() if result is not None}
