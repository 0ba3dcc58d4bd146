"""How long JAX has been tracing and compiling, by its own word: no epoch takes that again."""

import functools
import time

import jax

_COMPILING = "/jax/core/compile/"
"""What the names of these events begin with: tracing, lowering, XLA's own compilation."""


class Covered:
    """Seconds that are covered by spans of time, of which some lie within others."""

    def __init__(self) -> None:
        self.seconds = 0.0
        """Of all spans, each moment once."""
        self._apart: list[tuple[float, float]] = []

    def add(self, begin: float, end: float) -> None:
        """One more span; none that was added ended later."""
        while self._apart and self._apart[-1][1] > begin:
            first, last = self._apart.pop()
            begin = min(begin, first)
            self.seconds -= last - first
        self._apart.append((begin, end))
        self.seconds += end - begin


@functools.cache
def _covered() -> Covered:
    """By all that was compiled since the first call, which begins to listen."""
    covered = Covered()

    def note(event: str, duration_secs: float, **_: str | int) -> None:
        if event.startswith(_COMPILING):
            now = time.monotonic()
            covered.add(now - duration_secs, now)

    jax.monitoring.register_event_duration_secs_listener(note)
    return covered


def seconds() -> float:
    """Seconds of this process that went to compiling since this was first asked, which gives 0."""
    return _covered().seconds


def clock() -> float:
    """Seconds of a clock that stands while JAX compiles."""
    return time.monotonic() - seconds()
