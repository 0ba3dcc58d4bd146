"""Where images come from: a zip or a folder, seen as class folders full of images.

A zip is never unpacked: names are labels and never paths, and a member is read only as far as
its declared size, so that a hostile one can neither leave its place nor grow without bound.
"""

import contextlib
import hashlib
import os
import stat
import sys
import weakref
import zipfile
import zlib
from collections.abc import Iterator
from typing import BinaryIO, Protocol

from etils import epath

from rice_jax import files
from rice_jax.data import images
from rice_jax.data.layout import MAX_NAME, Listed, Member, hidden, members
from rice_jax.errors import UserError, reason

MAX_TOTAL = 256 << 30  # bytes of all the images of a zip, unpacked

_MAX_DEPTH = 32  # folders from the one given down to the images


def key_of_changes(archive: "Archive") -> str:
    """A digest that changes with each write to a local file; '' where that is not known."""
    if not any(member.changed for member in archive.members):
        return ""
    digest = hashlib.sha256()
    for member in sorted(archive.members):
        digest.update(f"{member.name}\0{member.changed}\n".encode())
    return digest.hexdigest()[:16]


class Archive(Protocol):
    """Images in classes: a folder, a zip, or drawn on demand."""

    members: list[Member]

    def read(self, member: Member) -> bytes:
        """The encoded image; UserError where it cannot be had."""
        ...


def classes(archive: Archive) -> tuple[str, ...]:
    """The names of the classes, sorted."""
    return tuple(sorted({member.label for member in archive.members}))


def key(archive: Archive) -> str:
    """A digest that changes with the names, sizes or stamps of the images."""
    digest = hashlib.sha256()
    for member in sorted(archive.members):
        digest.update(f"{member.name}\0{member.size}\0{member.stamp}\n".encode())
    return digest.hexdigest()[:16]


def open_archive(path: str | os.PathLike[str], option: str = "--config.data.path") -> Archive:
    """The images under `path`: a zip or a folder of class folders, local or remote.

    Raises UserError where nothing is there, which tells the `option` that names another place: it
    may stand in a run's configuration; where it is no such thing, or a class is empty.
    """
    place = files.reached(path)
    try:
        files.require_content(place)
        if place.is_dir():
            return Folder(place)
        if place.exists():
            return Zip(place)
    except (OSError, ValueError) as error:
        closed = error.filename if isinstance(error, OSError) else None
        raise UserError(f"cannot read {closed or os.fspath(place)}: {reason(error)}") from error
    raise UserError(
        f"{_in_full(place)} does not exist: give the Kaggle zip, its unpacked folder or any folder "
        f"of class folders as {option}"
    )


def _in_full(place: epath.Path) -> str:
    """A path with the folder that it was looked for in: a run tells it as it was given once."""
    return os.fspath(place) if files.is_remote(place) else os.path.abspath(place)


class Folder:
    """A folder of class folders, or one that holds such a folder."""

    def __init__(self, path: epath.Path) -> None:
        self._path = os.fspath(path)
        # epath's own opening of a local file takes longer than its reading.
        self._open = _open_remote if files.is_remote(path) else _open_here
        entries = list(_walk(path))
        self.members = members(
            [entry for entry in entries if entry.size >= 0],
            [entry.place for entry in entries if entry.size < 0],
            os.fspath(path),
        )

    def read(self, member: Member) -> bytes:
        """The encoded image; UserError where it cannot be had."""
        place = f"{self._path}/{member.place}"
        try:
            files.require_content(place)
            with self._open(place) as file:
                return file.read(images.MAX_BYTES + 1)
        except OSError as error:
            raise UserError(f"cannot be read: {reason(error)}") from error


class Zip:
    """A zip of class folders, such as Kaggle's."""

    def __init__(self, path: epath.Path) -> None:
        where = os.fspath(path)
        file = path.open("rb")
        weakref.finalize(self, file.close)
        try:
            self._zip = zipfile.ZipFile(file)
        except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError) as error:
            raise UserError(
                f"{where} is neither a folder nor a whole zip ({reason(error)}): download it again"
            ) from error
        infos = self._zip.infolist()
        for info in infos:
            _refuse_hostile(info, where)
        named = [(name, info) for info in infos if (name := _as_path(info.filename))]
        self._infos = dict(named)
        self.members = members(
            [Listed(n, i.file_size, f"{i.CRC:08x}") for n, i in named if not n.endswith("/")],
            [name.rstrip("/") for name, _ in named if name.endswith("/")],
            where,
        )
        total = sum(member.size for member in self.members)
        if total > MAX_TOTAL:
            raise UserError(f"{where} unpacks to {total >> 30} GiB of images: too large")

    def read(self, member: Member) -> bytes:
        """The encoded image; UserError where it cannot be had."""
        if member.size > images.MAX_BYTES:
            raise UserError(f"larger than {images.MAX_BYTES >> 20} MiB")
        try:
            return self._zip.read(self._infos[member.place])
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError) as error:
            raise UserError(f"damaged in the zip: {reason(error)}") from error


def _open_here(place: str) -> BinaryIO:
    return open(place, "rb")


def _open_remote(place: str) -> BinaryIO:
    opened: BinaryIO = epath.Path(place).open("rb")
    return opened


def within(folder: epath.Path) -> list[str]:
    """The files under a folder, hidden ones left out, links followed; in order of their paths."""
    every = [entry.place for entry in _walk(folder) if entry.size >= 0]
    return sorted(place for place in every if not any(map(hidden, place.split("/"))))


def _walk(
    root: epath.Path, below: str = "", above: tuple[tuple[int, int], ...] = ()
) -> Iterator[Listed]:
    """Files and folders under `root`, hidden ones left out, links followed but in no circle."""
    here = _identity(root / below)
    if here in above:
        print(f"{root}: left out {below!r}, a link to a folder above it", file=sys.stderr)
        return
    if len(above) > _MAX_DEPTH:
        raise UserError(f"{root}: {below[:MAX_NAME]!r} is more than {_MAX_DEPTH} folders deep")
    for entry in _listing(root / below):
        place = f"{below}/{entry.place}" if below else entry.place
        if entry.size >= 0 and not hidden(entry.place):
            yield entry._replace(place=place)
        elif entry.size < 0 and not hidden(entry.place):
            yield entry._replace(place=place)
            yield from _walk(root, place, (*above, here))
        elif entry.size < 0:  # its images are left out, which is said
            with contextlib.suppress(OSError):
                inside = [each for each in _listing(root / place) if each.size >= 0]
                yield from (each._replace(place=f"{place}/{each.place}") for each in inside)


def _identity(folder: epath.Path) -> tuple[int, int]:
    """What a local folder is, by whatever path; of a remote one, where links are none, nothing."""
    if files.is_remote(folder):
        return -1, hash(os.fspath(folder))
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _listing(folder: epath.Path) -> Iterator[Listed]:
    """What lies in a folder, by its name there."""
    if files.is_remote(folder):
        for child in folder.iterdir():
            status = child.stat()
            size = -1 if status.is_directory else status.length
            yield Listed(child.name, size, str(status.mtime))
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield Listed(entry.name, -1, "")
            elif entry.is_file():
                status = entry.stat()
                times = str(status.st_mtime_ns), str(status.st_ctime_ns)
                yield Listed(entry.name, status.st_size, *times)
            else:  # a link to nothing, a pipe: whoever reads it is told
                yield Listed(entry.name, 0, "")


def _as_path(name: str) -> str:
    """A member's name as a path within the archive; that of a folder ends in '/'.

    Some of Windows' own tools part folders by backslashes, and bsdtar begins names by './', which
    alone is none.
    """
    *folders, last = name.replace("\\", "/").split("/")
    return "/".join([*(each for each in folders if each not in ("", ".")), last])


def _refuse_hostile(info: zipfile.ZipInfo, where: str) -> None:
    """UserError for a member that no honest archive of images has."""
    name = info.filename
    parts = name.replace("\\", "/").split("/")
    if name.startswith(("/", "\\")) or ".." in parts or ":" in parts[0]:
        fault = "leads out of the archive"
    elif stat.S_ISLNK(info.external_attr >> 16):
        fault = "is a link"
    elif info.flag_bits & 1:
        fault = "is encrypted"
    elif info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        fault = "is packed by a method other than deflate"
    else:
        return
    raise UserError(f"{where} is not to be trusted: its member {name[:MAX_NAME]!r} {fault}")
