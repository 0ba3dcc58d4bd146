"""A split decoded once and kept: raw pixels in one file, read by position.

Reading a picture's pixels takes a tenth of the time of decoding it, as long as the file stays in
the system's page cache; so a split is kept only where it takes no more than half of the memory.
"""

import contextlib
import os
import re
import shutil
import sys
import threading
import time
import weakref
import zlib
from collections.abc import Callable

import cv2
import numpy as np
from etils import epath

from rice_jax.data.cache import DATASET, lock
from rice_jax.data.capacity import compared, memory
from rice_jax.data.parallel import in_order, progress
from rice_jax.data.split import SPLITS
from rice_jax.errors import UserError, reason

MOST_KEPT = 32 << 30  # bytes of all decoded splits in a cache; the least recently used go first

_CHECKSUM = 4  # bytes at the end of a file: CRC-32 of all before them
_BLOCK = 1 << 22  # bytes that a checksum reads at a time
_AHEAD = 64  # images decoded before they are written
_NOTED = 3600  # seconds between notes that a file is used

_WRITTEN = re.compile(rf"({'|'.join(SPLITS)})(-[0-9]+){{1,2}}-opencv[0-9.]+\.(uint8|partial)")

Fill = Callable[[int, np.ndarray], int]
"""Writes image i into uint8 (H, W, 3) and returns its label."""


class AlteredError(Exception):
    """A file that is not as it was written."""


class Decoded:
    """Pixels and labels of a split at one size."""

    def __init__(
        self,
        path: epath.Path,
        length: int,
        image_size: int,
        classes: int,
        *,
        just_written: bool = False,
    ) -> None:
        """AlteredError where the file is not as it was written; OSError where there is none.

        One `just_written` here is not read again for that: 9 GB take seconds.
        """
        self._path = path
        self._bytes = 3 * image_size**2
        self._length = length
        self._file = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)
        self._proving = threading.Lock()
        self._proved = self._written() if just_written else (-1, -1)
        self._prove()
        labels = os.pread(self._file, 4 * length, length * self._bytes)
        self._labels = np.frombuffer(labels, np.int32)
        if not np.all((self._labels >= 0) & (self._labels < classes)):
            raise AlteredError

    def fill(self, index: int, pixels: np.ndarray) -> int:
        """Write image `index` into contiguous uint8 (H, W, 3) and return its label.

        Read rather than mapped, so that the file does not count as this process's memory.

        Raises:
            UserError: another program has written to the file since it was opened.
        """
        read = os.preadv(self._file, [pixels.data], index * self._bytes)
        try:
            if read != self._bytes:
                raise AlteredError
            if self._written() != self._proved:
                self._prove()
        except AlteredError as error:
            raise UserError(
                f"{os.fspath(self._path)} was changed while images were read from it: given again, "
                "the same command makes it anew"
            ) from error
        return int(self._labels[index])

    def _written(self) -> tuple[int, int]:
        """What tells that somebody wrote to the file, whatever times they gave it afterwards."""
        state = os.fstat(self._file)
        return state.st_size, state.st_ctime_ns

    def _prove(self) -> None:
        """AlteredError where the file does not have its size and its checksum."""
        with self._proving:
            written = self._written()
            if written == self._proved:  # by another thread meanwhile
                return
            if written[0] != _size(self._length, self._bytes) or not _sound(self._file, written[0]):
                raise AlteredError
            self._proved = written


def open_decoded(
    folder: epath.Path, split: str, length: int, image_size: int, classes: int, fill: Fill
) -> Decoded | None:
    """The decoded split, made now by `fill` where `folder` (of the cache's dataset) has none.

    One that is not what was written there, by its checksum, is made anew. None, with a line that
    says why, where it would not pay or cannot be written.
    """
    size = _size(length, 3 * image_size**2)
    # The decoder's version is in the name: another one may round differently.
    path = folder / "decoded" / f"{split}-{image_size}-opencv{cv2.__version__}.uint8"

    def opened() -> Decoded | None:
        try:
            return Decoded(path, length, image_size, classes)
        except (AlteredError, FileNotFoundError):
            return None

    _note_use(path)
    try:
        if not (found := opened()):
            if why_not := _does_not_pay(size, folder):
                print(f"{split} is decoded anew each time: {why_not}", file=sys.stderr)
                return None
            with lock(folder.parent):
                if not (found := opened()):
                    _make_room(folder.parent, size)
                    _write(path, split, length, image_size, fill)
                    found = Decoded(path, length, image_size, classes, just_written=True)
        return found
    except (OSError, AlteredError) as error:
        print(f"{split} is decoded anew each time: {reason(error)}", file=sys.stderr)
        return None


def _size(length: int, pixels: int) -> int:
    """Bytes of a file of so many images of so many bytes."""
    return length * (pixels + 4) + _CHECKSUM


def _sound(file: int, size: int) -> bool:
    """Whether an open file's last bytes are the checksum of all before them."""
    checksum = place = 0
    while place < size - _CHECKSUM:
        block = os.pread(file, min(size - _CHECKSUM - place, _BLOCK), place)
        if not block:
            return False
        checksum, place = zlib.crc32(block, checksum), place + len(block)
    return checksum == int.from_bytes(os.pread(file, _CHECKSUM, place), "little")


def _note_use(path: epath.Path) -> None:
    """Now and then, and before it is opened: who reads it has to prove it again after a change."""
    with contextlib.suppress(OSError):  # a read-only cache serves as well
        if time.time() - os.path.getmtime(path) > _NOTED:
            os.utime(path)


def _does_not_pay(size: int, folder: epath.Path) -> str:
    free = shutil.disk_usage(folder).free
    for there, of_what in ((memory(), "of memory"), (free, "left on disk")):
        if size > there // 2:
            take, has = compared(size, there)
            return f"its pixels take {take}, more than half of the {has} {of_what}"
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
            what = f"decoding {split} once ({size / 1e6:,.0f} MB)"
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
