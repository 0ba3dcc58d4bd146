"""The study's smallest by parameters: four 3x3 convolutions, their maps averaged, two dense layers.

  python -m rice_jax.main --config=configs/final.py

17,301 parameters, 167,860,766 FLOPs for one image (study's convention, TensorFlow's
profiler). With 60,000 training images the study reports an accuracy of 0.9897 on its validation
split and 0.9533 on its augmented test set.
"""

import ml_collections

from rice_jax.config import default


def get_config() -> ml_collections.ConfigDict:
    """The study's recipe for final."""
    return default("final")
