"""history.csv: a row for each epoch."""

import csv
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from rice_jax.errors import UserError
from rice_jax.report import numbers
from rice_jax.run import Run

_FALLS = 1e5  # times that a rate falls in steps at most


def read(run: Run) -> list[dict[str, float | None]]:
    """The rows as numbers, None where a cell is empty; no rows where there is no file.

    Raises:
        UserError: a row is cut short, or holds what is no number.
    """
    if not run.has("history.csv"):
        return []
    file = run.path / "history.csv"
    rows: list[dict[str, float | None]] = []
    try:
        for row in csv.DictReader(run.read_bytes("history.csv").decode().splitlines(), strict=True):
            cut_short = None in row.values()
            rows.append({name: float(text) if text else None for name, text in row.items()})
            if cut_short or not numbers.present(rows[-1]["epoch"]):
                raise ValueError("a cell is missing")
    except (OSError, ValueError, TypeError, KeyError, csv.Error) as error:
        raise UserError(
            f"{file} is damaged in row {max(len(rows), 1)}: give the training command again"
        ) from error
    return rows


def best_row(history: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The row of the lowest validation loss, the first of equals; None where none is finite."""
    rows = [row for row in history if numbers.present(row.get("val_loss"))]
    return min(rows, key=lambda row: row["val_loss"], default=None)


def best_label(best: Mapping[str, Any]) -> str:
    """The best epoch, and what it is best in."""
    return f"best epoch: {best['epoch']:g} (lowest validation loss)"


def rate_changes(history: Sequence[Mapping[str, Any]]) -> list[float]:
    """Where the learning rate changes: halfway from an epoch to the next."""
    return [
        (before["epoch"] + after["epoch"]) / 2
        for before, after in itertools.pairwise(history)
        if numbers.present(before.get("learning_rate"))
        and numbers.present(after.get("learning_rate"))
        and before["learning_rate"] != after["learning_rate"]
    ]


def rate_in_steps(history: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the rate falls in steps, which a log axis tells apart; one to 0 would have no end."""
    rates = [row["learning_rate"] for row in history if numbers.present(row.get("learning_rate"))]
    return bool(moments(history)) and min(rates) * _FALLS > max(rates)


def moments(history: Sequence[Mapping[str, Any]]) -> list[float]:
    """`rate_changes`; none where the rate moves all the time: there is no moment to mark then."""
    changes = rate_changes(history)
    return [] if len(changes) == len(history) - 1 > 2 else changes
