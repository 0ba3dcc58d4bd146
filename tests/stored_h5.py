"""Small nets in Keras's .h5 files, and what of them is read."""

import functools
import json
from pathlib import Path

import jax
import numpy as np

from rice_jax import models
from rice_jax.graph.trace import variable_shapes
from rice_jax.models import keras_h5

FIXTURES = Path(__file__).parent / "fixtures"
STORED = json.loads((FIXTURES / "keras_logits.json").read_text())
IMAGE = 32


def tuples(value):
    return tuple(map(tuples, value)) if isinstance(value, list) else value


@functools.cache
def net(file):
    """The module of a stored file and parameters to fill."""
    widths = {key: tuples(value) for key, value in STORED[file]["widths"].items()}
    module = models.build(STORED[file]["net"], **widths)
    shapes = variable_shapes(module, (1, IMAGE, IMAGE, 3), train=False)["params"]
    return module, jax.tree.map(lambda shape: np.full(shape.shape, 7, np.float32), shapes)


def fill(path, file="final.h5"):
    return keras_h5.fill_from_h5(path, *net(file))


@functools.cache
def intact_params():
    return fill(FIXTURES / "final.h5").params


def kernel(file):
    """Group and name of the first convolution's kernel."""
    layer = next(name for name in file["model_weights"] if name.startswith("conv2d"))
    return file["model_weights"][layer][layer], "kernel"
