"""Work done ahead in threads, handed over in order."""

import collections
import concurrent.futures
import os
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from rice_jax.bar import Bar

S = TypeVar("S")
T = TypeVar("T")

_MOST_THREADS = 16  # beyond that Python's lock, not the decoding, sets the pace


def threads() -> int:
    """How many threads pay on this machine: one a core that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return min(_MOST_THREADS, len(os.sched_getaffinity(0)))
    return min(_MOST_THREADS, os.cpu_count() or 1)


def in_order(
    function: Callable[[S], T], items: Iterable[S], *, workers: int = 0, ahead: int
) -> Iterator[T]:
    """function(item) of each item, in order, at most `ahead` of them before they are asked for.

    `workers` threads; 0 for `threads()`. An exception in `function` is raised here. Closing the
    iterator ends the threads.
    """
    with concurrent.futures.ThreadPoolExecutor(workers or threads()) as pool:
        waiting: collections.deque[concurrent.futures.Future[T]] = collections.deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def progress(items: Iterable[T], total: int, what: str, done: int = 0) -> Iterator[T]:
    """The same items, each an image, told of by a `Bar`; `done` of the total are behind us."""
    bar = Bar(what, total, done)
    try:
        for item in items:
            yield item
            bar.advance(1)
    finally:
        bar.close()
