"""Weights that were trained elsewhere: in the zoo, in another run, in a file of Keras's."""

from typing import Any

import ml_collections
from flax import traverse_util

from rice_jax import config as configuration
from rice_jax import files, zoo
from rice_jax.run import Run
from rice_jax.train import state, weights


def about(config: ml_collections.ConfigDict) -> dict[str, Any] | None:
    """Where the weights are from that config.model.weights names; None where they are random.

    Returns:
        {source}, and where that is known the training they come from: {epochs, recipe, image_size,
        data, images (for training), classes}.

    Raises:
        UserError: the zoo has no such net, or the folder is no trained run's.
    """
    source = config.model.weights
    if source in ("", weights.RANDOM):
        return None
    if source.startswith(zoo.PREFIX):
        card = zoo.card(source.removeprefix(zoo.PREFIX))
        data, recipe, epochs = card["data"], card["recipe"], card["best_epoch"]
        side = card["config"]["data"]["image_size"]
    elif Run(folder := files.reached(source)).has("config.json"):
        trained, data = weights.load(Run(folder)), configuration.read(Run(folder))["data"]
        recipe, epochs = trained.config.train.get("schedule", "study"), trained.epoch
        side = trained.config.data.image_size
    else:
        return {"source": source}
    return {
        "source": source,
        "epochs": epochs,
        "recipe": recipe,
        "image_size": side,
        "data": data["name"],
        "images": data["images"]["train"],
        "classes": data["classes"],
    }


def zoo_fits(config: ml_collections.ConfigDict) -> bool:
    """Whether the zoo's net of this configuration's name has parameters of the same shapes."""
    ours = state.shapes(weights.build(config), weights.input_shape(config), ()).trainable
    theirs = zoo.load(config.model.name).variables["params"]
    wanted, given = (
        {path: leaf.shape for path, leaf in traverse_util.flatten_dict(tree).items()}
        for tree in (ours, theirs)
    )
    return wanted == given
