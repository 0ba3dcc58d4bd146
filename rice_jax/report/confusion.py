"""A confusion matrix of many classes made one that can be read."""

from collections.abc import Sequence

import numpy as np

MOST_CLASSES = 50
"""Of a matrix as it is; of more the classes most often mistaken are kept."""
_KEPT = 29


Confused = tuple[np.ndarray, np.ndarray, np.ndarray]
"""True class, predicted class and images of each cell that is not zero, as `Result.confused`."""


def gathered(cells: Confused, names: Sequence[str]) -> tuple[np.ndarray, list[str], list[int]]:
    """The matrix with all but the most mistaken classes added up, where there are too many.

    Args:
        cells: of the matrix.
        names: of the classes.

    Returns:
        The matrix, rows the true class; the names of its rows, the last '71 others' where some
        were added up; and the places of the kept classes. Of 'others' taken for 'others' not all
        are right.
    """
    true, predicted, images = cells
    kept, labels = list(range(len(names))), list(names)
    if len(names) > MOST_CLASSES:
        wrong = np.where(true == predicted, 0, images)
        mistakes = sum(np.bincount(place, wrong, len(names)) for place in (true, predicted))
        kept = sorted(np.argsort(-mistakes, kind="stable")[:_KEPT].tolist())
        labels = [*(names[index] for index in kept), f"{len(names) - _KEPT:,} others"]
    place = np.full(len(names), _KEPT)
    place[kept] = range(len(kept))
    matrix = np.zeros((len(labels), len(labels)), int)
    np.add.at(matrix, (place[true], place[predicted]), images)
    return matrix, labels, kept
