"""Where images come from: a zip or a folder, seen as class folders full of images.

A zip is never unpacked: names are labels and never paths, and a member is read only as far as
its declared size, so that a hostile one can neither leave its place nor grow without bound.
"""

import contextlib
import hashlib
import os
import re
import stat
import sys
import unicodedata
import weakref
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from etils import epath

from rice_jax import files
from rice_jax.data import images
from rice_jax.errors import UserError, reason

MAX_TOTAL = 256 << 30  # bytes of all the images of a zip, unpacked

SPLITS = ("train", "validation", "test")
_OWN_SPLIT = {
    **{name: name for name in SPLITS},
    **{"training": "train", "val": "validation", "valid": "validation", "testing": "test"},
}
"""The split that a folder of class folders holds, by the folder's name in small letters."""

_MAX_DEPTH = 32  # folders from the one given down to the images
_MAX_NAME = 255


class Member(NamedTuple):
    """One image of an archive."""

    label: str  # its class folder
    name: str  # class folder and file, 'Arborio/Arborio (1).jpg'; of an own split with its folder
    place: str  # how the archive itself calls it
    size: int  # bytes
    stamp: str  # changes when the content does, unless somebody sets a file's time back
    changed: str = ""  # of a local file: changes with each write, but with a copy too
    split: str = ""  # of SPLITS, where the archive has a split of its own


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


def open_archive(path: str | os.PathLike[str]) -> Archive:
    """The images under `path`: a zip or a folder of class folders, local or remote.

    Raises UserError where nothing is there, or it is no such thing, or a class is empty.
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
        f"{os.fspath(place)} does not exist: give the Kaggle zip, its unpacked folder "
        "or any folder of class folders"
    )


class Folder:
    """A folder of class folders, or one that holds such a folder."""

    def __init__(self, path: epath.Path) -> None:
        self._path = path
        entries = list(_walk(path))
        self.members = _members(
            [entry for entry in entries if entry.size >= 0],
            [entry.place for entry in entries if entry.size < 0],
            os.fspath(path),
        )

    def read(self, member: Member) -> bytes:
        """The encoded image; UserError where it cannot be had."""
        place = self._path / member.place
        try:
            files.require_content(place)
            with place.open("rb") as file:
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
        # Some of Windows' own tools part folders by backslashes.
        named = [(info.filename.replace("\\", "/"), info) for info in infos]
        self._infos = dict(named)
        self.members = _members(
            [_Entry(n, i.file_size, f"{i.CRC:08x}") for n, i in named if not n.endswith("/")],
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


class _Entry(NamedTuple):
    place: str
    size: int  # of a folder -1
    stamp: str
    changed: str = ""


def within(folder: epath.Path) -> list[str]:
    """The files under a folder, hidden ones left out, links followed; in order of their paths."""
    every = [entry.place for entry in _walk(folder) if entry.size >= 0]
    return sorted(place for place in every if not any(map(_hidden, place.split("/"))))


def _walk(
    root: epath.Path, below: str = "", above: tuple[tuple[int, int], ...] = ()
) -> Iterator[_Entry]:
    """Files and folders under `root`, hidden ones left out, links followed but in no circle."""
    here = _identity(root / below)
    if here in above:
        print(f"{root}: left out {below!r}, a link to a folder above it", file=sys.stderr)
        return
    if len(above) > _MAX_DEPTH:
        raise UserError(f"{root}: {below[:_MAX_NAME]!r} is more than {_MAX_DEPTH} folders deep")
    for entry in _listing(root / below):
        place = f"{below}/{entry.place}" if below else entry.place
        hidden = _hidden(entry.place)
        if entry.size >= 0 and not hidden:
            yield entry._replace(place=place)
        elif entry.size < 0 and not hidden:
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


def _listing(folder: epath.Path) -> Iterator[_Entry]:
    """What lies in a folder, by its name there."""
    if files.is_remote(folder):
        for child in folder.iterdir():
            status = child.stat()
            size = -1 if status.is_directory else status.length
            yield _Entry(child.name, size, str(status.mtime))
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield _Entry(entry.name, -1, "")
            elif entry.is_file():
                status = entry.stat()
                times = str(status.st_mtime_ns), str(status.st_ctime_ns)
                yield _Entry(entry.name, status.st_size, *times)
            else:  # a link to nothing, a pipe: whoever reads it is told
                yield _Entry(entry.name, 0, "")


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


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
    raise UserError(f"{where} is not to be trusted: its member {name[:_MAX_NAME]!r} {fault}")


def _members(files: Iterable[_Entry], folders: Iterable[str], where: str) -> list[Member]:
    """The images among `files`, each in its class folder.

    The first folder below the one that holds all is the class, whatever folders lie in it; or the
    second, where the first are called train, validation and test. Other files are counted.
    """
    files = list(files)
    every = [entry for entry in files if entry.place.lower().endswith(images.SUFFIXES)]
    tell_others((entry.place for entry in files), where)
    pictures = [entry for entry in every if not any(map(_hidden, entry.place.split("/")))]
    _tell_hidden(every, where)
    parents = {entry.place.rpartition("/")[0] for entry in pictures}
    root = _root(parents, where)
    splits = _own_splits(parents, root, where)
    members: dict[str, Member] = {}
    written: dict[tuple[str, str], str] = {}
    for entry in pictures:
        member = _member(entry, root, splits, where)
        folder = _class_folder(entry, root, splits)
        if written.setdefault((member.split, member.label), folder) != folder:
            raise UserError(
                f"{where} has two class folders called {member.label!r}, in two Unicode forms: "
                "rename one or put their images together"
            )
        if member.name in members:
            raise UserError(f"{where} holds {member.name!r} twice")
        members[member.name] = member
    roots = {f"{root}/{name}".lstrip("/") for name in splits} or {root}
    _check_classes({m.label for m in members.values()}, roots, folders, where)
    return list(members.values())


def _tell_hidden(pictures: Iterable[_Entry], where: str) -> None:
    """Name on standard error the folders with images that are left out for their names."""
    folders = {entry.place.rpartition("/")[0] for entry in pictures}
    hidden = sorted(
        folder
        for folder in folders
        if any(part.startswith(".") for part in folder.split("/")) and "__MACOSX" not in folder
    )
    if hidden:
        print(
            f"{where}: left out {', '.join(map(repr, hidden))}: names that begin with a dot are "
            "hidden",
            file=sys.stderr,
        )


def _root(parents: set[str], where: str) -> str:
    """The folder that holds the class folders, given the folders that hold images."""
    if not parents:
        raise UserError(
            f"{where} has no images: it should hold one folder for each class, "
            f"with {', '.join(images.SUFFIXES)} in it"
        )
    if parents == {""}:
        raise UserError(
            f"{where} has images but no class folders: put those of each class into a folder of "
            f"its own, as {where}/CLASS/IMAGE, or give the folder above it if it is of one class"
        )
    if len(parents) == 1:
        return next(iter(parents)).rpartition("/")[0]
    return os.path.commonpath(parents) if "" not in parents else ""


def _own_splits(parents: set[str], root: str, where: str) -> dict[str, str]:
    """Split by the name of its folder; none where class folders lie in one parent."""
    inner = [parent[len(root) :].lstrip("/").split("/") for parent in parents]
    if not all(len(parts) > 1 and parts[0].lower() in _OWN_SPLIT for parts in inner):
        _refuse_half_a_split(inner, where)
        return {}
    found = {parts[0]: _OWN_SPLIT[parts[0].lower()] for parts in inner}
    if "train" not in found.values() or len(set(found.values())) < len(found):
        raise UserError(
            f"{where} has the folders {', '.join(sorted(found))}: a split of its own takes a "
            f"folder train and one each of validation and test, with class folders in it; what "
            f"is not there is cut out of train"
        )
    return found


def _refuse_half_a_split(inner: Sequence[Sequence[str]], where: str) -> None:
    """UserError for folders of a split with something else in or beside them.

    They would be taken for classes: a net would learn to tell training from test images.
    """
    classes: defaultdict[str, set[str]] = defaultdict(set)
    for first, *rest in inner:
        classes[first].update(rest[:1])
    splits = [name for name in sorted(classes) if name.lower() in _OWN_SPLIT]
    others = [name for name in sorted(classes) if name not in splits]
    shared = any(classes[split] & classes[other] for split in splits for other in others)
    if len(splits) < 2 and not shared:
        return  # a class may be called so
    loose = [first for first, *rest in inner if first in splits and not rest]
    odd = f"images in no class folder in {min(loose)!r}" if loose else f"{others[0]!r} beside them"
    raise UserError(
        f"{where} has the folders of a split, {', '.join(splits)}, but {odd}: move that away, or "
        "give a folder whose own folders are the classes"
    )


def _member(entry: _Entry, root: str, splits: Mapping[str, str], where: str) -> Member:
    inside = entry.place[len(root) :].lstrip("/")
    folder = inside.partition("/")[0] if splits else ""
    label, slash, file = inside[len(folder) :].lstrip("/").partition("/")
    if not slash:
        raise UserError(
            f"{where}: {entry.place!r} does not lie in a class folder as others do: move it into "
            "one, or give a folder whose own folders are the classes"
        )
    for part in (label, *file.split("/")):
        if len(part) > _MAX_NAME or any(unicodedata.category(c) in ("Cc", "Cs") for c in part):
            raise UserError(f"{where}: {part[:40]!r} cannot serve as a name: rename it")
    # macOS writes accents as two characters: the same file must have the same name everywhere.
    name = unicodedata.normalize("NFC", inside)
    label = unicodedata.normalize("NFC", label)
    return Member(label, name, *entry, splits.get(folder, ""))


def _class_folder(entry: _Entry, root: str, splits: Mapping[str, str]) -> str:
    """The path of the folder that an image has its class from."""
    parts = entry.place[len(root) :].lstrip("/").split("/")
    return "/".join([root, *parts[: 2 if splits else 1]])


def _is_licence(place: str) -> bool:
    """Whether a file says what may be done with the others: nobody takes it for an image."""
    return re.fullmatch(r"licen[cs]e(\.\w+)?", place.rpartition("/")[2], re.IGNORECASE) is not None


def tell_others(places: Iterable[str], where: str) -> None:
    """Count on standard error, by kind, the files that are no images and are left out."""
    others = [
        images.kind_of(place)
        for place in places
        if not place.lower().endswith(images.SUFFIXES)
        and not _is_licence(place)
        and not any(map(_hidden, place.split("/")))
    ]
    if others:
        what = "other file" if len(others) == 1 else "other files"
        print(f"{where}: left out {len(others):,} {what}: {images.told(others)}", file=sys.stderr)


def _check_classes(
    labels: set[str], roots: Collection[str], folders: Iterable[str], where: str
) -> None:
    for folder in sorted(folders):
        parent, _, label = folder.rpartition("/")
        empty = unicodedata.normalize("NFC", label) not in labels
        if parent in roots and empty and not _hidden(label):
            raise UserError(
                f"{where}: the class folder {folder!r} has no images: fill or remove it"
            )
