"""The images of a configuration; a split of them as a net is evaluated on it: floats in [0, 1]."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import ml_collections
import numpy as np

from rice_jax import config as configuration
from rice_jax import data
from rice_jax.bar import Bar
from rice_jax.train.step import evaluation_inputs

Kinds = Sequence[str]
"""Of 'clean' and 'augmented'."""


def load_images(config: ml_collections.ConfigDict) -> data.Dataset:
    """The images that a configuration names, prepared on first use; UserError as `data.load`."""
    return data.load(
        config.data.path,
        config.data.cache_dir,
        seed=configuration.split_seed(config),
        synthetic_per_class=config.data.synthetic_per_class,
        keep_decoded=config.data.keep_decoded,
    )


@dataclasses.dataclass(frozen=True)
class Images:
    """Pairs of images (B, H, W, 3) and labels (B,), from the start each time it is iterated."""

    config: ml_collections.ConfigDict
    source: data.Source
    kinds: Kinds = ("clean",)
    limit: int | None = None
    """How many of the source's images at most, evenly spread over it."""
    task: str = "reading images"

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        for kind in self.kinds:
            seed = self.config.seed if kind == "augmented" else None
            yield from self._pass(kind, seed)

    def _pass(self, kind: str, seed: int | None) -> Iterator[tuple[Any, Any]]:
        size, side = self.config.eval.batch_size, self.config.data.image_size
        total = min(len(self.source), self.limit or len(self.source))
        workers = self.config.data.workers
        batches = data.batches(self.source, size, image_size=side, limit=total, workers=workers)
        first = 0
        with Bar(f"{self.task}, {kind}", total) as bar:
            for batch in batches:
                real = int(np.sum(batch["weight"] > 0))
                images = evaluation_inputs(batch["image"], np.uint32(first), augment_seed=seed)
                yield images[:real], batch["label"][:real]
                first += real
                bar.advance(real)
