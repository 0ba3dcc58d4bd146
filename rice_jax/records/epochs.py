"""history.csv: a row for each epoch."""

import csv
import dataclasses
import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rice_jax.bounds import MOST_EPOCHS
from rice_jax.errors import UserError
from rice_jax.records.store import left_out, plain

if TYPE_CHECKING:
    from rice_jax.run import Run

HISTORY = "history.csv"
PARTS = ("compiling", "decoding", "feeding", "step", "validation", "saving", "drawing")
"""What an epoch's seconds go to: compiling, which is once for each size of images and each command,
waiting for images, handing them to the devices, waiting for the step, and what its name says. What
is saved and drawn after an epoch's row counts for the next."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EpochRow:
    """What an epoch came to; NaN or None for a cell that is empty or not there."""

    epoch: int
    """From 1."""
    train_loss: float = math.nan
    """In nats, as the other loss."""
    train_accuracy: float = math.nan
    val_loss: float = math.nan
    val_accuracy: float = math.nan
    learning_rate: float = math.nan
    """Of the epoch's last step."""
    seconds: float = math.nan
    """Of training and validation, with what was compiled for them."""
    images_per_second: float = math.nan
    """Of training, without the time of compiling."""
    seed: int | None = left_out()
    """The seed of this try: a net that begins again has another than its configuration."""
    image_size: int | None = left_out()
    """Height and width of the images that the net learned from."""
    validation_size: int | None = left_out()
    """Height and width of those that it was validated on, where they were not whole."""
    compiling_seconds: float | None = left_out()
    """What the epoch's seconds went to, as all below (`PARTS`)."""
    decoding_seconds: float | None = left_out()
    feeding_seconds: float | None = left_out()
    step_seconds: float | None = left_out()
    validation_seconds: float | None = left_out()
    saving_seconds: float | None = left_out()
    drawing_seconds: float | None = left_out()

    def spent(self) -> dict[str, float]:
        """What the epoch's seconds went to, by part; nothing where an older version wrote it."""
        parts = {part: getattr(self, f"{part}_seconds") for part in PARTS}
        return {part: seconds for part, seconds in parts.items() if seconds is not None}


_WHOLE = ("epoch", "seed", "image_size", "validation_size")
_KNOWN = {field.name for field in dataclasses.fields(EpochRow)}


def read_history(run: "Run") -> list[EpochRow]:
    """The rows of a run; none where there is no file. Columns that are not known are passed over.

    Raises:
        UserError: a row is cut short, or holds what is no number; or there are none, or over
            50,000.
    """
    if not run.has(HISTORY):
        return []
    rows: list[EpochRow] = []
    try:
        lines = run.read_bytes(HISTORY).decode().splitlines()
        if len(lines) > MOST_EPOCHS + 1:
            raise UserError(
                f"{run.path / HISTORY} has {len(lines) - 1:,} epochs, far more than any run"
            )
        for cells in csv.DictReader(lines, strict=True):
            if None in cells or None in cells.values():
                raise ValueError("a cell too many, or too few")
            numbers = {name: float(text) for name, text in cells.items() if text}
            rows.append(_row(numbers))
        if not rows:  # it is written first when an epoch ends
            raise ValueError("no epoch")
    except (OSError, ValueError, TypeError, KeyError, OverflowError, csv.Error) as error:
        raise UserError(
            f"{run.path / HISTORY} is damaged after row {len(rows)}: give the training command "
            "again"
        ) from error
    return rows


def _row(numbers: dict[str, float]) -> EpochRow:
    known = {name: value for name, value in numbers.items() if name in _KNOWN}
    whole = {name: int(known[name]) for name in _WHOLE if name in known}
    if not math.isfinite(known["epoch"]):
        raise ValueError("no number of an epoch")
    return EpochRow(**{**known, **whole})  # type: ignore[arg-type]


def write_history(run: "Run", rows: Sequence[EpochRow]) -> None:
    """Write all rows anew, in the columns that any of them has; UserError as `Run.write_text`."""
    table, plainly = io.StringIO(), [plain(row) for row in rows]
    there = set().union(*plainly)
    columns = [field.name for field in dataclasses.fields(EpochRow) if field.name in there]
    writer = csv.DictWriter(table, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {name: value for name, value in row.items() if not math.isnan(value)} for row in plainly
    )
    run.write_text(HISTORY, table.getvalue())
