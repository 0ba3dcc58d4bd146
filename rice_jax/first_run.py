"""What a command begins with where its configuration leaves that open and no images are given.

The package then trains on its own sample of photographs, which are few: it starts from the zoo's
net of the same name, where there is one, and goes on for a few epochs at a small rate. Whatever
the user has set stays as it is; config.json records what was decided.
"""

import functools
from collections.abc import Collection
from typing import Any

import flax.linen as nn
import ml_collections

from rice_jax import config as configuration
from rice_jax import data, nets, profile, train, zoo
from rice_jax.graph.remembered import remembered
from rice_jax.graph.trace import variable_shapes

FINE_TUNING: dict[str, Any] = {
    "train.epochs": 3,
    "train.learning_rate": 1e-4,
    "train.quick.epochs": (3,),
    "train.quick.shrink": (1,),
    "train.quick.peak_rate": 1e-4,
}
"""On the sample, from weights of the zoo; fewer epochs where the net is heavy."""
FROM_NOTHING: dict[str, Any] = {
    "train.epochs": 10,
    "train.learning_rate": 1e-3,
    "train.on_collapse": "warn",
}
"""On the sample, from random weights; fewer epochs where the net is heavy."""
HEAVY: dict[str, Any] = {
    "train.schedule": "quick",
    "train.epochs": 3,
    "train.learning_rate": 3e-4,
    "train.quick.epochs": (3,),
    "train.quick.shrink": (1,),
    "train.quick.peak_rate": 3e-4,
    "train.batch_size": 16,
    "train.initializer": nets.HE,
    "train.on_collapse": "warn",
}
"""From random weights where `FROM_NOTHING` buys no `_FEW` epochs, and on smaller images. Such a net
is deep: from Glorot's kernels a class is nothing that it learns in so few steps."""
_MOST_FLOPS = {"from the zoo": 2.5e12, "from nothing": 5e12, "heavy": 2e12}
"""Of training: a quarter and half of a minute on two cores at 170 GFLOP/s. A heavy net's gradients
compile for as long, and on small images it reaches a quarter of that speed."""
_FEW = 3
_SMALLEST = 56
"""Pixels of a side: the nets halve it up to five times."""
_PHOTOGRAPHS = 500  # that the sample has for training
_MOST_LAYERS = 25
"""That learn on the sample. Of more, compiling their gradients takes longer than all else."""
_STUDYS = ("train.epochs", "train.learning_rate")
_ALSO = {f"train.{name}" for name in configuration.NO_PART_IN["quick"]} - {*_STUDYS}
"""These too the quick schedule leaves unread; a run that goes on has them given as they were."""
_TOGETHER = {"train.quick.epochs", "train.quick.shrink"}  # they are of one length


def settle(config: ml_collections.ConfigDict, given: Collection[str] = ()) -> str:
    """Decide what `config` leaves open, where the images are the sample's.

    A field is open where it has its default and is not among `given`, the fields that the user
    has set, as 'train.epochs'.

    Returns:
        What was decided, in a line; empty where there was nothing to decide.

    Raises:
        UserError: RICE_IMAGE_DATASET names what is not there, or the zoo is damaged.
    """
    if data.chosen(config.data.path) != data.SAMPLE:
        return ""
    config.data.path = data.SAMPLE
    usual = configuration.default(config.model.name)

    def is_open(field: str) -> bool:
        return field not in given and _value(config, field) == _value(usual, field)

    draws_kernels = _value(config, "train.initializer") != _value(usual, "train.initializer")
    if is_open("model.weights") and not draws_kernels:
        _start_from_zoo(config, any_size=is_open("data.image_size"))
    whole = config.data.image_size
    if config.model.weights.startswith(zoo.PREFIX):
        recipe = _fine_tuning(config)
    else:
        recipe = _from_nothing(config, any_size=is_open("data.image_size"))
    if not all(map(is_open, _STUDYS)) or any(_value(config, f) != _value(usual, f) for f in _ALSO):
        recipe.pop("train.schedule", None)  # the user set the study's
    decided = {field: value for field, value in recipe.items() if is_open(field)}
    if not decided.keys() >= _TOGETHER:
        decided = {field: value for field, value in decided.items() if field not in _TOGETHER}
    config.update_from_flattened_dict(decided)
    epochs, rate = train.planned(config.train)
    side = config.data.image_size
    smaller = " since the net is heavy" if side < whole else ""
    length = "1 epoch" if epochs == 1 else f"{epochs} epochs"
    learning = ", of the last layers alone" if decided.get("train.frozen") else ""
    return (
        f"The sample of photographs, {side} x {side} pixels{smaller}, from "
        f"{config.model.weights or train.RANDOM} weights: {length} at a learning rate of "
        f"{rate:g}{learning}. All images, by the net's own recipe: {data.DOWNLOAD}, then in "
        "another folder --config.data.path=rice-image-dataset.zip"
    )


def _fine_tuning(config: ml_collections.ConfigDict) -> dict[str, Any]:
    counted = _counted(config, config.data.image_size)
    epochs = _affordable(counted, FINE_TUNING["train.epochs"], _MOST_FLOPS["from the zoo"])
    return {
        **FINE_TUNING,
        "train.epochs": epochs,
        "train.quick.epochs": (epochs,),
        "train.frozen": _but_the_last(counted),
    }


def _from_nothing(config: ml_collections.ConfigDict, *, any_size: bool) -> dict[str, Any]:
    """The recipe from random weights or a file's; with `any_size` of smaller images, if needed."""
    whole = _counted(config, config.data.image_size)
    epochs = _affordable(whole, FROM_NOTHING["train.epochs"], _MOST_FLOPS["from nothing"])
    heavy = epochs < _FEW and _is_random(config)
    smaller = _smaller(config) if heavy and any_size else []
    if not smaller:
        return {**FROM_NOTHING, "train.epochs": epochs}
    wanted, most = HEAVY["train.epochs"], _MOST_FLOPS["heavy"]
    for side in smaller:  # the largest that affords all epochs, or else the smallest
        epochs = _affordable(_counted(config, side), wanted, most)
        if epochs == wanted:
            break
    recipe = {**HEAVY, "train.epochs": epochs, "data.image_size": side}
    recipe["train.quick.epochs"] = (epochs,)
    if nets.get(config.model.name).kind == nets.OWN:
        del recipe["train.initializer"]  # its author chose
    return recipe


def _is_random(config: ml_collections.ConfigDict) -> bool:
    needed = nets.get(config.model.name).needs_weights
    return config.model.weights == train.RANDOM or not (config.model.weights or needed)


def _smaller(config: ml_collections.ConfigDict) -> list[int]:
    """Halves of the image size that the net takes with the same parameters, from the largest."""
    net, side = train.build(config), config.data.image_size
    params = variable_shapes(net, train.input_shape(config))["params"]
    halves = []
    while (side := side // 2) >= _SMALLEST and train.fits(net, params, side):
        halves.append(side)
    return halves


@remembered(16)  # a trace of a large net takes a second, and `reproduce` asks for all nets twice
def _count(net: nn.Module, side: int) -> profile.Profile:
    return profile.count(net, (side, side, 3))


def _counted(config: ml_collections.ConfigDict, side: int) -> profile.Profile:
    return _count(train.build(config), side)


def _affordable(counted: profile.Profile, epochs: int, most: float) -> int:
    """Of so many epochs those within `most` FLOPs, at least one; a step is three forward passes."""
    epoch = 3 * _PHOTOGRAPHS * counted.flops.formula
    return max(1, min(epochs, int(most / epoch)))


def _but_the_last(counted: profile.Profile) -> tuple[str, ...]:
    """The outermost modules of a net of many layers, but for that of the last; else none."""
    modules = [row.path.split("/")[0] for row in counted.rows if row.params]
    if len(modules) <= _MOST_LAYERS:
        return ()
    return tuple(name for name in dict.fromkeys(modules) if name != modules[-1])


def _start_from_zoo(config: ml_collections.ConfigDict, *, any_size: bool) -> None:
    """Name the zoo's net of the same name, widths and image size; with `any_size` take its own."""
    name, side = config.model.name, config.data.image_size
    if name not in zoo.names():
        return
    theirs = zoo.card(name).image_size
    config.data.image_size = theirs if any_size else side
    if config.data.image_size == theirs and train.zoo_fits(config):
        config.model.weights = f"{zoo.PREFIX}{name}"
    else:
        config.data.image_size = side


def _value(config: ml_collections.ConfigDict, field: str) -> object:
    return functools.reduce(lambda part, name: part[name], field.split("."), config)
