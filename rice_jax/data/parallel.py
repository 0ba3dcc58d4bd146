"""Work done ahead in threads, handed over in order."""

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import grain
from tqdm import tqdm

T = TypeVar("T")

_TELL_SECONDS = 30


def cores() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_order(
    function: Callable[[int], T], indices: Sequence[int] | range, *, workers: int = 0, ahead: int
) -> Iterator[T]:
    """function(i) of each index, in order, at most `ahead` of them done before they are asked for.

    `workers` threads; 0 for one a core. An exception in `function` is raised here.
    """
    threads = grain.ReadOptions(num_threads=workers or cores(), prefetch_buffer_size=ahead)
    yield from grain.MapDataset.source(indices).map(function).to_iter_dataset(threads)


def progress(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    """The same items under a progress bar on standard error; in a log, a line each half minute."""
    if sys.stderr.isatty():
        yield from tqdm(items, total=total, desc=what, unit=" images", leave=False)
        return
    told = time.monotonic()
    for count, item in enumerate(items):
        if time.monotonic() - told > _TELL_SECONDS:
            told = time.monotonic()
            print(f"{what}: {count} of {total} images", file=sys.stderr, flush=True)
        yield item
