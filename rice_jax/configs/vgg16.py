r"""VGG16 with ImageNet weights, of which block 5 and the head are trained.

  python -m rice_jax.main --config=configs/vgg16.py \
    --config.model.weights=vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5

14,979,909 parameters, 30,713,485,342 FLOPs for one image (study's convention, TensorFlow's
profiler). With 60,000 training images the study reports an accuracy of 0.9979 on its validation
split and 0.9649 on its augmented test set.
"""

import ml_collections

from rice_jax.config import default


def get_config() -> ml_collections.ConfigDict:
    """The study's recipe for vgg16."""
    return default("vgg16")
