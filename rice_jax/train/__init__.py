"""Training: state, compiled step, two recipes, checkpoints, what to do when it fails."""

from rice_jax.train.check import check
from rice_jax.train.feed import Feed, data_mesh
from rice_jax.train.given import about, used_otherwise, zoo_fits
from rice_jax.train.loop import train
from rice_jax.train.schedule import fits, planned
from rice_jax.train.speed import images_per_second
from rice_jax.train.start import begin, forget, has_checkpoints
from rice_jax.train.step import evaluation_inputs
from rice_jax.train.trial import require_sound
from rice_jax.train.weights import (
    RANDOM,
    Trained,
    at_random,
    build,
    given_params,
    image_sizes,
    initial_params,
    input_shape,
    load,
    newest,
    refuse_idle_initializer,
)

__all__ = [
    "RANDOM",
    "Feed",
    "Trained",
    "about",
    "at_random",
    "begin",
    "build",
    "check",
    "data_mesh",
    "evaluation_inputs",
    "fits",
    "forget",
    "given_params",
    "has_checkpoints",
    "image_sizes",
    "images_per_second",
    "initial_params",
    "input_shape",
    "load",
    "newest",
    "planned",
    "refuse_idle_initializer",
    "require_sound",
    "train",
    "used_otherwise",
    "zoo_fits",
]
