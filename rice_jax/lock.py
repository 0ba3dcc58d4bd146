"""One process at a time on a run's folder."""

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from typing import TextIO

import jax
import numpy as np
from jax.experimental import multihost_utils

from rice_jax.errors import UserError, reason
from rice_jax.run import Run

FILE = ".lock"

_held: set[str] = set()


@contextlib.contextmanager
def hold(run: Run) -> Iterator[None]:
    """Hold the run's folder; who holds it already may hold it again.

    The lock is the kernel's (`flock`), so that it goes with the process however that ends. Where
    several processes train together the first holds it for all of them. Folders that are not of
    the file system (gs://) have no locks: there each process trusts the user.

    Raises:
        UserError: another process holds it (its number, machine and start are told).
    """
    path = os.path.realpath(os.fspath(run.path))
    if "://" in os.fspath(run.path) or path in _held:
        yield
        return
    with contextlib.ExitStack() as stack:
        refusal = ""
        if jax.process_index() == 0:
            try:
                stack.enter_context(_locked(run))
            except UserError as error:
                refusal = str(error)
        _raise_on_all(refusal, run)
        _held.add(path)
        try:
            yield
        finally:
            _held.discard(path)


@contextlib.contextmanager
def _locked(run: Run) -> Iterator[None]:
    run.create()
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(open(os.fspath(run.path / FILE), "a+", encoding="utf-8"))
        except OSError as error:
            raise UserError(f"cannot write to the run's folder {run}: {reason(error)}") from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"{run} is in use by {_holder(file)}: wait for it, stop it, or give another "
                "--workdir"
            ) from error
        except OSError:
            yield  # a file system without locks
            return
        file.truncate(0)
        started = time.strftime("%Y-%m-%d %H:%M:%S")
        json.dump({"pid": os.getpid(), "host": socket.gethostname(), "started": started}, file)
        file.flush()
        yield


def _holder(file: TextIO) -> str:
    file.seek(0)
    try:
        holder = json.loads(file.read())
        return f"process {holder['pid']} on {holder['host']}, started {holder['started']}"
    except (ValueError, KeyError, TypeError, OSError):
        return "another process"


def _raise_on_all(refusal: str, run: Run) -> None:
    """Let no process wait for one that was refused."""
    if jax.process_count() > 1:
        refused = multihost_utils.broadcast_one_to_all(np.int32(bool(refusal)))
        if refused and not refusal:
            refusal = f"{run} is in use: see the first process's message"
    if refusal:
        raise UserError(refusal)
