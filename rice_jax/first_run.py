"""What a command begins with where its configuration leaves that open and no images are given.

The package then trains on its own sample of photographs, which are few: it starts from the zoo's
net of the same name, where there is one, and goes on for a few epochs at a small rate. Whatever
the user has set stays as it is; config.json records what was decided.
"""

import functools
from collections.abc import Collection

import ml_collections

from rice_jax import config as configuration
from rice_jax import data, train, zoo

FINE_TUNING = {
    "train.epochs": 3,
    "train.learning_rate": 1e-4,
    "train.quick.epochs": (3,),
    "train.quick.shrink": (1,),
    "train.quick.peak_rate": 1e-4,
}
"""On the sample, from weights of the zoo."""
FROM_NOTHING = {"train.epochs": 10, "train.learning_rate": 1e-3, "train.on_collapse": "warn"}
"""On the sample, from random weights."""
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
    open_weights = not config.model.weights and "model.weights" not in given
    if open_weights and train.zoo_fits(config):
        config.model.weights = f"{zoo.PREFIX}{config.model.name}"
    from_zoo = config.model.weights.startswith(zoo.PREFIX)
    usual = configuration.default(config.model.name)
    recipe = FINE_TUNING if from_zoo else FROM_NOTHING
    decided = {
        field: value
        for field, value in recipe.items()
        if field not in given and _value(config, field) == _value(usual, field)
    }
    if not decided.keys() >= _TOGETHER:
        decided = {field: value for field, value in decided.items() if field not in _TOGETHER}
    config.update_from_flattened_dict(decided)
    epochs, rate = train.planned(config.train)
    return (
        f"On the sample of photographs: from {config.model.weights or train.RANDOM} weights, "
        f"{epochs} epochs at a learning rate of {rate:g}. "
        f"With --config.data.path=rice-image-dataset.zip ({data.DOWNLOAD}) all images are learnt "
        "from by the study's recipe."
    )


def _value(config: ml_collections.ConfigDict, field: str) -> object:
    return functools.reduce(lambda part, name: part[name], field.split("."), config)
