"""A small trained run to take filters out of."""

import jax
import numpy as np
import prunable

from rice_jax import config as configuration
from rice_jax import data, own_net, train
from rice_jax.graph.trace import variable_shapes
from rice_jax.run import Run


def settings(cache):
    """Of a `final` with four and three filters, on ten drawn grains of each class."""
    config = configuration.default("final")
    config.model.update(stages=((4,), (3,)), dense=4)
    config.data.update(
        path="synthetic", cache_dir=str(cache), synthetic_per_class=10, image_size=24
    )
    config.train.update(epochs=1, batch_size=16)
    config.eval.batch_size = 16
    return config


def made(settings, folder, scale=0.3):
    """A run as training leaves it, two of whose filters no image wakes."""
    run = Run(folder)
    shapes = variable_shapes(train.build(settings), (1, 24, 24, 3))
    params = prunable.random_variables(shapes, 0)["params"]
    params = jax.tree.map(lambda array: np.abs(array) * scale, params)
    params["conv1"]["bias"][[0, 2]] = -100
    _begun(settings, run, params)
    return run


def of_ones_own(module, settings, folder):
    """The configuration of a net of one's own class, and its run, with random weights.

    The class becomes known: patch `nets._OWN`.
    """
    config = own_net.configuration(module, classes=5)
    with config.unlocked():
        config.data.update(settings.data)
        config.train.update(settings.train)
        config.eval.update(settings.eval)
    run, side = Run(folder), settings.data.image_size
    shapes = variable_shapes(train.build(config), (1, side, side, 3))
    _begun(config, run, prunable.random_variables(shapes, 0)["params"])
    return config, run


def _begun(settings, run, params):
    dataset = data.load("synthetic", settings.data.cache_dir, seed=0, synthetic_per_class=10)
    train.begin(settings, run, dataset, params)
    about = {"name": dataset.name, "synthetic": True, "fingerprint": dataset.fingerprint}
    about |= {"classes": list(dataset.classes), "images": {}, "skipped": 0}
    content = {"config": configuration.to_json(settings), "versions": {}, "seed": 0, "data": about}
    run.write_json("config.json", content)
