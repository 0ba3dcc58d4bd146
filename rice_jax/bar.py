"""How far a task is: a bar on a terminal, a line each half minute in a log."""

import sys
import time

from tqdm import tqdm

_TELL_SECONDS = 30


class Bar:
    """Tells on standard error; results have standard output to themselves."""

    def __init__(self, task: str, images: int, done: int = 0) -> None:
        """A task of `images` images, `done` of them behind us."""
        self._task, self._images, self._done = task, images, done
        self._told = time.monotonic()
        self._bar: tqdm | None = None
        if sys.stderr.isatty():
            self._bar = tqdm(
                total=images, initial=done, desc=task, unit=" images", leave=False, delay=0.5
            )

    def advance(self, images: int, said: str = "") -> None:
        """Count `images` images more; `said` stands behind their number."""
        self._done += images
        if self._bar is not None:
            self._bar.set_postfix_str(said, refresh=False)
            self._bar.update(images)
        elif (now := time.monotonic()) - self._told > _TELL_SECONDS:
            self._told = now
            line = f"{self._task}: {self._done} of {self._images} images  {said}".rstrip()
            print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
