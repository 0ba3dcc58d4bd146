"""What libraries in C++ say on standard error, past Python: kept back, to be read or dropped."""

import contextlib
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator

from rice_jax.bar import told_to


@contextlib.contextmanager
def stderr_kept_back() -> Iterator[Callable[[], str]]:
    """Yields a function that gives, also afterwards, what was said meanwhile.

    How far a task is, is told all the same.
    """
    with tempfile.TemporaryFile() as file:
        said = ""

        def read() -> str:
            return said

        sys.stderr.flush()
        usual = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            with _bars_told_to(usual):
                yield read
        finally:
            os.dup2(usual, 2)
            os.close(usual)
            file.seek(0)
            said = file.read().decode(errors="replace")


@contextlib.contextmanager
def _bars_told_to(number: int) -> Iterator[None]:
    """Where standard error is what has been kept back, and not what a notebook has in its place."""
    try:
        kept_back = sys.stderr.fileno() == 2
    except (OSError, AttributeError):  # it is no file
        kept_back = False
    if not kept_back:
        yield
        return
    encoding = sys.stderr.encoding
    with os.fdopen(number, "w", encoding=encoding, closefd=False) as stream, told_to(stream):
        yield


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without a library's own bars, hints and warnings."""
    with warnings.catch_warnings(), stderr_kept_back():
        warnings.simplefilter("ignore")
        yield
