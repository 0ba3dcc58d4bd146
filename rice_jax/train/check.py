"""A configuration held against the images and the machine that it is to train on."""

import contextlib

import ml_collections

from rice_jax import config as configuration
from rice_jax import data
from rice_jax.errors import UserError
from rice_jax.run import Run
from rice_jax.train import board, start, state, teacher, weights
from rice_jax.train.checkpoints import Checkpoints


def check(
    config: ml_collections.ConfigDict, dataset: data.Dataset, run: Run, *, anew: bool = False
) -> None:
    """UserError that names a setting that is out of its bounds, or not of these images or this run.

    All that refuses a training stands here: it is asked before anything of an older one is removed.
    What is finished asks for no teacher, unless it is trained `anew`.
    """
    configuration.check(config)
    if config.model.classes != len(dataset.classes):
        raise UserError(
            f"config.model.classes={config.model.classes}, but there are images of "
            f"{len(dataset.classes)} classes: {', '.join(dataset.classes)}"
        )
    for name in ("train", "validation"):
        if not len(dataset.splits[name]):
            raise UserError(f"the {name} split has no images: nothing can be learned without")
    weights.image_sizes(config)
    for batch_size in (config.train.batch_size, config.eval.batch_size):
        data.require_memory(batch_size, config.data.image_size)
    net = weights.build(config)
    state.require_memory(state.shapes(net, weights.input_shape(config), config.train.frozen))
    teacher.refuse_itself(config, run)
    if teacher.named(config) and (anew or not _finished(config, run)):
        teacher.load(config, dataset)
    if config.train.tensorboard:
        board.writer()


def _finished(config: ml_collections.ConfigDict, run: Run) -> bool:
    """Whether the run's folder tells of a training that has come to its end."""
    if not start.has_checkpoints(run):
        return False
    with contextlib.closing(Checkpoints(run.checkpoints, read_only=True)) as checkpoints:
        progress = checkpoints.progress()
    return bool(progress and progress.finished(config.train))
