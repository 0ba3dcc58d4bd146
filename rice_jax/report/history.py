"""What the rows of history.csv show: the best epoch, and where rate or image size change."""

import itertools
from collections.abc import Callable, Sequence

from rice_jax.records import EpochRow
from rice_jax.report import numbers

_FALLS = 1e5  # times that a rate falls in steps at most


def best_row(history: Sequence[EpochRow]) -> EpochRow | None:
    """The row of the lowest validation loss, the first of equals; None where none is finite.

    Where images of validation changed in size only rows since then count, as in the training. (An
    older version validated on whole images from the first epoch on.)
    """
    alike = itertools.takewhile(
        lambda row: row.validation_size == history[-1].validation_size, reversed(history)
    )
    losses = [(row.val_loss, row.epoch, row) for row in alike if numbers.present(row.val_loss)]
    return min(losses, key=lambda told: told[:2], default=(0, 0, None))[2]


def best_among(history: Sequence[EpochRow]) -> str:
    """On which images the best epoch is the best; empty where all were validated on the same."""
    size = history[-1].validation_size
    if all(row.validation_size == size for row in history):
        return ""
    return f" on images of {size} x {size}" if size else " on whole images"


def best_label(history: Sequence[EpochRow], best: EpochRow) -> str:
    """The best epoch, and what it is best in, in no more letters than a legend has room for."""
    return f"best epoch: {best.epoch} (lowest{best_among(history) or ' validation loss'})"


def rate_changes(history: Sequence[EpochRow]) -> list[float]:
    """Where the learning rate changes: halfway from an epoch to the next."""
    return _changes(history, lambda row: row.learning_rate)


def _changes(history: Sequence[EpochRow], read: Callable[[EpochRow], float | None]) -> list[float]:
    """Where a column changes; an empty cell is no change."""
    return [
        (before.epoch + after.epoch) / 2
        for before, after in itertools.pairwise(history)
        if numbers.present(read(before))
        and numbers.present(read(after))
        and read(before) != read(after)
    ]


def rate_in_steps(history: Sequence[EpochRow]) -> bool:
    """Whether the rate falls in steps, which a log axis tells apart; one to 0 would have no end."""
    rates = [row.learning_rate for row in history if numbers.present(row.learning_rate)]
    return bool(moments(history)) and min(rates) * _FALLS > max(rates)


def moments(history: Sequence[EpochRow]) -> list[float]:
    """`rate_changes`; none where the rate moves all the time: there is no moment to mark then."""
    changes = rate_changes(history)
    return [] if len(changes) == len(history) - 1 > 2 else changes


def marks(history: Sequence[EpochRow]) -> dict[str, list[float]]:
    """Where a line in the curves explains them, by what changes there; nothing for what stays."""
    sizes = _changes(history, lambda row: row.image_size)
    found = {"learning rate": moments(history), "image size": sizes}
    return {changing: places for changing, places in found.items() if places}
