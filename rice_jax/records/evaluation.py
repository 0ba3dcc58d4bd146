"""evaluation.json: how well a net does on test images."""

import dataclasses
import math
from typing import TYPE_CHECKING, Annotated, ClassVar

import msgspec

from rice_jax.files import spelled
from rice_jax.records.store import MOST_CLASSES, FileRecord, Name, left_out

if TYPE_CHECKING:
    import numpy as np

MOST_ROWS = 1_000
"""Classes of a confusion matrix that is written row by row: of 4,000 it has 32 MB of zeros."""

TEST_SPLIT = "test split"
"""What `EvaluationFile.path` is where the images are the run's own."""

Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]
"""As every reader of JSON, and an array, can hold it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scores:
    """Of a class, or the mean of all."""

    precision: float
    recall: float
    f1: float
    support: int
    """Images."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cells:
    """Those of a confusion matrix that are not zero, row by row."""

    true: list[Count]
    """Of each its row."""
    predicted: list[Count]
    """Its column."""
    images: list[Count]

    def __post_init__(self) -> None:
        if not len(self.true) == len(self.predicted) == len(self.images):
            raise ValueError("its confusion matrix has cells that are not whole")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """On one kind of images."""

    images: Annotated[int, msgspec.Meta(ge=1, le=1 << 53)]
    accuracy: float
    loss: float | None = None
    """The mean cross-entropy in nats; None where it is not finite."""
    confusion_matrix: list[list[Count]] | None = left_out()
    """Rows are the true class; of more than `MOST_ROWS` classes left out."""
    confusion_cells: Cells | None = left_out()
    """Of so many classes, in its stead."""
    per_class: Annotated[dict[Name, Scores], msgspec.Meta(min_length=1, max_length=MOST_CLASSES)]
    macro_avg: Scores
    """The plain mean of the classes that occur."""
    weighted_avg: Scores | None = None
    """Their mean weighted by support."""

    def __post_init__(self) -> None:
        rows, cells, classes = self.confusion_matrix, self.confusion_cells, len(self.per_class)
        if (rows is None) == (cells is None):
            raise ValueError("it has no confusion matrix, or two")
        if rows is not None and {len(rows), *map(len, rows)} != {classes}:
            raise ValueError(f"its confusion matrix is not square, of {classes} classes")
        if cells and max((*cells.true, *cells.predicted), default=0) >= classes:
            raise ValueError(f"its confusion matrix has other than its {classes} classes")

    def confused(self) -> tuple["np.ndarray", "np.ndarray", "np.ndarray"]:
        """True class, predicted class and images of each cell that is not zero, row by row."""
        import numpy as np  # what only reads options need not wait

        if cells := self.confusion_cells:
            return np.array(cells.true, int), np.array(cells.predicted, int), np.array(cells.images)
        matrix = np.asarray(self.confusion_matrix)
        true, predicted = matrix.nonzero()
        return true, predicted, matrix[true, predicted]

    def as_well(self) -> tuple[str, float] | None:
        """A class that is as good an answer to every image as the net's are, and how good that is.

        None where the net is better, and where all images are of one class.
        """
        name, scores = max(self.per_class.items(), key=lambda item: item[1].support)
        share = scores.support / self.images
        return (name, share) if self.accuracy <= share < 1 else None


def tested_on(folder: str) -> str:
    """`EvaluationFile.path` of a folder's images; '' for none."""
    return spelled(folder) if folder else TEST_SPLIT


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationFile(FileRecord):
    """Clean and augmented test images."""

    FILE: ClassVar[str] = "evaluation.json"

    clean: Result | None = left_out()
    augmented: Result | None = left_out()
    path: Name | None = None
    """Where the images are from: 'test split', or a folder."""
    fingerprint: str | None = left_out()
    """Of a folder's images, by their names and contents."""
    in_training: Annotated[int, msgspec.Meta(ge=0)] | None = left_out()
    """How many of a folder's are training images of the run too, byte for byte; None where that is
    not known."""

    @property
    def test(self) -> str | None:
        """By which tests are compared: a folder, however it is named, is what lies in it."""
        return self.fingerprint or self.path

    def lost_augmented(self) -> float:
        """By how much accuracy is lower on augmented images; 0 where so little may be chance.

        It is told from a point on, and three standard errors of the difference of two such shares.
        """
        if self.clean is None or self.augmented is None:
            return 0.0
        both = (self.clean, self.augmented)
        spread = sum(each.accuracy * (1 - each.accuracy) / each.images for each in both)
        lost = self.clean.accuracy - self.augmented.accuracy
        return lost if lost >= max(0.01, 3 * math.sqrt(max(spread, 0.0))) else 0.0

    def parts(self) -> dict[str, Result]:
        """Those of the two that there are, by name."""
        both = {"clean": self.clean, "augmented": self.augmented}
        return {name: result for name, result in both.items() if result is not None}
