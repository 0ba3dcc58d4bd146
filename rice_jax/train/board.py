"""history.csv for TensorBoard: an event file in the run's folder."""

from collections.abc import Iterable
from typing import Any

import jax

from rice_jax.errors import UserError
from rice_jax.records import EpochRow
from rice_jax.run import Run

FOLDER = "tensorboard"


class Board:
    """Scalars by epoch, where they are wanted; only the first process writes.

    The file is begun anew by each command and filled with the epochs before it, so that a
    training that was stopped, or that lost an epoch to a crash, has each epoch once.
    """

    def __init__(self, run: Run, history: Iterable[EpochRow], *, wanted: bool) -> None:
        """Begin the run's event file with the rows of history.csv that there are.

        Raises:
            UserError: it is wanted, and tensorboardX is not installed.
        """
        self._writer = _writer(run) if wanted and jax.process_index() == 0 else None
        for row in history:
            self.epoch(row)

    def epoch(self, row: EpochRow) -> None:
        """Add a row of history.csv."""
        if self._writer is None:
            return
        scalars = {
            "loss/train": row.train_loss,
            "loss/validation": row.val_loss,
            "accuracy/train": row.train_accuracy,
            "accuracy/validation": row.val_accuracy,
            "learning_rate": row.learning_rate,
            "images_per_second": row.images_per_second,
        }
        for tag, value in scalars.items():
            self._writer.add_scalar(tag, value, row.epoch)
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()


def clear(run: Run) -> None:
    """Remove the run's event files; UserError where that is not permitted."""
    for old in (run.path / FOLDER).glob("events.out.tfevents.*"):
        run.remove(f"{FOLDER}/{old.name}")


def writer() -> Any:
    """The class that writes event files; UserError where its package is not installed."""
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise UserError(
            "config.train.tensorboard needs a package that is not installed "
            f"({error}): pip install 'rice_jax[tensorboard]'"
        ) from error
    return SummaryWriter


def _writer(run: Run) -> Any:
    made_by = writer()
    clear(run)
    return made_by(str(run.path / FOLDER))
