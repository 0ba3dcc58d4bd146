"""The training split as a training goes through it, from wherever it stands."""

import dataclasses
from collections.abc import Iterator

import ml_collections
import numpy as np

from rice_jax import data
from rice_jax.train.progress import Progress
from rice_jax.train.schedule import Schedule


@dataclasses.dataclass(frozen=True)
class Reading:
    """Batches in an order that a seed and an epoch tell, in the size that the schedule asks for."""

    config: ml_collections.ConfigDict
    source: data.Source
    schedule: Schedule

    def batches(
        self, progress: Progress, seed: int, shard: tuple[int, int] = (0, 1)
    ) -> Iterator[data.Batch]:
        """The rest of the epoch under way, the next batch first.

        Args:
            progress: where the training stands.
            seed: of the order.
            shard: which of how many shares of each batch; all of it without.
        """
        return data.batches(
            self.source,
            self.config.train.batch_size,
            image_size=self.schedule.size(progress.epoch),
            whole_size=self.config.data.image_size,
            seed=seed,
            epoch=progress.epoch,
            first_batch=progress.batch,
            shard=shard,
            limit=self.config.train.images,
            workers=self.config.data.workers,
        )

    def examples(self, progress: Progress, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Images (uint8) and labels of the next batch, without what fills it up."""
        batch = next(self.batches(progress, seed))
        real = batch["weight"] > 0
        return batch["image"][real], batch["label"][real]
