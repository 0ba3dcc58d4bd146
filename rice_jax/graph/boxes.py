"""The boxes that Linen puts variables in (`nn.Partitioned`): taken off, and put on again."""

from typing import Any

import flax.linen as nn
import jax
from flax import traverse_util
from flax.core import meta


def unboxed(variables: Any) -> Any:
    """The variables as plain nested dictionaries, without Flax's boxes (`nn.Partitioned`)."""
    return jax.tree.map(_content, variables, is_leaf=_is_box)


def boxed_as(variables: Any, boxes: Any) -> Any:
    """Plain variables in the boxes that `boxes` has at the same places."""
    flat = traverse_util.flatten_dict(variables)
    for path, box in traverse_util.flatten_dict(boxes).items():
        if _is_box(box) and path in flat:
            flat[path] = box.replace_boxed(flat[path])
    return traverse_util.unflatten_dict(flat)


def _is_box(value: Any) -> bool:
    return isinstance(value, meta.AxisMetadata)


def _content(box: Any) -> Any:
    # `unbox` of a Partitioned would also lay its array out on the mesh at hand.
    return box.value if isinstance(box, nn.Partitioned) else meta.unbox(box)
