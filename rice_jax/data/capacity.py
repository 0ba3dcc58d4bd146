"""How much memory this process may have, and what is told where there is too little of any."""

import contextlib
import os
import resource
from collections.abc import Iterator
from pathlib import Path

_GROUPS = Path("/proc/self/cgroup")
_CONTROL = Path("/sys/fs/cgroup")
_UNITS = ((10**9, "GB"), (10**6, "MB"), (10**3, "kB"))


def memory() -> int:
    """Bytes that this process may have: the machine's, or less by `ulimit -v` or a container."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    limits = [] if limit == resource.RLIM_INFINITY else [limit]
    return min([machine, *limits, *_limits()])


def compared(needed: int, there: int) -> tuple[str, str]:
    """Bytes that are needed and those that are there, as text in one unit.

    The former are rounded up and the latter down: what lacks is seen, however little it is.
    """
    scale, unit = next((each for each in _UNITS if needed >= each[0]), _UNITS[-1])
    tenths = -(-10 * needed // scale), 10 * there // scale
    needs, has = (f"{number / 10:,.1f} {unit}" for number in tenths)
    return needs, has


def _limits() -> Iterator[int]:
    """What Linux's control groups of this process, and those around them, may have.

    A container, or a service of the system, that takes more is killed without a word.
    """
    for limit in _files():
        with contextlib.suppress(OSError, ValueError):  # 'max' is none
            yield int(limit.read_text())


def _files() -> Iterator[Path]:
    """The limits' files, of version 2 of control groups and of version 1."""
    groups = ""
    with contextlib.suppress(OSError):  # no Linux
        groups = _GROUPS.read_text()
    for line in groups.splitlines():
        _, controllers, place = line.split(":", 2)
        if controllers == "":
            root, name = _CONTROL, "memory.max"
        elif "memory" in controllers.split(","):
            root, name = _CONTROL / "memory", "memory.limit_in_bytes"
        else:
            continue
        own = root / place.lstrip("/")
        yield from (each / name for each in (own, *own.parents) if each.is_relative_to(root))
