"""Ctrl-C and SIGTERM end a command wherever they come."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from rice_jax.errors import tell

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_PATIENCE = 2.0
"""Seconds in which most of what is under way ends."""


@contextlib.contextmanager
def heeded() -> Iterator[None]:
    """Let no signal be lost, and a second one end the process at once.

    Python hears a signal between two of its instructions: not while XLA compiles, which may take a
    minute. A thread hears it there, says so, and ends the process at the second one, which costs
    no more than a kill does: files are written whole or not at all, and locks are the kernel's.

    What a garbage collector's callback or a destructor raises is told and forgotten, and JAX has
    such a callback, in which a command may be whenever the signal comes. It is sent once more
    then, a moment later, from where nothing is dropped.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    usual, listener = sys.unraisablehook, _Listener()

    def sent_again(unraisable: Any) -> None:
        if not isinstance(unraisable.exc_value, KeyboardInterrupt):
            usual(unraisable)
            return
        _soon(0.05, listener.send_again)

    sys.unraisablehook = sent_again
    try:
        yield
    finally:
        listener.close()
        if sys.unraisablehook is sent_again:  # else another one stands before it, and calls it
            sys.unraisablehook = usual


class _Listener:
    """A thread that is told of each signal by Python's C handler, whatever Python is at."""

    def __init__(self) -> None:
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._writing, False)
        self._before = signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        self._sent_again = 0
        threading.Thread(target=self._listen, daemon=True).start()

    def send_again(self) -> None:
        """Let the main thread have a SIGINT once more, which is no second wish."""
        self._sent_again += 1
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    def close(self) -> None:
        """Hear no more."""
        signal.set_wakeup_fd(self._before)
        os.close(self._writing)

    def _listen(self) -> None:
        told: threading.Timer | None = None
        while heard := os.read(self._reading, 1):
            if heard[0] not in _SIGNALS:
                continue
            if self._sent_again:
                self._sent_again -= 1
            elif told is None:
                told = _soon(_PATIENCE, _tell_to_wait)
            else:
                tell("ended at once; the same command goes on from what is saved")
                os._exit(128 + heard[0])
        if told:
            told.cancel()
        os.close(self._reading)


def _soon(seconds: float, action: Callable[[], None]) -> threading.Timer:
    timer = threading.Timer(seconds, action)
    timer.daemon = True
    timer.start()
    return timer


def _tell_to_wait() -> None:
    tell("stopping when what is being computed or compiled is done; once more ends it at once")
