"""GoogLeNet cut to eight inceptions and a quarter of its filters.

  python -m rice_jax.main --config=configs/googlenet_light.py

580,905 parameters, 280,058,490 FLOPs for one image (study's convention, TensorFlow's
profiler). With 60,000 training images the study reports an accuracy of 0.9981 on its validation
split and 0.9319 on its augmented test set.
"""

import ml_collections

from rice_jax.config import default


def get_config() -> ml_collections.ConfigDict:
    """The study's recipe for googlenet_light."""
    return default("googlenet_light")
