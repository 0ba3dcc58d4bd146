"""What a training takes up of images that are the user's own: how many they are, and how large."""

from collections.abc import Collection

import ml_collections

from rice_jax import config as configuration
from rice_jax import data, nets, train
from rice_jax.errors import UserError
from rice_jax.train import schedule

LEAST_STEPS = 4_000
"""Of a training by the quick schedule that is left its epochs."""
MOST_EPOCHS = 200
"""That it gets of few images."""
_EPOCHS = "train.quick.epochs"
_WORTH_TELLING = 1.5  # times the pixels


def settle(config: ml_collections.ConfigDict, images: int, given: Collection[str] = ()) -> str:
    """Let the quick schedule have more epochs where images are few, and the user has set none.

    Its epochs are for tens of thousands of images: of 2,000 they are 256 steps, in which a net
    learns little. They become as many times more as make `LEAST_STEPS`, up to `MOST_EPOCHS`.

    Args:
        config: changed in place.
        images: that the training split has, also where `train.images` takes fewer, which is a wish
            for less; 0 where that is not known.
        given: fields that the user has set, as 'train.epochs'.

    Returns:
        What was decided, in a line; empty where there was nothing to decide.
    """
    quick, usual = config.train.quick, configuration.default(config.model.name).train.quick
    is_open = quick.epochs == usual.epochs and quick.shrink == usual.shrink
    if config.train.schedule != schedule.QUICK or not is_open or _EPOCHS in given:
        return ""
    if not (_of_the_users(config) and images):
        return ""
    epochs, steps = sum(quick.epochs), -(-images // config.train.batch_size)
    times = min(-(-LEAST_STEPS // (epochs * steps)), MOST_EPOCHS // epochs)
    if times <= 1:
        return ""
    quick.epochs = tuple(each * times for each in quick.epochs)
    made = -(-schedule.images(config.train, images) // config.train.batch_size)
    return (
        f"{images:,} images are few: {epochs * times} epochs instead of {epochs}, so that there "
        f"are {epochs * times * made:,} steps (--config.{_EPOCHS}="
        f"{','.join(map(str, quick.epochs))})"
    )


def _of_the_users(config: ml_collections.ConfigDict) -> bool:
    return config.data.path not in (data.SAMPLE, data.SYNTHETIC)


def advice(
    config: ml_collections.ConfigDict, dataset: data.Dataset, given: Collection[str] = ()
) -> list[str]:
    """Lines to tell before a net learns from random weights: of images that are small, or few.

    Args:
        config: as `settle` left it.
        dataset: what is learned from.
        given: fields that the user has set.
    """
    if config.model.weights not in ("", train.RANDOM):
        return []  # which have learned already, from images of a size of their own
    return [*_enlarged(config, dataset), *_slowly_learned(config, dataset, given)]


def _enlarged(config: ml_collections.ConfigDict, dataset: data.Dataset) -> list[str]:
    whole, (height, width) = config.data.image_size, dataset.size
    side = _taken(config, max(height, width, config.model.get("grid", 0)))
    times = (whole / side) ** 2
    if times < _WORTH_TELLING:
        return []
    return [
        f"{dataset.name}: images of {width} x {height} pixels are enlarged to {whole} x {whole}; "
        f"--config.data.image_size={side} computes with {round(times, 1):,g} times fewer pixels"
    ]


def _slowly_learned(
    config: ml_collections.ConfigDict, dataset: data.Dataset, given: Collection[str]
) -> list[str]:
    """Of few images the study's recipe makes few steps, at a small rate."""
    recipe, images = config.train, len(dataset.splits["train"])
    if recipe.schedule != schedule.STUDY or "train.schedule" in given:
        return []
    if not _of_the_users(config) or config.model.name not in nets.NETS:
        return []
    if recipe.epochs * -(-images // recipe.batch_size) >= LEAST_STEPS:
        return []
    augmented = "" if recipe.augment else ", with --config.train.augment=true more yet"
    return [
        f"{images:,} images are few for the study's recipe: --config.train.schedule=quick learns "
        f"more from such{augmented} (docs/own_images.md)"
    ]


def _taken(config: ml_collections.ConfigDict, side: int) -> int:
    """The smallest of `side`, twice that and so on that the net and its schedule take."""
    tried = configuration.from_json(configuration.to_json(config))
    while side < config.data.image_size:
        tried.data.image_size = side
        try:
            if schedule.takes(train.build(tried), side):
                train.image_sizes(tried)
                return side
        except UserError:  # the quick schedule halves it
            pass
        side *= 2
    return config.data.image_size
