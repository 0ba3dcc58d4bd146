"""A net's variables by path, and back."""

from collections.abc import Mapping
from typing import Any

import jax
from flax import traverse_util


def flat(variables: Any) -> dict[str, Any]:
    """Arrays by path, 'params/conv1/kernel'."""
    return traverse_util.flatten_dict(variables, sep="/")


def nested(arrays: Mapping[str, Any], like: Any) -> Any:
    """The arrays by path, nested as `like` is: a name may have '/' in it (`nn.WeightNorm`)."""

    def leaf(keys: Any, _: Any) -> Any:
        return arrays["/".join(str(key.key) for key in keys)]

    return jax.tree_util.tree_map_with_path(leaf, like)
