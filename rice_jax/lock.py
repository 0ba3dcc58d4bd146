"""One process at a time on a run's folder."""

import contextlib
import fcntl
import itertools
import json
import os
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from typing import IO, Any

from etils import epath

from rice_jax import cluster, files
from rice_jax.errors import UserError, reason
from rice_jax.run import Run, parse_json

FILE = ".lock"
LEASE_SECONDS = 60.0
"""How long a holder of a remote folder is believed in after its last sign of life."""

_LONGEST = 4096
"""Characters of a lock's file that are read."""

_held: set[str] = set()


@contextlib.contextmanager
def hold(run: Run) -> Iterator[None]:
    """Hold the run's folder; who holds it already may hold it again.

    The lock is the kernel's (`flock`), so that it goes with the process however that ends. Remote
    folders (gs://) have no locks: there the holder renews a file while it lives, and one that
    died keeps others out for a minute. Where several processes train together the first holds
    the folder for all of them.

    Raises:
        UserError: another process holds it (its number, machine and start are told), it cannot
            be made or written to, it has a name with which no run can be kept there, or it is not
            one folder for all processes.
    """
    run.check_name()
    remote = files.is_remote(run.path)
    path = os.fspath(run.path) if remote else os.path.realpath(run.path)
    if path in _held:
        yield
        return
    with contextlib.ExitStack() as stack:
        holding = leased(run) if remote else _locked(run)
        cluster.on_first(lambda: stack.enter_context(holding))
        if not cluster.see_the_same(lambda: _who_holds(run)):
            raise UserError(
                f"{run} is not the same folder for all processes of the job: give each the same "
                "--workdir, on a disk that they share"
            )
        _held.add(path)
        try:
            yield
        finally:
            _held.discard(path)


def _who_holds(run: Run) -> str:
    """What the lock says of who holds it, for comparison: not when that was renewed."""
    try:
        content = run.read_bytes(FILE)
    except (UserError, OSError) as error:
        return type(error).__name__
    try:
        return str([parse_json(content)[name] for name in _myself()])
    except (ValueError, KeyError, TypeError):
        return repr(content)  # empty on a file system without locks


@contextlib.contextmanager
def _locked(run: Run) -> Iterator[None]:
    around = (run.path, *run.path.parents)
    made = list(itertools.takewhile(lambda folder: not folder.exists(), around))
    run.create()
    before = _names(run)
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(
                open(os.fspath(run.path / FILE), "a+", encoding="utf-8", opener=_no_link)
            )
        except OSError as error:
            raise UserError(f"cannot write to the run's folder {run}: {reason(error)}") from error
        locks = True
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not _is_there(file, run):
                raise BlockingIOError("who held it has just removed it")
        except BlockingIOError as error:
            file.seek(0)
            raise UserError(
                f"{run} is in use by {_holder(file.read(_LONGEST))}: wait for it, stop it, or give "
                "another folder"
            ) from error
        except OSError:
            locks = False  # the file system has none
        stack.callback(_leave_as_found, run, before, made)
        if locks:
            _sign(file, run)
        yield


def _names(run: Run) -> set[str]:
    """What lies in a run's folder; the lock's name alone where that cannot be told."""
    try:
        return set(os.listdir(run.path))
    except OSError:
        return {FILE}


def _is_there(file: IO[str], run: Run) -> bool:
    """Whether an open lock is still the one that others find in the run's folder."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(run.path / FILE))
    except FileNotFoundError:
        return False


def _leave_as_found(run: Run, before: set[str], made: Sequence[epath.Path]) -> None:
    """Remove the lock, and the folders made for it, where nothing else came: it was refused."""
    if FILE in before or _names(run) != before | {FILE}:
        return
    with contextlib.suppress(OSError):  # removed meanwhile, or another has something there
        os.unlink(run.path / FILE)
        for folder in made:
            os.rmdir(folder)


def _sign(file: IO[str], run: Run) -> None:
    """Note who holds a lock; past the file's buffer, which would fail again when it closes."""
    try:
        os.ftruncate(file.fileno(), 0)
        os.write(file.fileno(), json.dumps(_myself()).encode())
    except OSError as error:
        raise UserError(f"cannot write to the run's folder {run}: {reason(error)}") from error


def _no_link(path: str, flags: int) -> int:
    files.require_content(path)
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


@contextlib.contextmanager
def leased(run: Run) -> Iterator[None]:
    """Hold a folder without locks, by a file that is renewed; as `hold` otherwise.

    Two that start within the same second may both believe that they hold it.
    """
    run.create()
    file = run.path / FILE
    with contextlib.suppress(FileNotFoundError, ValueError, TypeError):
        left = parse_json(file.read_text())["renewed"] + LEASE_SECONDS - time.time()
        if left > 0:
            raise UserError(
                f"{run} is in use by {_holder(file.read_text())}, or was until a moment ago: wait "
                f"{min(left, LEASE_SECONDS):.0f} s, or give another folder"
            )
    ended, myself = threading.Event(), _myself()

    def renew() -> None:
        while not ended.wait(LEASE_SECONDS / 4):
            with contextlib.suppress(UserError):  # the next time may succeed
                run.write_json(FILE, myself | {"renewed": time.time()})

    run.write_json(FILE, myself | {"renewed": time.time()})
    thread = threading.Thread(target=renew, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        file.unlink(missing_ok=True)


def _myself() -> dict[str, Any]:
    started = time.strftime("%Y-%m-%d %H:%M:%S")
    return {"pid": os.getpid(), "host": socket.gethostname(), "started": started}


def _holder(content: str) -> str:
    try:
        holder = parse_json(content)
        return f"process {holder['pid']} on {holder['host']}, started {holder['started']}"
    except (ValueError, KeyError, TypeError):
        return "another process"
