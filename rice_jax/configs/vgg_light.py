r"""VGG16 cut after block 4, ImageNet weights, of which the head alone is trained.

  python -m rice_jax.main --config=configs/vgg_light.py \
    --config.model.weights=vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5

7,900,485 parameters, 27,938,627,102 FLOPs for one image (study's convention, TensorFlow's
profiler). With 60,000 training images the study reports an accuracy of 0.9977 on its validation
split and 0.9227 on its augmented test set.
"""

import ml_collections

from rice_jax.config import default


def get_config() -> ml_collections.ConfigDict:
    """The study's recipe for vgg_light."""
    return default("vgg_light")
