"""vgg_custom."""

import ml_collections

from rice_jax.config import default


def get_config() -> ml_collections.ConfigDict:
    """The study's recipe for vgg_custom."""
    return default("vgg_custom")
