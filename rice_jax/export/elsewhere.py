"""How long one image takes in the runtimes that a net can be exported to."""

from typing import Any

import jax
import ml_collections
import numpy as np

from rice_jax import export, train
from rice_jax.errors import UserError
from rice_jax.export import runtimes
from rice_jax.export.artifact import RUNTIMES
from rice_jax.export.folding import folded
from rice_jax.records import Seconds

FORMATS = {name: suffix for suffix, name in RUNTIMES.items() if suffix != ".stablehlo"}
"""What each runtime reads."""


def latencies(
    config: ml_collections.ConfigDict, shapes: Any
) -> tuple[dict[str, Seconds], dict[str, str]]:
    """Seconds of one image on the CPU, from NumPy's memory and back, by runtime.

    The net is exported as it would be after training, in float32 and with its batch norms folded;
    its weights are random, since time does not depend on them.

    Args:
        config: the net's.
        shapes: of its parameters, as `jax.eval_shape` has them.

    Returns:
        The seconds, and by runtime in a line why there are none: it is not installed, or lacks an
        operation of the net's.
    """
    draw = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: draw.random(leaf.shape, np.float32) / 10, shapes)
    net = folded(train.Trained(config, train.build(config), params, classes=(), epoch=0))
    whole = (net.module, net.params, config.data.image_size)
    found: dict[str, Seconds] = {}
    why_not: dict[str, str] = {}
    for runtime, suffix in FORMATS.items():
        try:
            content = (export.to_onnx if suffix == ".onnx" else export.to_tflite)(*whole)
            timed = runtimes.latency(runtimes.opened(suffix, content), config.data.image_size)
            found[runtime] = Seconds(**timed)
        except UserError as error:
            why_not[runtime] = str(error)
    return found, why_not
