"""Which class each image of an archive is of, and which split, by the folders it lies in."""

import os
import re
import sys
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from rice_jax.data import images
from rice_jax.errors import UserError

SPLITS = ("train", "validation", "test")
_OWN_SPLIT = {
    **{name: name for name in SPLITS},
    **{"training": "train", "val": "validation", "valid": "validation", "testing": "test"},
}
"""The split that a folder of class folders holds, by the folder's name in small letters."""
MAX_NAME = 255


class Member(NamedTuple):
    """One image of an archive."""

    label: str  # its class folder
    name: str  # class folder and file, 'Arborio/Arborio (1).jpg'; of an own split with its folder
    place: str  # how the archive itself calls it
    size: int  # bytes
    stamp: str  # changes when the content does, unless somebody sets a file's time back
    changed: str = ""  # of a local file: changes with each write, but with a copy too
    split: str = ""  # of SPLITS, where the archive has a split of its own


class Listed(NamedTuple):
    """A file or folder of an archive."""

    place: str
    size: int  # of a folder -1
    stamp: str
    changed: str = ""


def hidden(name: str) -> bool:
    """Whether a file or folder of this name is left out."""
    return name.startswith(".") or name == "__MACOSX"


def members(files: Iterable[Listed], folders: Iterable[str], where: str) -> list[Member]:
    """The images among `files`, each in its class folder.

    The first folder below the one that holds all is the class, whatever folders lie in it; or the
    second, where the first are called train, validation and test. Other files are counted.
    """
    files = list(files)
    every = [entry for entry in files if entry.place.lower().endswith(images.SUFFIXES)]
    tell_others((entry.place for entry in files), where)
    pictures = [entry for entry in every if not any(map(hidden, entry.place.split("/")))]
    _tell_hidden(every, where)
    parents = {entry.place.rpartition("/")[0] for entry in pictures}
    root = _root(parents, where)
    splits = _own_splits(parents, root, where)
    found: dict[str, Member] = {}
    written: dict[tuple[str, str], str] = {}
    for entry in pictures:
        member = _member(entry, root, splits, where)
        folder = _class_folder(entry, root, splits)
        if written.setdefault((member.split, member.label), folder) != folder:
            raise UserError(
                f"{where} has two class folders called {member.label!r}, in two Unicode forms: "
                "rename one or put their images together"
            )
        if member.name in found:
            raise UserError(f"{where} holds {member.name!r} twice")
        found[member.name] = member
    roots = {f"{root}/{name}".lstrip("/") for name in splits} or {root}
    _check_classes({m.label for m in found.values()}, roots, folders, where)
    return list(found.values())


def _tell_hidden(pictures: Iterable[Listed], where: str) -> None:
    """Name on standard error the folders with images that are left out for their names."""
    folders = {entry.place.rpartition("/")[0] for entry in pictures}
    left_out = sorted(
        folder
        for folder in folders
        if any(part.startswith(".") for part in folder.split("/")) and "__MACOSX" not in folder
    )
    if left_out:
        print(
            f"{where}: left out {', '.join(map(repr, left_out))}: names that begin with a dot are "
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

    They would be taken for classes: a net would learn to tell training from test images. A part
    that has classes within, beside a folder without any, is held for a split too.
    """
    classes: defaultdict[str, set[str]] = defaultdict(set)
    for first, *rest in inner:
        classes[first].update(rest[:1])
    splits = [name for name in sorted(classes) if name.lower() in _OWN_SPLIT]
    others = [name for name in sorted(classes) if name not in splits]
    shared = any(classes[split] & classes[other] for split in splits for other in others)
    loose = [first for first, *rest in inner if first in splits and not rest]
    whole = not loose and any(len(classes[split]) > 1 for split in splits)
    flat = whole and not all(classes[other] for other in others)
    if len(splits) < 2 and not shared and not flat:
        return  # a class may be called so
    if loose:
        odd = f"images in no class folder in {min(loose)!r}"
    else:
        odd = f"{others[0]!r} beside them" if others[0] else "images in no folder beside them"
    raise UserError(
        f"{where} has the folders of a split, {', '.join(splits)}, but {odd}: move that away, or "
        "give a folder whose own folders are the classes"
    )


def _member(entry: Listed, root: str, splits: Mapping[str, str], where: str) -> Member:
    inside = entry.place[len(root) :].lstrip("/")
    folder = inside.partition("/")[0] if splits else ""
    label, slash, file = inside[len(folder) :].lstrip("/").partition("/")
    if not slash:
        raise UserError(
            f"{where}: {entry.place!r} does not lie in a class folder as others do: move it into "
            "one, or give a folder whose own folders are the classes"
        )
    for part in (label, *file.split("/")):
        if len(part) > MAX_NAME or any(unicodedata.category(c) in ("Cc", "Cs") for c in part):
            raise UserError(f"{where}: {part[:40]!r} cannot serve as a name: rename it")
    # macOS writes accents as two characters: the same file must have the same name everywhere.
    name = unicodedata.normalize("NFC", inside)
    label = unicodedata.normalize("NFC", label)
    return Member(label, name, *entry, splits.get(folder, ""))


def _class_folder(entry: Listed, root: str, splits: Mapping[str, str]) -> str:
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
        and not any(map(hidden, place.split("/")))
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
        if parent in roots and empty and not hidden(label):
            raise UserError(
                f"{where}: the class folder {folder!r} has no images: fill or remove it"
            )
