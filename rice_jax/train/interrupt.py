"""Ctrl-C, SIGTERM and a terminal that closes as a wish, granted by training at its next step."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NoReturn

from rice_jax import launch

_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)


class Interrupt:
    """Whether the process was asked to stop, and by which signal."""

    def __init__(self) -> None:
        self.signal = 0
        self._usual: dict[int, Callable[[int, FrameType | None], Any] | int] = {}

    def arm(self) -> None:
        """Take a signal from now on; before there is anything to save it acts as usual.

        One that is ignored stays so: nohup asks for that, and a shell's background job.
        """
        if self._usual or self.signal or threading.current_thread() is not threading.main_thread():
            return
        for number in _SIGNALS:
            if (usual := signal.getsignal(number)) not in (signal.SIG_IGN, None):
                self._usual[number] = usual
                signal.signal(number, self._note)

    def disarm(self, *but: int) -> None:
        """Leave the signals to whoever had them."""
        for number in self._usual.keys() - but:
            signal.signal(number, self._usual.pop(number))

    def leave(self) -> NoReturn:
        """End the process as its signal would have: KeyboardInterrupt, or exit status 143."""
        if self.signal == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + (self.signal or signal.SIGTERM))

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        if number == signal.SIGHUP:
            launch.leave_closed_terminal()
        self.signal = self.signal or number
        # A second one ends the process at once, but for a terminal's end: its shell tells of that
        # too, and the kernel.
        self.disarm(signal.SIGHUP)


@contextlib.contextmanager
def interruptible() -> Iterator[Interrupt]:
    """An `Interrupt`, disarmed at the end; what nobody granted by then ends the process."""
    interrupt = Interrupt()
    try:
        yield interrupt
    finally:
        interrupt.disarm()
    if interrupt.signal:
        interrupt.leave()
