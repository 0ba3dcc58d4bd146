"""Weights that were trained elsewhere: in the zoo, in another run, in a file of Keras's."""

from collections.abc import Mapping
from typing import Any

import ml_collections
from flax import traverse_util

from rice_jax import config as configuration
from rice_jax import files, nets, zoo
from rice_jax.graph.trace import variable_shapes
from rice_jax.records import ImagesTold, WeightsTold
from rice_jax.run import Run
from rice_jax.train import weights

_OF_NO_MATTER = ("name", "weights", "classes", "dense", "dropout", "narrowed")
"""Fields of config.model that tell shapes, which are held against each other, or training."""


def about(config: ml_collections.ConfigDict) -> WeightsTold | None:
    """Where the weights are from that config.model.weights names; None where they are random.

    Raises:
        UserError: the zoo has no such net, or the folder is no trained run's.
    """
    source = config.model.weights
    if source in ("", weights.RANDOM):
        return None
    if source.startswith(zoo.PREFIX):
        card = zoo.card(source.removeprefix(zoo.PREFIX))
        data: ImagesTold | None = card.data
        recipe, epochs, side = card.recipe, card.best_epoch, card.image_size
        classes, some = card.data.classes, card.config["train"].get("images")
    elif Run(folder := files.reached(source)).has("config.json"):
        trained, data = weights.load(Run(folder)), configuration.read(Run(folder)).data
        recipe, epochs = trained.config.train.schedule, trained.epoch
        recipe += ", augmented" if trained.config.train.augment else ""
        side, classes = trained.config.data.image_size, trained.classes
        some = trained.config.train.images
    else:
        return WeightsTold(source=source)
    there = data.images.get("train") if data else None
    return WeightsTold(
        source=source,
        epochs=epochs,
        recipe=recipe,
        image_size=side,
        data=data.name if data else None,
        images=there and min(there, some or there),
        classes=classes,
    )


def used_otherwise(config: ml_collections.ConfigDict) -> list[str]:
    """What the net did otherwise that the weights were trained in, though they fit in shape.

    Such as the grid that it averaged images to, or the stride of its first convolution.

    Returns:
        'grid=56 (here 0)' for each such field of config.model; none where the weights are a
        file's, which does not tell.

    Raises:
        UserError: as `about`.
    """
    theirs = _trained_as(config.model.weights)
    if theirs is None:
        return []
    side, before = theirs["data"]["image_size"], theirs["model"]
    told = []
    for field, now in dict(config.model).items():
        if field in _OF_NO_MATTER or field not in before or isinstance(now, tuple):
            continue
        same = before[field] == now
        if field == "grid":
            same = nets.averaged(side, before[field]) == nets.averaged(side, now)
        told += [] if same else [f"{field}={before[field]} (here {now})"]
    return told


def _trained_as(source: str) -> Mapping[str, Any] | None:
    """The configuration in JSON of a net of the zoo or of a run; None of a file."""
    if source in ("", weights.RANDOM):
        return None
    if source.startswith(zoo.PREFIX):
        return configuration.completed(zoo.card(source.removeprefix(zoo.PREFIX)).config)
    run = Run(files.reached(source))
    return configuration.read(run).config if run.has("config.json") else None


def zoo_fits(config: ml_collections.ConfigDict) -> bool:
    """Whether the zoo's net of this configuration's name has parameters of the same shapes.

    UserError where the zoo has no such net.
    """
    shapes = variable_shapes(weights.build(config), weights.input_shape(config))
    ours = shapes["params"]
    theirs = zoo.load(config.model.name).variables["params"]
    wanted, given = (
        {path: leaf.shape for path, leaf in traverse_util.flatten_dict(tree).items()}
        for tree in (ours, theirs)
    )
    return wanted == given
