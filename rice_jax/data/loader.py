"""Batches of pixels out of encoded images: in an order that is a function, decoded in threads."""

import functools
from collections.abc import Iterator

import numpy as np

from rice_jax.data.capacity import compared, memory
from rice_jax.data.decoded import Fill
from rice_jax.data.parallel import in_order, threads
from rice_jax.data.sources import Records, Source, decode_record
from rice_jax.errors import UserError

Batch = dict[str, np.ndarray]
"""What `batches` yields, by name."""

_WORTH_KEEPING = 4  # of so many images one must be read for all to be decoded once and kept
_READY = 2  # batches that wait for their use, besides one in the making in each thread
_MOST_READY = 512 << 20  # bytes of them, but for one
_HELD = 3  # batches in memory at once whatever their size: in the making, waiting, in use


def batches(
    source: Source,
    batch_size: int,
    *,
    image_size: int,
    whole_size: int = 0,
    seed: int | None = None,
    epoch: int = 0,
    first_batch: int = 0,
    shard: tuple[int, int] = (0, 1),
    limit: int = 0,
    workers: int = 0,
) -> Iterator[Batch]:
    """One pass over the source.

    Which image comes where is a pure function of (seed, epoch, batch): a pass cut short goes on
    with `first_batch`, on any number of processes. Batches are made in threads a few ahead of
    their use, so that memory stays flat.

    Args:
      source: encoded images by index.
      batch_size: images in a global batch.
      image_size: height and width that images are resized to.
      whole_size: height and width that they are resized to before, to be averaged to `image_size`;
        0 for none.
      seed: of the order; None for that of the source.
      epoch: the pass; each has an order of its own.
      first_batch: index of the first batch handed over.
      shard: (i, n) for the i-th of n equal parts of each global batch.
      limit: images of the source that are read, evenly spread over it; 0 for all.
      workers: threads; 0 for one a core.

    Yields:
      {'image': uint8 (B, image_size, image_size, 3) RGB, 'label': int32 (B,), 'weight': float32
      (B,)}, B = batch_size / n. The last batch is filled up with its first image, at weight 0: for
      a made one a net may have no number, and 0 times that is none either.

    Raises UserError where n does not divide the batch size or has no i-th part, a number is below
    what it can be, no memory here holds batches as large, or an image does not decode.
    """
    part, parts = shard
    _require_parts(batch_size, shard)
    if image_size < 1:
        raise UserError(f"image_size={image_size} must be 1 or more")
    _require_counts(
        whole_size=whole_size, epoch=epoch, first_batch=first_batch, limit=limit, workers=workers
    )
    size = require_memory(batch_size // parts, image_size)
    count = batch_size // parts
    places = spread(len(source), limit)
    read = len(places)
    order = places[_order(read, seed, epoch)]
    few = read * _WORTH_KEEPING <= len(source)
    fill = _fill(source, image_size, 0 if whole_size == image_size else whole_size, few)

    def make(index: int) -> Batch:
        first = index * batch_size
        start = first + part * count
        return _batch(fill, order[start : start + count], order[first], count, image_size)

    total = -(-read // batch_size)
    ahead = made_ahead(size, workers)
    return in_order(make, range(first_batch, total), workers=workers, ahead=ahead)


def _require_parts(batch_size: int, shard: tuple[int, int]) -> None:
    """UserError where a batch cannot be cut so, or has no such part."""
    part, parts = shard
    if batch_size < 1 or parts < 1 or batch_size % parts:
        raise UserError(f"a batch of {batch_size} images cannot be cut into {parts} equal parts")
    if not 0 <= part < parts:
        raise UserError(f"shard={shard}: of {parts} parts there is none of index {part}")


def _require_counts(**counts: int) -> None:
    """UserError that names one below 0."""
    for name, count in counts.items():
        if count < 0:
            raise UserError(f"{name}={count} must be 0 or more")


def spread(images: int, limit: int) -> np.ndarray:
    """Which of so many images are read where there is a limit, evenly spread; 0 for none."""
    read = min(images, limit or images)
    return np.arange(read) * images // max(read, 1)


def made_ahead(size: int, workers: int = 0) -> int:
    """How many batches, of `size` bytes of pixels each, are made before their use."""
    return max(1, min((workers or threads()) + _READY, _MOST_READY // size))


def require_memory(
    batch_size: int,
    image_size: int,
    options: str = "--config.train.batch_size, --config.eval.batch_size",
) -> int:
    """Bytes of a batch's pixels; UserError where the memory here cannot hold those of a few.

    `options` are what is named for smaller batches.
    """
    size = batch_size * 3 * image_size**2
    if _HELD * size > memory():
        take, there = compared(_HELD * size, memory())
        raise UserError(
            f"{_HELD} batches of {batch_size:,} images of {image_size:,} x {image_size:,} pixels, "
            f"which are in memory at once, take {take}, and here are {there}: give smaller batches "
            f"({options}) or smaller images"
        )
    return size


def _fill(source: Source, image_size: int, whole_size: int, few: bool) -> Fill:
    kept = source if isinstance(source, Records) and not few else None
    decoded = kept.decoded(image_size, whole_size) if kept else None
    return decoded.fill if decoded else functools.partial(decode_record, source, whole_size)


def _order(length: int, seed: int | None, epoch: int) -> np.ndarray:
    if seed is None:
        return np.arange(length)
    return np.random.default_rng([seed % 2**64, epoch]).permutation(length)


def _batch(fill: Fill, indices: np.ndarray, other: int, size: int, image_size: int) -> Batch:
    """The images of `indices`, filled up to `size` with image `other`."""
    image = np.zeros((size, image_size, image_size, 3), np.uint8)
    label = np.zeros(size, np.int32)
    weight = np.zeros(size, np.float32)
    for place, index in enumerate(indices):
        label[place] = fill(int(index), image[place])
        weight[place] = 1
    if (count := len(indices)) < size:
        label[count:] = fill(int(other), image[count])
        image[count:] = image[count]
    return {"image": image, "label": label, "weight": weight}
