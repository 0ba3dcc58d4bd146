"""Losses of 50 steps on so many devices, and their exchanges, as JSON on standard output.

python tests/many_devices.py DEVICES ..., alone or as one of several processes. Batches are of 36
images, which 5 and 8 devices do not divide, and the last of each pass is of 28.
"""

import json
import sys

import jax
import numpy as np
from jax.sharding import Mesh
from tiny_training import SIZE, config, dataset

from rice_jax import cluster, data
from rice_jax.train import build, initial_params, state
from rice_jax.train.feed import AXIS, Feed
from rice_jax.train.step import eval_step, train_step

BATCH = 36


def losses(count, settings):
    """Of each training step and of one measurement, augmented; its confusion; exchanges a step."""
    mesh = Mesh(np.array(jax.devices()[:count]), (AXIS,))
    feed = Feed(mesh, BATCH)
    batches = [
        batch
        for epoch in range(17)
        for batch in data.batches(
            dataset().splits["train"], BATCH, image_size=SIZE, seed=0, epoch=epoch, shard=feed.shard
        )
    ]
    module = build(settings)
    params = initial_params(settings, module)
    current = state.replicate(
        jax.tree.map(np.asarray, state.create(params, settings.train.frozen)), mesh
    )
    rate = np.float32(1e-3)
    step = train_step(module, mesh, seed=settings.seed, augment=True)
    step = jax.jit(step).lower(current, feed(batches[0]), np.int32(0), rate).compile()
    exchanges = step.as_text().count(" all-reduce(")
    found = []
    for index, batch in enumerate(batches[:50]):
        current, metrics = step(current, feed(batch), np.int32(index), rate)
        found.append(float(metrics.loss / metrics.images))
    measure = eval_step(module, mesh, 5, augment_seed=3)
    sums = measure(current.params, feed(batches[2]), np.int32(7))
    return [*found, float(sums.loss)], np.asarray(sums.confusion).tolist(), exchanges


def main(*counts):
    cluster.join()
    found = {count: losses(int(count), config()) for count in counts}
    if cluster.leads():
        print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
