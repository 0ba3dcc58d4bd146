"""Weights that were trained elsewhere: in the zoo, in another run, in a file of Keras's."""

import ml_collections
from flax import traverse_util

from rice_jax import config as configuration
from rice_jax import files, zoo
from rice_jax.graph.trace import variable_shapes
from rice_jax.records import ImagesTold, WeightsTold
from rice_jax.run import Run
from rice_jax.train import weights


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
    elif Run(folder := files.reached(source)).has("config.json"):
        trained, data = weights.load(Run(folder)), configuration.read(Run(folder)).data
        recipe, epochs = trained.config.train.get("schedule", "study"), trained.epoch
        side = trained.config.data.image_size
    else:
        return WeightsTold(source=source)
    return WeightsTold(
        source=source,
        epochs=epochs,
        recipe=recipe,
        image_size=side,
        data=data.name if data else None,
        images=data.images.get("train") if data else None,
        classes=data.classes if data else None,
    )


def zoo_fits(config: ml_collections.ConfigDict) -> bool:
    """Whether the zoo's net of this configuration's name has parameters of the same shapes."""
    shapes = variable_shapes(weights.build(config), weights.input_shape(config))
    ours = shapes["params"]
    theirs = zoo.load(config.model.name).variables["params"]
    wanted, given = (
        {path: leaf.shape for path, leaf in traverse_util.flatten_dict(tree).items()}
        for tree in (ours, theirs)
    )
    return wanted == given
