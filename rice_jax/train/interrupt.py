"""Ctrl-C and SIGTERM as a wish that the training loop grants at its next step."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupt:
    """Whether the process was asked to stop, and by which signal."""

    def __init__(self) -> None:
        self.signal = 0
        self._usual: dict[int, object] = {}

    def arm(self) -> None:
        """Take a signal from now on; before there is anything to save it acts as usual."""
        if (
            not self._usual
            and not self.signal
            and threading.current_thread() is threading.main_thread()
        ):
            self._usual = {number: signal.signal(number, self._note) for number in _SIGNALS}

    def disarm(self) -> None:
        """Leave the signals to whoever had them."""
        for number, handler in self._usual.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._usual = {}

    def leave(self) -> NoReturn:
        """End the process as its signal would have: KeyboardInterrupt, or exit status 143."""
        if self.signal == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + (self.signal or signal.SIGTERM))

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.signal = number
        self.disarm()  # so that a second one ends the process at once


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
