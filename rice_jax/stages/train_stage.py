"""The train stage: a training, and what its folder holds from the start."""

from typing import Any

import numpy as np

from rice_jax import cluster, data, identity, own_images, records, train
from rice_jax.report import figures
from rice_jax.stages.job import Job

_OF_THE_NET = (records.ProfileFile.FILE, "flops.png", "roofline.png")
"""What the folder tells of its net, whatever that has learned."""
_SIDE = 512
"""Pixels of an image of the training that is shown: some hundred of them are drawn."""
_CLASSES = 24
"""Classes of which images are drawn."""
_EACH = 4
"""Images of a class that are drawn."""


def stage(job: Job) -> None:
    """Train, or go on; UserError where the folder holds another training."""
    dataset = job.dataset
    if job.restart or not job.has_checkpoints:
        said = own_images.settle(job.config, len(dataset.splits["train"]), job.given)
        for line in filter(None, [said, *own_images.advice(job.config, dataset, job.given)]):
            print(line, flush=True)
    train.check(job.config, dataset, job.run, anew=job.restart)
    given = _begun(job, dataset)
    train.train(job.config, job.run, dataset, lambda: job.watch("train"), given=given)


def _begun(job: Job, dataset: data.Dataset) -> Any:
    """Write what a training's folder holds from the start; the weights given, where it is new."""
    new = job.restart or not job.has_checkpoints
    # Weights that do not fit are told while the old ones are there, or nothing is.
    given = train.given_params(job.config, train.build(job.config)) if new else None
    train.refuse_idle_initializer(job.config, given, job.given)

    def begin() -> None:
        if job.restart:
            train.forget(job.run)
            for name in _OF_THE_NET:
                job.run.remove(name)
        identity.record(job.run, job.config, dataset, anew=job.restart, instead=job.instead)
        if job.restart:  # who stops the command is told to look for it
            print(f"training begins anew in {job.run}", flush=True)
        shown = examples(dataset, job.config.data.image_size)
        some = f": {len(shown)} of {len(dataset.classes):,} classes"
        title = "Images by class" + (some if len(shown) < len(dataset.classes) else "")
        figure = figures.classes(shown, dataset.classes, title=title, synthetic=dataset.synthetic)
        job.run.write_bytes("classes.png", figures.png(figure))
        job.watch("train")

    cluster.on_first(begin)
    return given


def examples(dataset: data.Dataset, image_size: int) -> dict[str, list[np.ndarray]]:
    """The first images of each class in the training split; of many classes some of them.

    Args:
        dataset: the images.
        image_size: pixels of a side; 512 are shown at most.

    Returns:
        Up to four images (side, side, 3), uint8, by the name of their class.
    """
    side = min(_SIDE, image_size)
    return {
        dataset.classes[label]: [data.decode(record["image"], side) for _, record in images]
        for label, images in data.first_of_each(dataset, "train", _EACH, _CLASSES).items()
    }
