"""A net of the user's own, called once at no compute before anything else is done with it."""

import ml_collections
from flax import traverse_util

from rice_jax import nets
from rice_jax.errors import UserError
from rice_jax.graph.failing import where_and_why
from rice_jax.graph.trace import variable_shapes
from rice_jax.train.weights import build, input_shape


def require_sound(config: ml_collections.ConfigDict) -> None:
    """UserError that names the line of a net of the user's own at which it fails, and why.

    A field that a net does not take, as an activation that it has no name for, is found out as its
    code runs alone.
    """
    name = config.model.name
    if nets.get(name).kind != nets.OWN:
        return
    try:
        variables = variable_shapes(build(config), input_shape(config))
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{name}: {where_and_why(error)}") from error
    for path, leaf in traverse_util.flatten_dict(variables, sep="/").items():
        if 0 in leaf.shape:
            raise UserError(f"{name}: {path} has the shape {leaf.shape}, where a width is 0")
