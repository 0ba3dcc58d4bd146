"""history.csv: a row for each epoch."""

import csv
from collections.abc import Mapping, Sequence
from typing import Any

from rice_jax.errors import UserError
from rice_jax.report import numbers
from rice_jax.run import Run


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
        for row in csv.DictReader(file.read_text().splitlines(), strict=True):
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
