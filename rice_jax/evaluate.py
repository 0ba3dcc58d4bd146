"""How well a net does on a source of images: accuracy, confusion matrix, a report by class."""

import dataclasses
import math
import sys
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import numpy as np

from rice_jax.errors import UserError
from rice_jax.records import MOST_ROWS, Cells, Result, Scores
from rice_jax.train.display import Display
from rice_jax.train.evaluator import Evaluator, on_devices
from rice_jax.train.state import Params

_NO_IMAGES = "no images to evaluate on: give a split that has some"


def evaluate(
    module: nn.Module,
    params: Params,
    source: Any,
    *,
    classes: Sequence[str],
    image_size: int,
    batch_size: int,
    augment_seed: int | None = None,
    limit: int = 0,
    workers: int = 0,
) -> Result:
    """Evaluate a net on the images of a source, over every device.

    Args:
        module: net that gives logits (N, len(classes)) for images (N, H, W, 3) in [0, 1].
        params: its parameters.
        source: records of encoded images, as a split of `data.load` or `data.folder` gives them.
        classes: names, in the order of the labels.
        image_size: height and width that images are resized to.
        batch_size: images at a time; the result does not depend on it but for float rounding.
        augment_seed: seed of the study's random transforms, which depend on it and on each
            image's place among those that are read alone; None leaves images as they are.
        limit: images of the source that are read, evenly spread over it; 0 for all.
        workers: threads that decode; 0 for one a core.

    Returns:
        What `report` returns, with `loss`: the mean cross-entropy in nats. NaN in an
        answer counts as its largest number, and of equals the first; where the loss is not finite
        that is said on standard error.

    Raises:
        UserError: a source without images, a label that is no class's, a net of another number of
            classes, a size below 1.
    """
    if min(image_size, batch_size) < 1 or min(limit, workers) < 0:
        raise UserError(
            f"image_size={image_size} and batch_size={batch_size} must be 1 or more, "
            f"limit={limit} and workers={workers} 0 or more"
        )
    if not len(source):
        raise UserError(_NO_IMAGES)
    display = Display(epochs=1)
    display.begin("evaluation", min(len(source), limit or len(source)))
    measure = Evaluator(
        module,
        len(classes),
        batch_size=batch_size,
        image_size=image_size,
        augment_seed=augment_seed,
        limit=limit,
        workers=workers,
    )
    try:
        measured = measure(on_devices(params), source, on_batch=display.advance)
    finally:
        display.end()
    assert measured is not None, "nobody signals here"
    loss, confusion = measured
    if not math.isfinite(loss):
        print(
            "WARNING: some of the net's answers are no numbers; NaN counts as the largest, and of "
            "equals the first",
            file=sys.stderr,
        )
    return dataclasses.replace(report(confusion, classes), loss=loss)


def report(confusion: np.ndarray, classes: Sequence[str]) -> Result:
    """Accuracy and a report by class of a confusion matrix (true classes as rows).

    Precision is correct / predicted, recall correct / true, f1 their harmonic mean, each 0 where
    it would be 0 / 0; averages over the classes that occur, as true or as predicted ones, plain
    (macro) and weighted by support. As scikit-learn's `classification_report`.

    Raises:
        UserError: a matrix of no images.
    """
    if not confusion.sum():
        raise UserError(_NO_IMAGES)
    correct = np.diag(confusion).astype(np.float64)
    predicted, support = confusion.sum(axis=0), confusion.sum(axis=1)
    measures = np.stack(
        [
            _ratio(correct, predicted),
            _ratio(correct, support),
            _ratio(2 * correct, predicted + support),
        ],
        axis=1,
    )
    occurring = predicted + support > 0
    images, many = int(support.sum()), len(classes) > MOST_ROWS
    return Result(
        images=images,
        accuracy=float(correct.sum() / images),
        confusion_matrix=None if many else confusion.tolist(),
        confusion_cells=_cells(confusion) if many else None,
        per_class={
            name: _row(measures[index], support[index]) for index, name in enumerate(classes)
        },
        macro_avg=_row(measures[occurring].mean(axis=0), images),
        weighted_avg=_row(support @ measures / images, images),
    )


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return numerator / np.maximum(denominator, 1)


def _cells(confusion: np.ndarray) -> Cells:
    true, predicted = confusion.nonzero()
    return Cells(
        true=true.tolist(),
        predicted=predicted.tolist(),
        images=confusion[true, predicted].tolist(),
    )


def _row(measures: np.ndarray, support: int) -> Scores:
    precision, recall, f1 = map(float, measures)
    return Scores(precision=precision, recall=recall, f1=f1, support=int(support))
