"""How far a long task is: a bar on a terminal, lines in a log, also while nothing moves."""

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any, TextIO

from tqdm import tqdm

_OFTEN, _SELDOM = 4.0, 30.0
"""Seconds between two lines of a log: a tenth of what the task has taken so far, within these."""
_SHORT = 1.0
"""Seconds that a task takes at least, to be told of."""
_LOOK_SECONDS = 0.5


class _Silence:
    """Since when a log has no new line, whichever task the last one was of."""

    since: float | None = None
    """None before the first task."""


_silence = _Silence()


class _Place:
    """Where it is told: standard error, or what stands for it while others are kept off that."""

    def __init__(self) -> None:
        self.instead: TextIO | None = None
        self.lock = threading.RLock()
        """Held while something is told: no thread then writes to what has just been closed."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.instead or sys.stderr, name)


_place = _Place()


@contextlib.contextmanager
def told_to(stream: TextIO) -> Iterator[None]:
    """Tell on `stream` meanwhile, on which bars that are there already go on."""
    with _place.lock:
        before, _place.instead = _place.instead, stream
    try:
        yield
    finally:
        with _place.lock:
            stream.flush()
            _place.instead = before


class Bar:
    """Tells on standard error; results have standard output to themselves.

    A thread of its own tells while the task's are busy, as in a long compilation. `close`, or the
    end of a `with`, ends it. Short tasks after each other are told of as one long one would be.
    """

    def __init__(self, task: str, images: int | None = None, done: int = 0) -> None:
        """A task of `images` images, `done` of them behind us; None where nothing is counted."""
        self._task, self._images, self._done = task, images, done
        self._said, self._told_of = "", done
        self._begun = time.monotonic()
        if _silence.since is None:
            _silence.since = self._begun
        self._bar: tqdm | None = None
        if _place.isatty():
            form = "{desc}: {elapsed}" if images is None else None
            self._bar = tqdm(
                total=images,
                initial=done,
                desc=task,
                unit=" images",
                leave=False,
                delay=0.5,
                bar_format=form,
                file=_place,
            )
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def __enter__(self) -> "Bar":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def advance(self, images: int, said: str = "") -> None:
        """Count `images` images more; `said` stands behind their number."""
        with _place.lock:
            self._done += images
            self._said = said
            if self._bar is not None:
                self._bar.set_postfix_str(said, refresh=False)
                self._bar.update(images)
            self._tell()

    def close(self) -> None:
        """Take the bar away."""
        self._ended.set()
        self._thread.join()
        with _place.lock:
            if self._bar is not None:
                self._bar.clear()  # tqdm leaves what was shown by refresh alone
                self._bar.close()
                self._bar = None

    def _watch(self) -> None:
        while not self._ended.wait(_LOOK_SECONDS):
            with _place.lock:
                if self._bar is not None:
                    self._bar.refresh()
                self._tell()

    def _tell(self) -> None:
        """A line in the log, where one is due."""
        now = time.monotonic()
        pause = min(_SELDOM, max(_OFTEN, (now - self._begun) / 10))
        assert _silence.since is not None
        if self._bar is not None or now - self._begun < _SHORT or now - _silence.since < pause:
            return
        _silence.since = now
        seconds = f"{now - self._begun:.0f} s"
        if self._images is None:
            line = f"{self._task}: {seconds}"
        elif self._done == self._told_of:  # else the same line would come again and again
            line = f"{self._task}: {self._done} of {self._images} images, {seconds}"
        else:
            line = f"{self._task}: {self._done} of {self._images} images  {self._said}".rstrip()
        self._told_of = self._done
        print(line, file=_place, flush=True)
