"""A net for batches of any size: how many images there are, only a file's reader knows."""

import sysconfig
import traceback
from pathlib import Path

import jax
import jax.numpy as jnp
from jax import export

from rice_jax.errors import UserError
from rice_jax.export.subject import Subject

BATCH = "batch"
"""How a batch's size is called in what is traced for any."""
_NOT_THE_NETS = (Path(__file__).parents[1], Path(sysconfig.get_path("purelib")))
"""Where the code is that calls a net, and that a net calls."""


def images_of(subject: Subject) -> jax.ShapeDtypeStruct:
    """Images of a batch whose size is a symbol, which the net can be traced for.

    Raises:
        UserError: the net can be traced for one image, but not for a number that is not known.
    """
    shape = (*export.symbolic_shape(BATCH), *subject.image)
    images = jax.ShapeDtypeStruct(shape, jnp.float32)
    try:
        jax.eval_shape(subject.logits, images)
    except UserError:
        raise
    except Exception as error:  # each use of the symbol as a number raises its own kind
        said = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise UserError(
            f"the net asks how many images there are ({_place(error)}{said}), and a file for "
            "batches of any size does not know: write images.shape[0] in place of len(images), or "
            "export a .tflite, which takes one image"
        ) from error
    return images


def _place(error: Exception) -> str:
    """Which of the net's own lines failed."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        file = Path(frame.filename)
        if not any(file.is_relative_to(folder) for folder in _NOT_THE_NETS):
            return f"{file.name}, line {frame.lineno}: "
    return ""
