"""A net for batches of any size: how many images there are, only a file's reader knows."""

import sysconfig
import traceback
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import export

from rice_jax.errors import UserError

_NOT_THE_NETS = (Path(__file__).parents[1], Path(sysconfig.get_path("purelib")))
"""Where the code is that calls a net, and that a net calls."""


def images_of(module: nn.Module, params: Any, image_size: int) -> jax.ShapeDtypeStruct:
    """Images of a batch whose size is a symbol, which the net can be traced for.

    Raises:
        UserError: the net can be traced for one image, but not for a number that is not known.
    """
    shape = (*export.symbolic_shape("batch"), image_size, image_size, 3)
    images = jax.ShapeDtypeStruct(shape, jnp.float32)
    try:
        _trace(module, params, images)
    except UserError:
        raise
    except Exception as error:  # each use of the symbol as a number raises its own kind
        _trace(module, params, jax.ShapeDtypeStruct((1, *shape[1:]), jnp.float32))
        said = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise UserError(
            f"the net asks how many images there are ({_place(error)}{said}), and a file for "
            "batches of any size does not know: write images.shape[0] in place of len(images), or "
            "export a .tflite, which takes one image"
        ) from error
    return images


def _trace(module: nn.Module, params: Any, images: jax.ShapeDtypeStruct) -> None:
    jax.eval_shape(lambda x: module.apply({"params": params}, x, train=False), images)


def _place(error: Exception) -> str:
    """Which of the net's own lines failed."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        file = Path(frame.filename)
        if not any(file.is_relative_to(folder) for folder in _NOT_THE_NETS):
            return f"{file.name}, line {frame.lineno}: "
    return ""
