"""What libraries in C++ say on standard error, past Python: kept back, to be read or dropped."""

import contextlib
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def stderr_kept_back() -> Iterator[Callable[[], str]]:
    """Yields a function that gives, also afterwards, what was said meanwhile."""
    with tempfile.TemporaryFile() as file:
        said = ""

        def read() -> str:
            return said

        sys.stderr.flush()
        usual = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield read
        finally:
            os.dup2(usual, 2)
            os.close(usual)
            file.seek(0)
            said = file.read().decode(errors="replace")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without a library's own bars, hints and warnings."""
    with warnings.catch_warnings(), stderr_kept_back():
        warnings.simplefilter("ignore")
        yield
