"""Where a training stands, apart from its arrays: plain numbers that a checkpoint holds as JSON."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

Recipe = Any
"""The `train` part of a configuration."""


@dataclasses.dataclass
class Progress:
    """Counters, sums and history; what epochs did to the learning rate and to patience."""

    learning_rate: float
    epoch: int = 0
    """Epochs finished."""
    step: int = 0
    """Steps done, all epochs together."""
    batch: int = 0
    """Steps done of the epoch under way."""
    loss_sum: float = 0.0
    """Over the images of the epoch under way, as the two below."""
    correct: float = 0.0
    images: float = 0.0
    seconds: float = 0.0
    """Spent on the training steps of the epoch under way."""
    plateau_best: float | None = None
    plateau_wait: int = 0
    best_loss: float | None = None
    best_epoch: int = 0
    """Epoch of the lowest validation loss, counted from 1; 0 before there is one."""
    best_checkpoint: int = 0
    stop_wait: int = 0
    collapsed: bool = False
    """Stopped because the net could not learn."""
    history: list[dict[str, float]] = dataclasses.field(default_factory=list)
    """One row for each finished epoch: the columns of history.csv."""

    @property
    def checkpoint(self) -> int:
        """Number of a checkpoint made now: each step and each end of an epoch adds one to it."""
        return self.step + self.epoch

    def add(self, loss: float, correct: float, images: float) -> None:
        """Count a step: its summed loss, its correctly classified images and all its images."""
        self.step += 1
        self.batch += 1
        self.loss_sum += loss
        self.correct += correct
        self.images += images

    def end_epoch(
        self, recipe: Recipe, val_loss: float, val_accuracy: float, val_seconds: float
    ) -> dict[str, float]:
        """Close the epoch under way: a row of history, then plateau and patience, as Keras's."""
        row = {
            "epoch": self.epoch + 1,
            "train_loss": self.loss_sum / self.images,
            "train_accuracy": self.correct / self.images,
            "val_loss": val_loss,
            "val_accuracy": val_accuracy,
            "learning_rate": self.learning_rate,
            "seconds": round(self.seconds + val_seconds, 3),
            "images_per_second": round(self.images / max(self.seconds, 1e-9), 1),
        }
        self.history.append(row)
        self.epoch += 1
        self.batch = 0
        self.loss_sum = self.correct = self.images = self.seconds = 0.0
        self._plateau(recipe, val_loss)
        self._patience(val_loss)
        return row

    def finished(self, recipe: Recipe) -> str | None:
        """Why there is nothing left to train, or None."""
        if self.collapsed and recipe.stop_on_collapse:
            return "the net cannot learn"
        if self.epoch > 1 and self.stop_wait >= recipe.stop_patience:
            return f"no better validation loss for {self.stop_wait} epochs"
        if self.epoch >= recipe.epochs:
            return f"all {recipe.epochs} epochs done"
        return None

    def _plateau(self, recipe: Recipe, val_loss: float) -> None:
        """ReduceLROnPlateau."""
        best = math.inf if self.plateau_best is None else self.plateau_best
        if val_loss < best - recipe.plateau_min_delta:
            self.plateau_best, self.plateau_wait = val_loss, 0
            return
        self.plateau_wait += 1
        if self.plateau_wait >= recipe.plateau_patience:
            self.learning_rate *= recipe.plateau_factor
            self.plateau_wait = 0

    def _patience(self, val_loss: float) -> None:
        """EarlyStopping that restores the best epoch."""
        if self.best_loss is None or val_loss < self.best_loss:
            self.best_loss, self.best_epoch, self.stop_wait = val_loss, self.epoch, 0
            self.best_checkpoint = self.checkpoint
        else:
            self.stop_wait += 1

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; floats survive the way there and back to the last bit."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Progress":
        """Undo `to_json`."""
        return cls(**content)
