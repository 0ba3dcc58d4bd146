"""Whether a checkpoint's files can be read, before Orbax is asked to."""

import contextlib
import errno
import os
import re
from collections.abc import Iterator

from etils import epath

from rice_jax import files
from rice_jax.errors import UserError, causes, reason

_OS_ERROR = re.compile(r"\bOS error (\d+)")
"""As TensorStore tells it: [OS error 13: EACCES Permission denied]."""
_REFUSED = {
    *(errno.EACCES, errno.EPERM, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM),
    *(errno.EBUSY, errno.ELOOP, errno.ESTALE, errno.ETIMEDOUT, errno.ENODEV, errno.ENXIO),
}
"""Errors of the system that say nothing of what a file holds."""
_ARRAYS = "d"
"""Name of the folders in which a checkpoint has its arrays' bytes; the other files tell of them."""
_LARGEST = 16 << 20
"""Bytes of a file that tells of arrays: of some hundred arrays 100 kB."""


class DamagedError(Exception):
    """A checkpoint that does not hold what was saved."""


def require_readable(folder: epath.Path) -> None:
    """UserError where the system does not let a file be read, which Orbax takes for absent.

    DamagedError where one is a pipe or a device, which Orbax would wait for, or a description that
    is larger than any, which it would read whole.
    """
    try:
        for path in _inside(folder):
            files.require_content(epath.Path(path))
            size = os.path.getsize(path)
            if size > _LARGEST and os.path.basename(os.path.dirname(path)) != _ARRAYS:
                raise DamagedError(f"{os.path.basename(path)} has {size / 1e6:,.0f} MB")
            with open(path, "rb", buffering=0) as file:
                file.read(1)
    except OSError as error:
        if refusal := of_the_system(error):
            raise unread(refusal) from error
        if error.errno == errno.EINVAL:
            raise DamagedError(reason(error)) from error


def held(folder: epath.Path) -> int:
    """Bytes of the files below a local folder, without their holes."""
    return sum(map(_without_holes, _inside(folder)))


def _without_holes(path: str) -> int:
    held = end = 0
    with contextlib.suppress(OSError), open(path, "rb", buffering=0) as file:
        while True:  # until nothing but a hole is left
            begin = os.lseek(file.fileno(), end, os.SEEK_DATA)
            end = os.lseek(file.fileno(), begin, os.SEEK_HOLE)
            held += end - begin
    return held


def _inside(folder: epath.Path) -> Iterator[str]:
    """Paths of the files below a local folder; OSError where it cannot be listed."""
    for place, _, names in os.walk(folder, onerror=_raise):
        yield from (os.path.join(place, name) for name in names)


def _raise(error: OSError) -> None:
    raise error


def unread(refusal: str) -> UserError:
    """What to raise where the system does not let a file be read."""
    return UserError(
        f"cannot read a checkpoint: {refusal}; it may be whole, so nothing is begun anew"
    )


def of_the_system(error: BaseException) -> str | None:
    """Why the system did not let a file be read that is there; None where that is no cause."""
    for each in causes(error):
        code = each.errno if isinstance(each, OSError) else None
        if told := _OS_ERROR.search(str(each)):
            code = int(told[1])
        if code in _REFUSED:
            where = f"{each.filename}: " if isinstance(each, OSError) and each.filename else ""
            return where + os.strerror(code)
    return None
