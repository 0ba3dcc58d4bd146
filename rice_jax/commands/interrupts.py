"""Ctrl-C, SIGTERM and a terminal that closes end a command wherever they come."""

import contextlib
import dataclasses
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from importlib.machinery import ExtensionFileLoader
from types import FrameType
from typing import Any

from rice_jax import launch
from rice_jax.errors import UserError, tell

_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
_USUAL = dict.fromkeys(_SIGNALS, signal.SIG_DFL) | {signal.SIGINT: signal.default_int_handler}
"""What becomes of each where nobody has decided otherwise."""
_PATIENCE = 2.0
"""Seconds in which most of what is under way ends."""
_AGAIN = 1.0
"""Seconds after which Ctrl-C is sent once more, where the command still goes on."""
_LOADED = 0.05
"""Seconds after which it is, where it came while a library of C++ was loaded."""


@dataclasses.dataclass
class Wish:
    """That a command ends."""

    signal: int = 0
    """The signal by which that was wished; 0 where none was."""

    @property
    def status(self) -> int:
        """What the process ends with, as a shell tells it of one that the signal ended."""
        return 128 + (self.signal or signal.SIGINT)


@contextlib.contextmanager
def heeded() -> Iterator[Wish]:
    """Let no signal be lost, and a second one end the process at once.

    Python hears a signal between two of its instructions: not while XLA compiles, which may take a
    minute. A thread hears it there, says so, and ends the process at the second one, which costs
    no more than a kill does: files are written whole or not at all, and locks are the kernel's.

    What Python then raises may be dropped: in a destructor, in a garbage collector's callback, of
    which JAX has one, by asyncio, whose tasks need not heed it, by a library that catches all. So
    it is raised again until the command has ended. What C++ makes of it is an ImportError while a
    library is loaded, or the end of the process by SIGABRT: there it waits. Any other error after
    it is taken for its consequence, but what a user can mend.

    SIGTERM and SIGHUP raise the same: by themselves they end a process without a word, and a page
    that is written while a run goes on would tell for ever that it does. A terminal that closes is
    told of by its shell and by the kernel: a SIGHUP after another signal is no second wish.
    """
    wish = Wish()
    if threading.current_thread() is not threading.main_thread():
        yield wish
        return
    usual, listener = sys.unraisablehook, _Listener()

    def interrupt(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            launch.leave_closed_terminal()
            if wish.signal:
                return
        wish.signal = wish.signal or number  # SIGINT is what is sent again, of each
        if _loads_a_library(frame):
            listener.send_again_in(_LOADED)
            return
        listener.send_again_in(_AGAIN)
        raise KeyboardInterrupt

    def quietly(unraisable: Any) -> None:
        if not isinstance(unraisable.exc_value, KeyboardInterrupt):
            usual(unraisable)

    sys.unraisablehook = quietly
    # A shell's background job ignores SIGINT: what somebody else has decided stays.
    ours = {number: was for number, was in _USUAL.items() if signal.getsignal(number) is was}
    for number in ours:
        signal.signal(number, interrupt)
    try:
        yield wish
    except (UserError, OSError):
        raise
    except Exception as error:
        if wish.signal:
            raise KeyboardInterrupt from error
        raise
    finally:
        listener.close()
        for number, was in ours.items():
            signal.signal(number, was)
        if sys.unraisablehook is quietly:  # else another one stands before it, and calls it
            sys.unraisablehook = usual


def _loads_a_library(frame: FrameType | None) -> bool:
    """Whether what runs was called, by whatever way, by a library of C or C++ as it is loaded."""
    while frame:
        if frame.f_code.co_name in ("create_module", "exec_module") and isinstance(
            frame.f_locals.get("self"), ExtensionFileLoader
        ):
            return True
        frame = frame.f_back
    return False


class _Listener:
    """A thread that is told of each signal by Python's C handler, whatever Python is at."""

    def __init__(self) -> None:
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._writing, False)
        self._before = signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        self._sent_again = 0
        # Of one thread more than once: a signal may come to the main thread while it has the lock.
        self._lock, self._open = threading.RLock(), True
        self._next: threading.Timer | None = None
        threading.Thread(target=self._listen, daemon=True).start()

    def send_again_in(self, seconds: float) -> None:
        """Let the main thread have a SIGINT once more, which is no second wish, and so on."""
        with self._lock:
            if self._next:
                self._next.cancel()
            if self._open:
                self._next = _soon(seconds, self._send_again)

    def _send_again(self) -> None:
        with self._lock:
            if self._open:
                self._sent_again += 1
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
                self.send_again_in(_AGAIN)  # one that comes just as a wait begins does not end it

    def close(self) -> None:
        """Hear and send no more."""
        with self._lock:
            self._open = False
            if self._next:
                self._next.cancel()
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
            elif heard[0] != signal.SIGHUP:
                tell("ended at once; what was saved stays")
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
