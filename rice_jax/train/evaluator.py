"""Loss and confusion matrix of a net over a whole source, on every device."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from rice_jax import data
from rice_jax.graph.remembered import remembered
from rice_jax.train.feed import Feed, Lagged, data_mesh, require_labels
from rice_jax.train.state import Params, replicate
from rice_jax.train.step import Sums, eval_step


class Evaluator:
    """Measures parameters of one net; compiled once, however often it is called.

    One of the same net and the same augmentation has what was compiled for the one before it.
    """

    def __init__(
        self,
        module: nn.Module,
        classes: int,
        *,
        batch_size: int,
        image_size: int,
        augment_seed: int | None = None,
        limit: int = 0,
        workers: int = 0,
    ) -> None:
        """What it measures with.

        Args:
            module: the net.
            classes: how many it tells apart.
            batch_size: images at a time.
            image_size: height and width that images are resized to.
            augment_seed: of the study's transforms; None for images as they are.
            limit: images of a source that are read, evenly spread over it; 0 for all.
            workers: threads that decode; 0 for one a core.
        """
        mesh = data_mesh()
        self._step = _step(module, mesh, classes, augment_seed=augment_seed)
        self._feed = Feed(mesh, batch_size)
        self._classes = classes
        self._read = {"whole_size": image_size, "limit": limit, "workers": workers}

    def __call__(
        self,
        params: Params,
        source: Any,
        *,
        image_size: int = 0,
        signal: Callable[[], int] = lambda: 0,
        on_batch: Callable[[int], None] = lambda images: None,
    ) -> tuple[float, np.ndarray] | None:
        """(mean cross-entropy in nats, confusion matrix int64 with true classes as rows).

        Args:
            params: of the net, on every device of the mesh.
            source: the images, as `data.batches` takes them; one at least.
            image_size: height and width that images are averaged to; 0 for whole ones.
            signal: asked at each batch; where any process's answer is not 0 the result is None.
            on_batch: told the number of images of each batch that is done.

        Raises:
            UserError: a label that is no class's, or a net of another number of classes.
        """
        loss = 0.0
        confusion = np.zeros((self._classes, self._classes), np.int64)
        results = Lagged()

        def add(sums: Sums) -> int:
            nonlocal loss, confusion
            loss += float(sums.loss)
            confusion += sums.confusion
            on_batch(int(sums.confusion.sum()))
            return int(sums.signal)

        batches = data.batches(
            source,
            self._feed.batch_size,
            image_size=image_size or self._read["whole_size"],
            shard=self._feed.shard,
            **self._read,
        )
        for number, batch in enumerate(batches):
            first = np.int32(number * self._feed.batch_size)
            sums = self._step(params, self._feed(batch, signal()), first)
            require_labels(batch, self._classes)  # a net of other classes is told first
            if stopped := max(map(add, results.push(sums)), default=0):
                break
        else:
            stopped = max(map(add, results.drain()), default=0)
        if stopped:
            return None
        return loss / int(confusion.sum()), confusion


# A run's two: images as they are, which validation has too, and augmented ones.
_step = remembered(2)(eval_step)


def on_devices(params: Params) -> Params:
    """Put parameters on every device, as `Evaluator` takes them."""
    return replicate(jax.tree.map(np.asarray, params), data_mesh())
