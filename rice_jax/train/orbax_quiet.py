"""What Orbax, asyncio and TensorStore say of a failure that an exception tells already."""

import asyncio
import functools
import inspect
import sys
import warnings
from logging import LogRecord, getLogger
from typing import Any

from absl import logging


def keep_orbax_quiet() -> None:
    """Let its failures be told once, by the exception.

    It logs a traceback of each as well, asyncio one of each further write that failed, Python warns
    of each task that was not begun, of a read that was given up when another had failed, and of an
    event loop that could not be made whole, and TensorStore complains to one closed by then.
    """
    logging.get_absl_logger().addFilter(_not_from_orbax)
    getLogger("asyncio").addFilter(_not_of_a_forgotten_task)
    warnings.filterwarnings("ignore", "coroutine '.*' was never awaited", RuntimeWarning)
    forget_lost_reads()


def _not_from_orbax(record: LogRecord) -> bool:
    return "orbax" not in record.pathname


def _not_of_a_forgotten_task(record: LogRecord) -> bool:
    return "exception was never retrieved" not in record.getMessage()


@functools.cache
def forget_lost_reads() -> None:
    """Have Python pass over what reads that were given up leave, once for a process."""
    usual = sys.unraisablehook

    def unless_of_a_read(unraisable: Any) -> None:
        closed = str(unraisable.exc_value) == "Event loop is closed"
        loop = unraisable.object is asyncio.BaseEventLoop.__del__
        read = inspect.iscoroutine(unraisable.object) and (
            "orbax" in unraisable.object.cr_code.co_filename
        )
        if not (closed or loop or read):
            usual(unraisable)

    sys.unraisablehook = unless_of_a_read
