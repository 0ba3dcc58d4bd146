"""What a run's net makes of a few of its test images: those that its page shows."""

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from flax import traverse_util

from rice_jax import data, train
from rice_jax.records import FeatureMapsFile
from rice_jax.report import gallery

See = Callable[[Any, Any], tuple[Mapping[str, Any], jax.Array | None]]
"""From variables and images to maps by path and logits, as `inspection.seer` gives it."""

EACH = 2
"""Images of a class."""
MOST_CLASSES = 12
"""Of which images are shown; of more classes some are taken."""


def of_test_images(
    see: See, trained: train.Trained, dataset: data.Dataset, kinds: Mapping[str, int | None]
) -> FeatureMapsFile:
    """The first two test images of each class, of each kind; of many classes some of them.

    Args:
        see: of one image.
        trained: the net and its classes.
        dataset: the run's images.
        kinds: by name, the seed that images are augmented with; None for images as they are.
    """
    side, variables = trained.config.data.image_size, {"params": trained.params}
    specimens = []
    found = data.first_of_each(dataset, "test", EACH, MOST_CLASSES)
    for index, record in itertools.chain(*found.values()):
        image = data.decode(record["image"], side)[None]
        for kind, seed in kinds.items():
            inputs = train.evaluation_inputs(image, np.uint32(index), augment_seed=seed)
            pixels = np.asarray(inputs)
            label = dataset.classes[record["label"]]
            specimens.append(specimen(see, variables, pixels, label=label, kind=kind))
    weights = traverse_util.flatten_dict(trained.params, sep="/")
    return gallery.gallery(specimens, trained.classes, weights)


def specimen(
    see: See, variables: Any, pixels: np.ndarray, *, label: str = "", kind: str = "clean"
) -> gallery.Specimen:
    """One image (1, H, W, 3), floats in [0, 1], and what the net makes of it."""
    maps, logits = see(variables, pixels)
    probabilities = [] if logits is None else np.asarray(nn.softmax(logits))[0].tolist()
    seen = {path: gallery.Seen.of(np.asarray(values)[0]) for path, values in maps.items()}
    return gallery.Specimen(pixels[0], seen, probabilities, label, kind)
