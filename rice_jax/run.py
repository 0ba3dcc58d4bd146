"""A run's folder: every stage reads its files there and leaves its own."""

import contextlib
import json
import math
import os
import time
from collections.abc import Mapping
from typing import Any

from etils import epath

from rice_jax import files
from rice_jax.errors import UserError, reason

_LONGEST_WRITE = 60.0
"""Seconds that a file takes to be written, at most."""
_PARTIAL = ".partial"
"""How the name of a file ends that is being written, or was when its process was killed."""
_PATTERN = "*?[]\\"
"""Characters that Orbax reads as a pattern when it looks for a checkpoint's files."""


_LARGEST = 64 << 20
"""Bytes of a file that are read: a dead filters' census of 1,000 layers has some 10 MB."""
_TO_BE_LOOKED_AT = 1 << 20
"""Characters of JSON that get a line for each number: of 1,000 classes that would be 14 MB."""
_MOST_DIGITS = 300
"""Of a whole number in JSON: more is beyond any float."""
_MOST_PARTS = 4_000_000
"""Lists, objects and ends of texts in JSON: each takes a hundred bytes of memory for two or three
of the file."""


class Run:
    """The folder of one run, local or remote (gs://), and the names of the files in it."""

    def __init__(self, workdir: str | os.PathLike[str]) -> None:
        """UserError as `files.named`; whether a bucket can be reached is asked when it is used."""
        self._given = files.spelled(workdir)
        path = files.named(workdir)
        # Absolute, for Orbax takes no other.
        self.path = path if files.is_remote(path) else epath.Path(os.path.abspath(path))

    def __str__(self) -> str:
        return self._given

    def is_at(self, place: str | os.PathLike[str]) -> bool:
        """Whether a place is this folder, however either is spelled or linked to."""
        return files.resolved(place) == files.resolved(self.path)

    @property
    def checkpoints(self) -> epath.Path:
        """Folder of the Orbax checkpoints; UserError as `check_name`."""
        self.check_name()
        return self.path / "checkpoints"

    def check_name(self) -> None:
        """UserError where Orbax cannot write in the folder, or would not find it again."""
        special = [character for character in _PATTERN if character in os.fspath(self.path)]
        if special:
            raise UserError(
                f"{os.fspath(self.path)} has {special[0]!r} in it, with which checkpoints are not "
                "found again: give the run's folder another name"
            )
        try:
            os.fspath(self.path).encode()
        except UnicodeEncodeError as error:
            raise UserError(
                f"{os.fspath(self.path)} is not written in UTF-8, and checkpoints cannot be saved "
                "there: give the run's folder another name"
            ) from error

    def create(self) -> None:
        """Make the folder; UserError where that is not permitted, or its bucket not reached."""
        files.reached(self.path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except (OSError, ValueError) as error:
            raise UserError(f"cannot make the folder {self}: {reason(error)}") from error

    def require_place(self) -> None:
        """UserError where `create`, or a write in it, would fail; a look alone, nothing is made."""
        files.reached(self.path)
        if files.is_remote(self.path):
            return
        there = next(each for each in (self.path, *self.path.parents) if os.path.lexists(each))
        if not os.path.isdir(there):
            raise UserError(f"cannot make the folder {self}: {os.fspath(there)} is no folder")
        if not os.access(there, os.W_OK | os.X_OK):
            still = os.statvfs(there).f_flag & os.ST_RDONLY
            why = "its file system is read-only" if still else "it is not permitted"
            raise UserError(f"cannot write in the folder {os.fspath(there)}: {why}")

    def write_bytes(self, name: str, content: bytes) -> epath.Path:
        """Write a file whole or not at all: beside its place first, then moved there.

        Of two processes that write the same one the later one's stands. What one that was killed
        left beside it goes.

        A link in the run's folder is not followed: what it points to is not the run's.

        Raises:
            UserError: it cannot be written, as where the run's folder is not there (`create`).
        """
        self.write_together({name: content})
        return self.path / name

    def write_together(self, contents: Mapping[str, bytes]) -> None:
        """`write_bytes` of files that tell of the first of them: all are written, or none is.

        No moment has one that tells beside another than it tells of.
        """
        partials: dict[epath.Path, epath.Path] = {}
        target = self.path
        try:
            for name, content in contents.items():
                target = self.path / name
                partials[target] = target.parent / f".{target.name}.{os.getpid()}{_PARTIAL}"
                self._write_beside(partials[target], content)
            for target in [*partials][1:]:
                target.unlink(missing_ok=True)
            for target, partial in partials.items():
                partial.replace(target)
        except OSError as error:
            for partial in partials.values():
                _remove(partial)
            raise UserError(f"cannot write {os.fspath(target)}: {reason(error)}") from error
        for target in partials:
            if not files.is_remote(target):
                _tidy(target)

    def _write_beside(self, partial: epath.Path, content: bytes) -> None:
        """Write what is to be moved to its place; OSError where that fails."""
        if partial.parent != self.path:  # removed under a run, it does not come back in parts
            if os.path.islink(partial.parent):
                raise OSError(f"{os.fspath(partial.parent)} is a link")
            partial.parent.mkdir(exist_ok=True)
        if os.path.islink(partial):
            partial.unlink()
        partial.write_bytes(content)

    def write_text(self, name: str, content: str) -> epath.Path:
        """`write_bytes` of UTF-8 text; what is no text, in a path of other bytes, is escaped."""
        return self.write_bytes(name, encoded(content))

    def write_json(self, name: str, content: Any) -> epath.Path:
        """Write strict JSON (no NaN, no infinity: they become null), whole or not at all.

        Raises:
            UserError: as `write_bytes` and `as_json`.
        """
        return self.write_bytes(name, self.as_json(name, content))

    def as_json(self, name: str, content: Any) -> bytes:
        """What `write_json` writes; UserError where that is beyond what `read_json` reads."""
        told = _strict(content)
        text = json.dumps(told, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
        if len(text) < _TO_BE_LOOKED_AT:
            text = json.dumps(told, indent=1, allow_nan=False, ensure_ascii=False)
        as_bytes = encoded(text + "\n")
        if beyond := _beyond_any(as_bytes):
            raise UserError(f"cannot write {os.fspath(self.path / name)}: {beyond}")
        return as_bytes

    def remove(self, name: str) -> None:
        """Remove a file, where it is there; UserError where that is not permitted."""
        try:
            if self.has(name):
                (self.path / name).unlink(missing_ok=True)
        except OSError as error:
            raise UserError(f"cannot remove {self.path / name}: {reason(error)}") from error

    def has(self, name: str) -> bool:
        """Whether the file is there."""
        return (self.path / name).exists()

    def written(self, name: str) -> int:
        """When the file was last written, in ns since the epoch; of a remote one in whole seconds.

        OSError where it is missing.
        """
        target = self.path / name
        if files.is_remote(target):
            return target.stat().mtime * 1_000_000_000
        return os.stat(target).st_mtime_ns  # epath has whole seconds alone

    def read_bytes(self, name: str) -> bytes:
        """The content of a file.

        OSError where it is missing, closed, a pipe or device, or beyond what any file of a run is.
        """
        target = files.reached(self.path / name)
        files.require_content(target, _LARGEST)
        return target.read_bytes()

    def read_json(self, name: str) -> Any:
        """The content of a JSON file; UserError where it is missing, damaged or no file."""
        target = self.path / name
        try:
            return parse_json(self.read_bytes(name))
        except FileNotFoundError as error:
            raise UserError(f"{os.fspath(target)} is missing: is {self} a run's folder?") from error
        except (OSError, ValueError) as error:
            raise UserError(f"cannot read {os.fspath(target)}: {reason(error)}") from error


def is_partial(name: str) -> bool:
    """Whether a file of that name is a write that has not come to its end."""
    return name.startswith(".") and name.endswith(_PARTIAL)


def where_moved(folder: str) -> str:
    """What helps where a run that another names is there no more."""
    return f"if that run was moved, make {folder} a link to where it is"


def encoded(text: str) -> bytes:
    """UTF-8, and as JSON reads it back what Python makes of a name that is none (PEP 383)."""
    return text.encode(errors="backslashreplace")


def parse_json(content: bytes | str) -> Any:
    """What a JSON text holds; ValueError where it is damaged, or beyond what any file here is."""
    if isinstance(content, str):
        content = content.encode()
    if beyond := _beyond_any(content):
        raise ValueError(beyond)
    try:
        return json.loads(content, parse_constant=_no_number, parse_int=_whole, parse_float=_finite)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON's")


def _whole(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"a number of {len(digits):,} digits is none of a run's")
    return int(digits)


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):  # 1e999, of which Python makes what no JSON may hold
        raise ValueError(f"{digits[:40]} is none of a run's numbers")
    return number


def _beyond_any(content: bytes) -> str:
    """In what JSON is beyond any file of a run; empty where it is not."""
    if len(content) > _LARGEST:
        return f"it has {len(content) / 1e6:,.0f} MB, far more than any file of a run"
    if sum(map(content.count, (b"[", b"{", b'"'))) > _MOST_PARTS:
        return "it has far more lists, objects and texts than any file of a run"
    return ""


def _tidy(target: epath.Path) -> None:
    """Remove what killed processes left of writes of the same file.

    Not what is young: processes of another machine are not seen here.
    """
    before, after = f".{target.name}.", _PARTIAL
    with contextlib.suppress(OSError):  # another has removed it meanwhile
        for name in os.listdir(target.parent):
            pid = name[len(before) : -len(after)]
            if name == before + pid + after and pid.isdecimal() and not _runs(int(pid)):
                left = target.parent / name
                if time.time() - os.lstat(left).st_mtime > _LONGEST_WRITE:
                    left.unlink()


def _runs(pid: int) -> bool:
    """Whether there is such a process on this machine."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass  # another user's
    return True


def _remove(path: epath.Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return  # the folder itself is gone or closed: nothing is left to tidy


def _strict(content: Any) -> Any:
    if isinstance(content, dict):
        return {str(key): _strict(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_strict(value) for value in content]
    if hasattr(content, "tolist"):  # NumPy's and JAX's scalars and arrays
        return _strict(content.tolist())
    if isinstance(content, float) and not math.isfinite(content):
        return None
    return content
