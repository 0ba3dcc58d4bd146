"""Work done ahead in threads, handed over in order."""

import collections
import concurrent.futures
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from rice_jax.bar import Bar

S = TypeVar("S")
T = TypeVar("T")

AT_A_TIME = 8
"""Images that a thread reads and checks before it hands them over."""
_MOST_THREADS = 16  # beyond that Python's lock, not the decoding, sets the pace


def threads() -> int:
    """How many threads pay on this machine: one a core that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return min(_MOST_THREADS, len(os.sched_getaffinity(0)))
    return min(_MOST_THREADS, os.cpu_count() or 1)


def in_order(
    function: Callable[[S], T],
    items: Iterable[S],
    *,
    workers: int = 0,
    ahead: int,
    at_a_time: int = 1,
) -> Iterator[T]:
    """function(item) of each item, in order, at most `ahead` of them before they are asked for.

    `workers` threads; 0 for `threads()`. Each takes `at_a_time` items: several where the work is
    short, since at each handing over threads wait for Python's lock. An exception in `function` is
    raised here. Closing the iterator ends the threads.
    """

    def done(batch: Sequence[S]) -> list[T]:
        return [function(item) for item in batch]

    rest = iter(items)
    batches = iter(lambda: list(itertools.islice(rest, at_a_time)), [])
    with concurrent.futures.ThreadPoolExecutor(workers or threads()) as pool:
        waiting: collections.deque[concurrent.futures.Future[list[T]]] = collections.deque()
        try:
            for batch in batches:
                waiting.append(pool.submit(done, batch))
                if len(waiting) * at_a_time > ahead:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
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
