"""A split decoded once and kept: raw pixels in one file, read by position.

Reading a picture's pixels takes a tenth of the time of decoding it, as long as the file stays in
the system's page cache; so a split is kept only where it takes no more than half of the memory.
"""

import contextlib
import os
import re
import shutil
import sys
import weakref
import zlib
from collections.abc import Callable

import cv2
import numpy as np
from etils import epath

from rice_jax.data.cache import DATASET, lock
from rice_jax.data.parallel import in_order, progress
from rice_jax.data.split import SPLITS
from rice_jax.errors import UserError, reason

MOST_KEPT = 32 << 30  # bytes of all decoded splits in a cache; the least recently used go first

_CHECKSUM = 4  # bytes at the end of a file: CRC-32 of all before them
_BLOCK = 1 << 22  # bytes that a checksum reads at a time
_AHEAD = 64  # images decoded before they are written

_WRITTEN = re.compile(rf"({'|'.join(SPLITS)})-[0-9]+-opencv[0-9.]+\.(uint8|partial)")

Fill = Callable[[int, np.ndarray], int]
"""Writes image i into uint8 (H, W, 3) and returns its label."""


class Decoded:
    """Pixels and labels of a split at one size."""

    def __init__(self, path: epath.Path, length: int, image_size: int) -> None:
        self._path = path
        self._bytes = 3 * image_size**2
        offset = length * self._bytes
        self._labels = np.fromfile(path, np.int32, count=length, offset=offset)
        self._file = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)

    def fill(self, index: int, pixels: np.ndarray) -> int:
        """Write image `index` into contiguous uint8 (H, W, 3) and return its label.

        Read rather than mapped, so that the file does not count as this process's memory.
        """
        read = os.preadv(self._file, [pixels.data], index * self._bytes)
        if read != self._bytes:
            raise UserError(f"{os.fspath(self._path)} is damaged: delete it and start again")
        return int(self._labels[index])


def open_decoded(
    folder: epath.Path, split: str, length: int, image_size: int, classes: int, fill: Fill
) -> Decoded | None:
    """The decoded split, made now by `fill` where `folder` (of the cache's dataset) has none.

    One that is not what was written there, by its checksum, is made anew. None, with a line that
    says why, where it would not pay or cannot be written.
    """
    size = length * (3 * image_size**2 + 4) + _CHECKSUM
    # The decoder's version is in the name: another one may round differently.
    path = folder / "decoded" / f"{split}-{image_size}-opencv{cv2.__version__}.uint8"
    try:
        if not _sound(path, size, length, classes):
            if why_not := _does_not_pay(size, folder):
                print(f"{split} is decoded anew each time: {why_not}", file=sys.stderr)
                return None
            with lock(folder.parent):
                if not _sound(path, size, length, classes):
                    _make_room(folder.parent, size)
                    _write(path, split, length, image_size, fill)
        with contextlib.suppress(OSError):  # a read-only cache serves as well
            os.utime(path)
        return Decoded(path, length, image_size)
    except OSError as error:
        print(f"{split} is decoded anew each time: {reason(error)}", file=sys.stderr)
        return None


def _sound(path: epath.Path, size: int, length: int, classes: int) -> bool:
    """Whether the file is as it was written: its size, its checksum, its labels."""
    if not path.exists() or os.stat(path).st_size != size:
        return False
    checksum, left = 0, size - _CHECKSUM
    with open(path, "rb") as file:
        while left:
            block = file.read(min(left, _BLOCK))
            checksum, left = zlib.crc32(block, checksum), left - len(block)
        told = int.from_bytes(file.read(_CHECKSUM), "little")
    labels = np.fromfile(path, np.int32, count=length, offset=size - _CHECKSUM - 4 * length)
    return checksum == told and bool(np.all((labels >= 0) & (labels < classes)))


def _does_not_pay(size: int, folder: epath.Path) -> str:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    free = shutil.disk_usage(folder).free
    if size > memory // 2:
        return f"its pixels take {_gb(size)}, more than half of the memory"
    if size > free // 2:
        return f"its pixels take {_gb(size)}, more than half of the {_gb(free)} left on disk"
    return ""


def _make_room(cache: epath.Path, size: int) -> None:
    """Delete what interrupted writes left, and decoded splits that were not used for longest.

    Of a cache folder that others use too only what this module wrote, by its names.
    """
    files = [
        os.fspath(file)
        for file in cache.glob("*/decoded/*")
        if DATASET.fullmatch(file.parent.parent.name) and _WRITTEN.fullmatch(file.name)
    ]
    kept = sorted((file for file in files if file.endswith(".uint8")), key=os.path.getmtime)
    for file in set(files) - set(kept):
        os.unlink(file)
    total = sum(map(os.path.getsize, kept))
    for file in kept:
        if total + size <= MOST_KEPT:
            return
        total -= os.path.getsize(file)
        os.unlink(file)


def _write(path: epath.Path, split: str, length: int, image_size: int, fill: Fill) -> None:
    """Decode the whole split beside its place and move it there when it is whole."""

    def decode(index: int) -> tuple[np.ndarray, int]:
        pixels = np.empty((image_size, image_size, 3), np.uint8)
        return pixels, fill(index, pixels)

    labels = np.empty(length, np.int32)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    size = length * 3 * image_size**2
    checksum = 0
    try:
        with open(partial, "wb") as file:
            images = in_order(decode, range(length), ahead=_AHEAD)
            what = f"decoding {split} once ({_gb(size)})"
            for index, (pixels, label) in enumerate(progress(images, length, what)):
                file.write(pixels.data)
                checksum = zlib.crc32(pixels.data, checksum)
                labels[index] = label
            file.write(labels.data)
            file.write(zlib.crc32(labels.data, checksum).to_bytes(_CHECKSUM, "little"))
            file.flush()
            os.fsync(file.fileno())  # the name must not survive a power cut without the pixels
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
