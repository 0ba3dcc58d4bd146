"""A confusion matrix of many classes made one that can be read."""

from collections.abc import Sequence

import numpy as np

MOST_CLASSES = 50
"""Of a matrix as it is; of more the classes most often mistaken are kept."""
_KEPT = 29


def gathered(counts: np.ndarray, names: Sequence[str]) -> tuple[np.ndarray, list[str], list[int]]:
    """The matrix with all but the most mistaken classes added up, where there are too many.

    Args:
        counts: (classes, classes), rows the true class.
        names: of the classes.

    Returns:
        The matrix; the names of its rows, the last '71 others' where some were added up; and the
        places of the kept classes. Of 'others' taken for 'others' not all are right.
    """
    if len(names) <= MOST_CLASSES:
        return counts, list(names), list(range(len(names)))
    wrong = np.where(np.eye(len(names), dtype=bool), 0, counts)
    mistakes = wrong.sum(axis=0) + wrong.sum(axis=1)
    kept = sorted(np.argsort(-mistakes, kind="stable")[:_KEPT].tolist())
    place = np.full(len(names), _KEPT)
    place[kept] = range(_KEPT)
    small = np.zeros((_KEPT + 1, _KEPT + 1), counts.dtype)
    np.add.at(small, (place[:, None], place[None, :]), counts)
    others = f"{len(names) - _KEPT:,} others"
    return small, [*(names[index] for index in kept), others], kept
