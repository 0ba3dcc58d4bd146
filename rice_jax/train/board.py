"""history.csv for TensorBoard: an event file in the run's folder."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax

from rice_jax.errors import UserError
from rice_jax.run import Run

FOLDER = "tensorboard"

_TAGS = {
    "train_loss": "loss/train",
    "val_loss": "loss/validation",
    "train_accuracy": "accuracy/train",
    "val_accuracy": "accuracy/validation",
    "learning_rate": "learning_rate",
    "images_per_second": "images_per_second",
}


class Board:
    """Scalars by epoch, where they are wanted; only the first process writes.

    The file is begun anew by each command and filled with the epochs before it, so that a
    training that was stopped, or that lost an epoch to a crash, has each epoch once.
    """

    def __init__(self, run: Run, history: Iterable[Mapping[str, float]], *, wanted: bool) -> None:
        """Begin the run's event file with the rows of history.csv that there are.

        Raises:
            UserError: it is wanted, and tensorboardX is not installed.
        """
        self._writer = _writer(run) if wanted and jax.process_index() == 0 else None
        for row in history:
            self.epoch(row)

    def epoch(self, row: Mapping[str, float]) -> None:
        """Add a row of history.csv."""
        if self._writer is None:
            return
        for column, tag in _TAGS.items():
            self._writer.add_scalar(tag, row[column], int(row["epoch"]))
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()


def _writer(run: Run) -> Any:
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise UserError(
            "config.train.tensorboard needs a package that is not installed "
            f"({error}): pip install 'rice_jax[tensorboard]'"
        ) from error
    folder = run.path / FOLDER
    for old in folder.glob("events.out.tfevents.*"):
        old.unlink()
    return SummaryWriter(str(folder))
