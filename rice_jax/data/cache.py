"""Prepared datasets in the cache folder: whole or not there, whoever else is at work."""

import contextlib
import fcntl
import io
import os
import re
import shutil
import sys
import zlib
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING

from etils import epath

from rice_jax import files
from rice_jax.data.archive import Archive, key, key_of_changes
from rice_jax.data.capacity import compared
from rice_jax.data.layout import Member
from rice_jax.data.parallel import AT_A_TIME, in_order, progress
from rice_jax.data.split import SPLITS
from rice_jax.data.usable import fingerprint
from rice_jax.errors import UserError, reason

if TYPE_CHECKING:
    from rice_jax.data.builder import RiceImageDataset

DATASET = re.compile("[0-9a-f]{16}--?[0-9]+")
"""Names of datasets' folders: `key` of the images, and the seed of their splits."""
_CHANGES = "changes"
"""A file beside the records: `key_of_changes` of the images when they were last read."""
_AHEAD = 64  # images read ahead
_SPARE = 1.1  # records take a little more room than the images in them


def prepare(archive: Archive, cache_dir: str | os.PathLike[str], seed: int) -> "RiceImageDataset":
    """The builder of a dataset that lies in the cache; written now if it did not.

    Its place there depends on the images' names, sizes and stamps and on the seed. Where files
    were written to since, though their times do not say so, or copied, their contents are read
    and held against what was prepared. A process that comes while another writes waits for it.

    Raises UserError where the cache cannot be written or the images are not usable.
    """
    cache = files.named(cache_dir)
    if files.is_remote(cache):
        raise UserError(f"--config.data.cache_dir={cache}: records are read from a local folder")
    folder = cache / f"{key(archive)}-{seed}"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        if whole := _whole(archive, folder, seed):
            return whole
        with lock(cache) as alone:
            return _whole(archive, folder, seed) or _written(archive, folder, seed, alone)
    # array_record raises RuntimeError for a full disk; etils KeyError for a user id without a name,
    # as a container's may be.
    except (OSError, RuntimeError, KeyError) as error:
        raise UserError(
            f"cannot keep prepared images in {os.fspath(cache)}: "
            f"{reason(error).partition(';')[0]}; "
            "--config.data.cache_dir names another folder"
        ) from error


@contextlib.contextmanager
def lock(folder: epath.Path) -> Iterator[bool]:
    """Hold `folder` against other processes; false where its file system has no locks.

    The kernel frees the lock when the process ends, however it ends.
    """
    with open(folder / ".lock", "w") as file:
        try:
            _wait_for(file)
        except OSError:
            yield False
        else:
            yield True


def _wait_for(file: IO[str]) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"waiting for another process that prepares images ({file.name})", file=sys.stderr)
        fcntl.flock(file, fcntl.LOCK_EX)


def _opened(archive: Archive, folder: epath.Path, seed: int) -> "RiceImageDataset":
    from rice_jax.data.builder import RiceImageDataset  # loads TFDS, half a second

    return RiceImageDataset(archive=archive, seed=seed, data_dir=folder)


def _whole(archive: Archive, folder: epath.Path, seed: int) -> "RiceImageDataset | None":
    """The builder, if all that it once wrote is still there and of these images."""
    try:
        builder = _opened(archive, folder, seed)
        splits = builder.info.splits
        whole = set(splits) == set(SPLITS) and all(
            split.num_bytes == sum(os.stat(file).st_size for file in split.filepaths)
            for split in splits.values()
        )
    except Exception:  # TFDS meets damaged JSON with whatever comes
        return None
    return builder if whole and _still_of(archive, builder, folder) else None


def _still_of(archive: Archive, builder: "RiceImageDataset", folder: epath.Path) -> bool:
    """Whether the images have the contents that were prepared; read where they may not."""
    changes, noted = key_of_changes(archive), folder / _CHANGES
    if not changes or (noted.exists() and noted.read_text() == changes):
        return True
    left_out = {item["name"] for item in builder.skipped}
    members = [member for member in archive.members if member.name not in left_out]

    def checksum(member: Member) -> int:
        try:
            return zlib.crc32(archive.read(member))
        except UserError:  # it could be read when it was prepared
            return -1

    read = in_order(checksum, members, ahead=_AHEAD, at_a_time=AT_A_TIME)
    checksums = progress(read, len(members), "holding images against their records")
    found = zip((member.name for member in members), checksums, strict=True)
    same = fingerprint(dict(found)) == builder.fingerprint
    if same:
        with contextlib.suppress(OSError):  # a read-only cache serves as well
            noted.write_text(changes)
    return same


def _written(archive: Archive, folder: epath.Path, seed: int, alone: bool) -> "RiceImageDataset":
    """Write the dataset beside its place and move it there when it is whole."""
    from rice_jax.data.builder import RiceImageDataset

    if alone and folder.exists():
        folder.rmtree()  # what an interrupted or damaged write left
    elif (folder / RiceImageDataset.name / str(RiceImageDataset.VERSION)).exists():
        if whole := _whole(archive, folder, seed):  # another process was faster
            return whole
        raise UserError(  # TFDS would take what is there, whatever it is
            f"the prepared images in {os.fspath(folder)} are damaged or of other images, and "
            "without locks, which that file system lacks, another process may be reading them: "
            "delete that folder and start again"
        )
    _check_room(archive, folder.parent)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        builder = _opened(archive, folder, seed)
        with contextlib.redirect_stdout(io.StringIO()):  # TFDS speaks of a download
            builder.download_and_prepare()
        (folder / "downloads").rmtree(missing_ok=True)  # TFDS makes it, though there are none
        (folder / _CHANGES).write_text(key_of_changes(archive))
    except FileExistsError:  # another process was faster where there are no locks
        if whole := _whole(archive, folder, seed):
            return whole
        raise
    except BaseException:
        if alone:
            folder.rmtree()
        raise
    return builder


def _check_room(archive: Archive, cache: epath.Path) -> None:
    needed = int(_SPARE * sum(member.size for member in archive.members))
    free = shutil.disk_usage(cache).free
    if needed > free:
        need, left = compared(needed, free)
        raise UserError(
            f"the prepared images need {need} and {os.fspath(cache)} has {left} left: make room or "
            "name another folder by --config.data.cache_dir"
        )
