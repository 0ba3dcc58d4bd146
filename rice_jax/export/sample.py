"""A few of many images, evenly spread over all that come: data sets are often sorted by class."""

import itertools
from collections.abc import Iterable, Iterator

import numpy as np

from rice_jax.errors import UserError

Batches = Iterable[np.ndarray]
"""Images float32 (N, H, W, 3) in [0, 1]."""


class EvenSample:
    """Keeps of what it is shown `most` images or more, fewer than twice as many."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._shown, self._stride = 0, 1
        self._kept: list[np.ndarray] = []

    def show(self, images: np.ndarray) -> None:
        """Look at images (N, H, W, 3) in the order in which they come."""
        for image in images:
            if self._shown % self._stride == 0:
                self._kept.append(image)
            self._shown += 1
            if len(self._kept) == 2 * self._most:
                self._kept, self._stride = self._kept[::2], 2 * self._stride

    def images(self) -> np.ndarray:
        """Those that were kept, as one array."""
        return np.stack(self._kept)

    def showing(self, batches: Batches) -> Iterator[np.ndarray]:
        """The batches of images, looked at as they pass."""
        for batch in map(np.asarray, batches):
            self.show(batch)
            yield batch


def some(images: Batches) -> Iterator[np.ndarray]:
    """The batches; UserError where there is none."""
    batches = map(np.asarray, images)
    first = next(batches, None)
    if first is None or not len(first):
        raise UserError("int8 is calibrated on images, and there are none")
    return itertools.chain([first], batches)
