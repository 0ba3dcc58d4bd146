"""Trained nets by name: NAME.safetensors holds the weights, NAME.json the card that tells of them.

Neither holds code. A card has the digest of its weights' file, so that the two cannot part.
"""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from rice_jax import models
from rice_jax.errors import UserError, reason
from rice_jax.records import ZooCard, plain
from rice_jax.zoo.cards import FOLDER, MEND, card


class Entry(NamedTuple):
    """A trained net."""

    module: nn.Module
    """Called as `module.apply(variables, images)`: logits (N, classes) of (N, H, W, 3) in [0, 1]"""
    variables: dict[str, Any]
    """{'params': ...}, NumPy's float32 arrays, also of a file that has them in half precision."""
    card: ZooCard


def load(name: str, folder: Path = FOLDER) -> Entry:
    """The net called `name` with its trained weights and its card.

    Raises:
        UserError: no such net (those there are get named), a damaged file, a card that does not
            match its weights, or weights of another net than the card says.
    """
    import safetensors.numpy

    about = card(name, folder)
    path = folder / f"{name}.safetensors"
    try:
        content = path.read_bytes()
        if _digest(content) != about.sha256:
            raise UserError(f"{path} is not the file that its card {name}.json is of: {MEND}")
        arrays = {
            path: array.astype(np.float32) if array.dtype == np.float16 else array
            for path, array in safetensors.numpy.load(content).items()
        }
    except (OSError, safetensors.SafetensorError) as error:
        raise UserError(f"{path} is damaged ({reason(error)}): {MEND}") from error
    try:
        module, wanted = _described(about)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{folder / name}.json does not tell its net ({reason(error)}): {MEND}"
        ) from error
    found = {path: (array.shape, array.dtype) for path, array in arrays.items()}
    if found != wanted:
        differing = sorted(path for path, _ in found.items() ^ wanted.items())
        raise UserError(
            f"{path} holds weights of another net than {name}.json tells: {differing[0]} differs"
        )
    return Entry(module, {"params": traverse_util.unflatten_dict(arrays, sep="/")}, about)


def save(
    name: str, params: Any, about: ZooCard, folder: Path = FOLDER, *, half: bool = False
) -> None:
    """Add a net: `params` (a tree of arrays), and a card whose name and digest are set.

    `half` writes them in half precision, in half of the bytes: the card is to be of numbers that
    are so rounded.
    """
    import safetensors.numpy

    dtype = np.float16 if half else np.float32
    flat = traverse_util.flatten_dict(params, sep="/")
    arrays = {path: np.ascontiguousarray(flat[path], dtype) for path in sorted(flat)}
    content = safetensors.numpy.save(arrays)
    told = plain(dataclasses.replace(about, name=name, sha256=_digest(content)))
    (folder / f"{name}.safetensors").write_bytes(content)
    text = json.dumps(told, indent=1, allow_nan=False, ensure_ascii=False)
    (folder / f"{name}.json").write_text(text + "\n")


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _described(about: ZooCard) -> tuple[nn.Module, dict[str, Any]]:
    """The module of a card, and shape and type of each of its parameters."""
    fields = {name: _hashable(value) for name, value in about.model.items()}
    name, _ = fields.pop("name"), fields.pop("weights")
    module = models.build(name, **fields)
    image = jax.ShapeDtypeStruct((1, about.image_size, about.image_size, 3), jnp.float32)
    shapes = jax.eval_shape(module.init, jax.random.key(0), image)["params"]
    flat = traverse_util.flatten_dict(shapes, sep="/")
    return module, {path: (leaf.shape, leaf.dtype) for path, leaf in flat.items()}


def _hashable(value: Any) -> Any:
    return tuple(map(_hashable, value)) if isinstance(value, list) else value
