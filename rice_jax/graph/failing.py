"""What is said of a net's own code that fails as it is called: where, and why, on one line."""

import contextlib
import os
import sysconfig
import textwrap
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

from flax.errors import FlaxError

from rice_jax.errors import UserError, reason

_NOT_THEIRS = (
    os.fspath(Path(__file__).parents[1]),
    *(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")),
)
"""Where code is that the user has not written."""

_LONGEST = 400
"""Letters of what a library says of an error."""

_OF_SHAPES = (TypeError, ValueError, ArithmeticError, IndexError, AssertionError, FlaxError)
"""What code raises that is given an array of another shape than it is written for."""


def where_and_why(error: Exception) -> str:
    """'net.py, line 3: TypeError: ...', the last place in code that the user may have written."""
    why = textwrap.shorten(reason(error), _LONGEST)
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [each for each in frames if not each.filename.startswith(("<", *_NOT_THEIRS))]
    place = f"{os.path.relpath(theirs[-1].filename)}, line {theirs[-1].lineno}: " if theirs else ""
    return f"{place}{type(error).__name__}: {why}"


@contextlib.contextmanager
def taking(name: str, shape: Sequence[int]) -> Iterator[None]:
    """UserError where the net of that name fails on an input of a shape that the user gave.

    Not where it fails otherwise, as by a `KeyError` of its own.
    """
    try:
        yield
    except _OF_SHAPES as error:
        raise UserError(
            f"{name} does not run on an input of shape {tuple(shape)}, {where_and_why(error)}"
        ) from error
