"""Where a training stands, apart from its arrays: plain numbers that a checkpoint holds as JSON."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Iterator, Mapping
from typing import Any

from rice_jax import records
from rice_jax.records import EpochRow
from rice_jax.records.epochs import PARTS
from rice_jax.train import compiling, schedule
from rice_jax.train.schedule import Recipe

_MOST_RESTARTS = 5
_NEW = {"rested", "restarts", "begun", "given", "spent", "hopeless"}
"""Fields that older checkpoints do not have."""
_LONGEST_REST = 900  # steps at chance of a net with gradients: an epoch of the study's


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
    """Spent on the training steps of the epoch under way, but for compiling them."""
    plateau_best: float | None = None
    plateau_wait: int = 0
    best_loss: float | None = None
    best_epoch: int = 0
    """Epoch of the lowest validation loss, counted from 1, among those that were validated at the
    newest one's size; 0 before there is one."""
    best_checkpoint: int = 0
    stop_wait: int = 0
    collapsed: bool = False
    """The net cannot learn, or has rested at chance for too long."""
    hopeless: bool = False
    """No seed would help: the images are all the same."""
    rested: int = 0
    """Steps of the epochs in a row that ended at chance."""
    restarts: int = 0
    """How often the net began again because it had collapsed; each time the seed grew by one."""
    begun: int = 0
    """Number of the checkpoint before the first step; a restart's is above all before it."""
    given: bool = False
    """Whether the parameters before the first step are no seed's: a restart would lose them."""
    spent: dict[str, float] = dataclasses.field(default_factory=dict)
    """Seconds since the last row, by PARTS."""
    history: list[EpochRow] = dataclasses.field(default_factory=list)
    """One row for each finished epoch: the columns of history.csv."""

    @property
    def checkpoint(self) -> int:
        """Number of a checkpoint made now: each step and each end of an epoch adds one to it."""
        return self.begun + self.step + self.epoch

    def add(self, loss: float, correct: float, images: float) -> None:
        """Count a step: its summed loss, its correctly classified images and all its images."""
        self.step += 1
        self.batch += 1
        self.loss_sum += loss
        self.correct += correct
        self.images += images

    @contextlib.contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Count what is done within as one of PARTS, and what is compiled there as compiling."""
        started, before = time.monotonic(), compiling.seconds()
        try:
            yield
        finally:
            compiled = compiling.seconds() - before
            took = {part: time.monotonic() - started - compiled, "compiling": compiled}
            self.spent |= {each: self.spent.get(each, 0.0) + took[each] for each in took}

    def end_epoch(
        self,
        recipe: Recipe,
        val_loss: float,
        val_accuracy: float,
        *,
        seed: int,
        image_size: int,
        validation_size: int | None = None,
    ) -> EpochRow:
        """Close the epoch under way: a row of history, then plateau and patience, as Keras's.

        Args:
            recipe: of the training.
            val_loss: in nats.
            val_accuracy: as a share.
            seed: of this try.
            image_size: of the images that were learned from.
            validation_size: of those of validation, where they were not whole.
        """
        spent = {part: round(self.spent.get(part, 0.0), 3) for part in PARTS}
        row = EpochRow(
            epoch=self.epoch + 1,
            train_loss=self.loss_sum / self.images,
            train_accuracy=self.correct / self.images,
            val_loss=val_loss,
            val_accuracy=val_accuracy,
            learning_rate=self.learning_rate,
            seconds=round(self.seconds + spent["validation"] + spent["compiling"], 3),
            images_per_second=round(self.images / max(self.seconds, 1e-9), 1),
            seed=seed,
            image_size=image_size,
            validation_size=validation_size,
            **{f"{part}_seconds": seconds for part, seconds in spent.items()},
        )
        if self.history and self.history[-1].validation_size != validation_size:
            self.best_loss = None  # of other images
        self.history.append(row)
        self.epoch += 1
        self.batch = 0
        self.loss_sum = self.correct = self.images = self.seconds = 0.0
        self.spent = {}
        if recipe.schedule == schedule.STUDY:
            self._plateau(recipe, val_loss)
        self._patience(val_loss)
        return row

    def finished(self, recipe: Recipe) -> str | None:
        """Why there is nothing left to train, or None."""
        if self.restarted(recipe):  # it was told to stop then
            return None
        if self.collapsed and recipe.on_collapse != "warn":
            tries = f", with {self.restarts + 1} seeds" if self.restarts else ""
            return f"the net does not learn{tries}"
        patient = recipe.schedule != schedule.STUDY
        if not patient and self.epoch > 1 and self.stop_wait >= recipe.stop_patience:
            epochs = f"{self.stop_wait} epochs" if self.stop_wait > 1 else "an epoch"
            return f"no better validation loss for {epochs}"
        if self.epoch >= (planned := schedule.epochs(recipe)):
            return f"all {planned} epochs done" if planned > 1 else "its one epoch is done"
        return None

    def rest(self, steps: int, *, silent: bool, hopeless: bool = False) -> None:
        """Take in an epoch of `steps` steps that ended at chance; 0 steps for one that did not.

        Args:
            steps: of the epoch.
            silent: whether no gradient reaches some of the layers.
            hopeless: whether no other seed would help.
        """
        self.hopeless = hopeless
        self.rested = self.rested + steps if steps else 0
        self.collapsed = silent or hopeless or self.rested >= _LONGEST_REST

    def restarted(self, recipe: Recipe) -> "Progress | None":
        """Where the training begins again with the next seed; None where it does not."""
        if not self.collapsed or recipe.on_collapse != "restart":
            return None
        if self.given or self.hopeless or self.restarts == _MOST_RESTARTS:
            return None
        return Progress(recipe.learning_rate, restarts=self.restarts + 1, begun=self.checkpoint)

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
        return records.plain(self)

    @classmethod
    def is_told_by(cls, content: Mapping[str, Any]) -> bool:
        """Whether `from_json` takes this: an older version's lacks the newer fields."""
        fields = {field.name for field in dataclasses.fields(cls)}
        return fields - _NEW <= content.keys() <= fields

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Progress":
        """Undo `to_json`."""
        history = [records.made(EpochRow, row) for row in content["history"]]
        return cls(**{**content, "history": history})
