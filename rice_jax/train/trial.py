"""A net of the user's own, called once at no compute before anything else is done with it."""

import os
import sysconfig
import textwrap
import traceback
from pathlib import Path

import ml_collections
from flax import traverse_util

from rice_jax import nets
from rice_jax.errors import UserError, reason
from rice_jax.graph.trace import variable_shapes
from rice_jax.train.weights import build, input_shape

_NOT_THEIRS = (
    os.fspath(Path(__file__).parents[1]),
    *(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")),
)
"""Where code is that the user has not written."""

_LONGEST = 400
"""Letters of what a library says of an error."""


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
        why = textwrap.shorten(reason(error), _LONGEST)
        raise UserError(f"{name}: {_place(error)}{type(error).__name__}: {why}") from error
    for path, leaf in traverse_util.flatten_dict(variables, sep="/").items():
        if 0 in leaf.shape:
            raise UserError(f"{name}: {path} has the shape {leaf.shape}, where a width is 0")


def _place(error: BaseException) -> str:
    """'net.py, line 3: ', the last place in code that the user may have written."""
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [each for each in frames if not each.filename.startswith(("<", *_NOT_THEIRS))]
    return f"{os.path.relpath(theirs[-1].filename)}, line {theirs[-1].lineno}: " if theirs else ""
