"""How fast a net learns on this machine, from a few steps of its training."""

import itertools
import time
from collections.abc import Iterator

import jax
import ml_collections
import numpy as np

from rice_jax import data
from rice_jax.errors import UserError
from rice_jax.graph.trace import variable_shapes
from rice_jax.train import state, teacher, weights
from rice_jax.train.feed import Feed, data_mesh
from rice_jax.train.step import train_step


def images_per_second(
    config: ml_collections.ConfigDict,
    dataset: data.Dataset,
    *,
    seconds: float = 2.0,
    image_size: int = 0,
) -> float:
    """Training speed over a few steps of the run that `config` describes; nothing is kept of them.

    Compilation and the first step are left out, reading the images is not. No weights are needed:
    time does not depend on what they are.

    Args:
        config: its model.classes must be the dataset's.
        dataset: whose training split is read.
        image_size: height and width of the images that are learnt from; 0 for the whole size.
        seconds: to spend on the timed steps; the last one begins within them.

    Raises:
        UserError: a training split without images, or a teacher that `check` would refuse.
    """
    if not len(dataset.splits["train"]):
        raise UserError("the train split has no images: nothing can be learned without")
    module, mesh = weights.build(config), data_mesh()
    feed = Feed(mesh, config.train.batch_size)
    shapes = variable_shapes(module, weights.input_shape(config))["params"]
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    present = state.replicate(state.fresh(zeros, config.train.frozen), mesh)
    step = train_step(
        module,
        mesh,
        seed=config.seed,
        augment=config.train.augment,
        teacher=teacher.load(config, dataset),
    )
    images, started = 0.0, 0.0
    for index, batch in enumerate(_endless(config, dataset, feed, image_size)):
        present, metrics = step(present, feed(batch), np.int32(index), np.float32(0))
        learnt = float(metrics.images)  # waits for the step
        if index == 0:
            started = time.monotonic()
            continue
        images += learnt
        if time.monotonic() - started > seconds:
            break
    return images / (time.monotonic() - started)


def _endless(
    config: ml_collections.ConfigDict, dataset: data.Dataset, feed: Feed, image_size: int
) -> Iterator[data.Batch]:
    for epoch in itertools.count():
        yield from data.batches(
            dataset.splits["train"],
            feed.batch_size,
            image_size=image_size or config.data.image_size,
            whole_size=config.data.image_size,
            seed=config.seed,
            epoch=epoch,
            shard=feed.shard,
            limit=config.train.images,
            workers=config.data.workers,
        )
