"""GoogLeNet (Szegedy et al. 2015): a stem, nine inceptions, global average pooling.

  python -m rice_jax.main --config=configs/googlenet.py

5,978,677 parameters, 3,179,339,598 FLOPs for one image (study's convention, TensorFlow's
profiler). With 60,000 training images the study reports an accuracy of 0.9975 on its validation
split and 0.8675 on its augmented test set.
"""

import ml_collections

from rice_jax.config import default


def get_config() -> ml_collections.ConfigDict:
    """The study's recipe for googlenet."""
    return default("googlenet")
