"""Losses of the same 50 steps on 1, 2 and 8 devices of one process, as JSON on standard output.

python tests/many_devices.py (with JAX_NUM_CPU_DEVICES=8): 8 does not divide the batch of 30.
"""

import json

import jax
import numpy as np
from jax.sharding import Mesh
from tiny_training import SIZE, config, dataset

from rice_jax import data
from rice_jax.train import build, initial_params, state
from rice_jax.train.feed import AXIS, Feed
from rice_jax.train.step import eval_step, train_step


def losses(count, settings, batches):
    """Of each training step, then of one measurement, augmented."""
    mesh = Mesh(np.array(jax.devices()[:count]), (AXIS,))
    module = build(settings)
    params = initial_params(settings, module)
    current = state.replicate(
        jax.tree.map(np.asarray, state.create(params, settings.train.frozen)), mesh
    )
    step = train_step(module, mesh, seed=settings.seed, augment=True)
    feed = Feed(mesh, settings.train.batch_size)
    found = []
    for index, batch in enumerate(batches):
        current, metrics = step(current, feed(batch), np.int32(index), np.float32(1e-3))
        found.append(float(metrics.loss / metrics.images))
    measure = eval_step(module, mesh, 5, augment_seed=3)
    sums = measure(current.params, feed(batches[0]), np.int32(7))
    return [*found, float(sums.loss)], np.asarray(sums.confusion).tolist()


def main():
    settings = config(batch_size=30)
    source = dataset().splits["train"]
    batches = [
        batch
        for epoch in range(13)
        for batch in data.batches(source, 30, image_size=SIZE, seed=0, epoch=epoch)
    ][:50]
    print(json.dumps({count: losses(count, settings, batches) for count in (1, 2, 8)}))


if __name__ == "__main__":
    main()
