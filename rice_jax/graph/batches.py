"""Batches as people hand them over: pairs or images alone, in a list, a loader or a generator."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from rice_jax.errors import UserError

_SAY = "a batch is images, or a pair (images, labels); give a list of batches"


class Batches:
    """Pairs of images (B, ...) and labels, None where there are none; from the start each time.

    What can be read only once, a generator, is read once and kept. Batches of no image, as the last
    of a split may be, are passed over.
    """

    def __init__(self, given: Iterable[Any], *, one_shape: bool = True, keep: bool = True) -> None:
        """`given`: any iterable of batches, or one batch: an array, or it and a line of labels.

        `one_shape` refuses images of several shapes. Without `keep` a generator is read as it goes,
        for whoever reads it once. UserError for what is no iterable.
        """
        self._one_shape = one_shape
        if hasattr(given, "shape") or _is_labelled(given):
            given = [given]
        try:
            once = iter(given) is given
        except TypeError as error:
            raise UserError(f"batches are {type(given).__name__}: {_SAY}") from error
        self._given = list(given) if once and keep else given

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        """The pairs; UserError for what is none, or images of several shapes."""
        shape = None
        for batch in self._given:
            images, labels = _pair(batch)
            if tuple(images.shape[:1]) == (0,):
                continue
            if shape is None:
                shape = images.shape[1:]
            if not images.shape or (self._one_shape and images.shape[1:] != shape):
                raise UserError(
                    f"batches hold images {shape} and {images.shape[1:]}: they must be of one "
                    f"shape; {_SAY}"
                )
            if labels is not None and tuple(labels.shape[:1]) != tuple(images.shape[:1]):
                number = len(labels) if labels.shape else "no line of"
                raise UserError(f"a batch has {len(images)} images and {number} labels")
            yield images, labels


def _is_labelled(given: Any) -> bool:
    if (
        not isinstance(given, tuple | list)
        or [hasattr(each, "shape") for each in given] != [True] * 2
    ):
        return False
    images, labels = given
    return len(images.shape) > 1 and labels.shape == images.shape[:1]


def _pair(batch: Any) -> tuple[Any, Any]:
    if isinstance(batch, tuple | list) and len(batch) == 2:
        images, labels = batch
        return _array(images), None if labels is None else _array(labels)
    return _array(batch), None


def _array(given: Any) -> Any:
    if hasattr(given, "shape"):
        return given
    array = np.asarray(given) if isinstance(given, list | tuple | int | float) else None
    if array is None or array.dtype == object:
        raise UserError(f"a batch holds {type(given).__name__}: {_SAY}")
    return array
