"""Where a command line comes in, as a process of its own."""

import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from rice_jax import launch

_COMPUTE = ("evaluate", "export", "lighten", "predict", "prune", "reproduce", "train")
"""Commands that are faster with large pages."""
_WINDOWS = (
    "error: rice_jax's commands run on Linux and macOS, and on Windows in WSL "
    "(https://learn.microsoft.com/windows/wsl); in Python rice_jax.profile, inspection, prune, "
    "export, models and zoo.load do without"
)


def enter(arguments: Sequence[str]) -> NoReturn:
    """Do what a command line says and end the process, which may first begin again."""
    if sys.platform == "win32":  # array_record, which images are kept in, has no files for it
        print(_WINDOWS, file=sys.stderr)
        _end(1)
    try:
        launch.hear()
        launch.open_streams()
        if arguments and arguments[0] in _COMPUTE and "--help" not in arguments:
            launch.begin_again()
        from rice_jax.commands.app import call

        call(arguments)
    except KeyboardInterrupt:  # before anything was begun
        print("error: stopped", file=sys.stderr)
        _end(130)
    except SystemExit as left:
        if left.code:
            _end(left.code)
        # All is done: what comes while Python takes leave would be a traceback, or end it silently.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise


def _end(status: int | str) -> NoReturn:
    """End without waiting for threads: after a write that failed some of Orbax's go on for long."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # closed, or nobody reads it
            stream.flush()
    os._exit(status if isinstance(status, int) else 1)
