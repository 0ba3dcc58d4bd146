"""Files and folders as a user names them: local ones, or in a bucket that can be reached."""

import errno
import os
import re
import stat
from typing import TYPE_CHECKING

from rice_jax.errors import UserError, reason

if TYPE_CHECKING:
    from etils import epath

_REMOTE = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_BUCKETS = ("gs", "s3", "az", "hf")
"""Kinds of buckets that epath knows; each asks for a package of its own."""
_LONGEST = 4096
"""Characters of a path that any system takes."""


def is_remote(name: str | os.PathLike[str]) -> bool:
    """Whether it names a place on another machine, as gs://bucket/folder does."""
    return _REMOTE.match(os.fspath(name)) is not None


def named(name: str | os.PathLike[str]) -> "epath.Path":
    """The file or folder, whether it is there or not; ~ is the home.

    Raises:
        UserError: it is of a kind that nothing here can read, or longer than any path.
    """
    from etils import epath  # a quarter of a second, which a mistake need not wait for

    text = os.fspath(name)
    if len(text) > _LONGEST:
        raise UserError(f"{text[:40]}...: no path has {len(text):,} characters")
    remote = _REMOTE.match(text)
    if not remote:
        return epath.Path(os.path.expanduser(text))
    if remote[1] not in _BUCKETS:
        raise UserError(f"{text}: {remote[1]}:// cannot be read; give a local path, or gs://BUCKET")
    return epath.Path(text)


def spelled(name: str | os.PathLike[str]) -> str:
    """The path as it is told, without a last slash and the like; of a bucket as it is named."""
    path = os.fspath(name)
    return path if is_remote(path) else os.path.normpath(path)


def resolved(name: str | os.PathLike[str]) -> str:
    """The path without links in it, ~ and what leads back; of a bucket as it is named."""
    path = os.fspath(named(name))  # epath's own `resolve` follows no link
    return path if is_remote(path) else os.path.realpath(path)


def same_place(told: str, given: str) -> bool:
    """Whether a path that a file tells can be of the place that one given now leads to.

    A relative one began at a folder that no file tells: any does from which it leads there.
    """
    if told == given:
        return True
    if not (told and given) or is_remote(told) or is_remote(given):
        return False
    places = {resolved(given), os.path.abspath(os.path.expanduser(given))}
    if resolved(told) in places:
        return True
    below = [part for part in os.path.normpath(told).split(os.sep) if part not in (".", "..")]
    end = os.path.join(os.sep, *below)
    return bool(below) and not os.path.isabs(told) and any(each.endswith(end) for each in places)


def reached(name: str | os.PathLike[str]) -> "epath.Path":
    """As `named`, and where it is in a bucket that has been asked; UserError also if in vain."""
    path = named(name)
    if is_remote(name):
        try:
            path.exists()
        except Exception as error:  # of each bucket's own library, which may not be installed
            raise UserError(f"{os.fspath(name)} cannot be reached: {reason(error)}") from error
    return path


def require_content(path: str | os.PathLike[str], most: int | None = None) -> None:
    """OSError for what can be opened but has no end, never answers, or has over `most` bytes."""
    if is_remote(path):
        length = named(path).stat().length if most is not None else 0
    else:
        try:
            found = os.stat(path)
        except (OSError, ValueError):
            return  # whoever opens it tells why
        if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
            text = "it is a pipe or a device, neither a file nor a folder"
            raise OSError(errno.EINVAL, text, os.fspath(path))
        length = found.st_size if stat.S_ISREG(found.st_mode) else 0
    if most is not None and length > most:
        text = f"it has {length / 1e6:,.0f} MB, far more than any file of its kind"
        raise OSError(errno.EFBIG, text, os.fspath(path))
