"""What a person sees of a training: a line after each epoch, and how far the one under way is."""

import contextlib
from collections.abc import Iterator

import jax

from rice_jax.bar import Bar
from rice_jax.records import EpochRow


class Display:
    """Speaks for the first process; the others are silent."""

    def __init__(self, epochs: int) -> None:
        self._epochs = epochs
        self._speaks = jax.process_index() == 0
        self._bar: Bar | None = None

    @contextlib.contextmanager
    def during(self, task: str) -> Iterator[None]:
        """Tell of a task that is not of images."""
        self.begin(task)
        try:
            yield
        finally:
            self.end()

    def begin(self, task: str, images: int | None = None, done: int = 0) -> None:
        """Start to tell of a task of `images` images, `done` of them behind us."""
        self.end()
        if self._speaks:
            self._bar = Bar(task, images, done)

    def advance(self, images: int, loss: float | None = None) -> None:
        """Count `images` images more; `loss` is the mean over the epoch so far."""
        if self._bar is not None:
            self._bar.advance(images, "" if loss is None else f"loss {loss:.4f}")

    def end(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def epoch(self, row: EpochRow, seconds_left: float) -> None:
        """Say what a finished epoch came to, and how long the rest takes at most."""
        self.say(
            f"epoch {row.epoch:>3}/{self._epochs}"
            f"  loss {row.train_loss:.4f}  accuracy {row.train_accuracy:.4f}"
            f"  val_loss {row.val_loss:.4f}  val_accuracy {row.val_accuracy:.4f}"
            f"  rate {row.learning_rate:.2g}"
            f"  {row.images_per_second:.0f} images/s  {row.seconds:.1f} s{_parts(row)}"
            f"  at most {_duration(seconds_left)} left"
        )

    def say(self, text: str) -> None:
        """Print a line."""
        self.end()
        if self._speaks:
            print(text, flush=True)


def _parts(row: EpochRow) -> str:
    """Where the epoch's time went, the largest part first; nothing below a hundredth."""
    spent = row.spent()
    whole = sum(spent.values())
    shares = sorted(((seconds, part) for part, seconds in spent.items()), reverse=True)
    told = [f"{part} {s / whole:.0%}" for s, part in shares if s > 0.01 * whole]
    return f" ({', '.join(told)})" if told else ""


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 100 else f"{minutes / 60:.1f} h"
