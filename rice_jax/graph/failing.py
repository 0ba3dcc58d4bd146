"""What is said of a net's own code that fails as it is called: where, and why, on one line."""

import contextlib
import os
import re
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

_OF_ARGUMENTS = re.compile(r"\(\) (missing|got an unexpected keyword)")
"""What Python says where a function is called with other arguments than it takes."""

_OF_SHAPES = (TypeError, ValueError, ArithmeticError, IndexError, AssertionError, FlaxError)
"""What code raises that is given an array of another shape than it is written for."""


def where_and_why(error: Exception) -> str:
    """'net.py, line 3: TypeError: ...', the last place in code that the user may have written."""
    why = textwrap.shorten(reason(error), _LONGEST)
    theirs = _their_code(error)
    place = f"{os.path.relpath(theirs[-1].filename)}, line {theirs[-1].lineno}: " if theirs else ""
    return f"{place}{type(error).__name__}: {why}"


def _their_code(error: Exception) -> list[traceback.FrameSummary]:
    """The places that an error came through in code that the user may have written."""
    frames = traceback.extract_tb(error.__traceback__)
    return [each for each in frames if not each.filename.startswith(("<", *_NOT_THEIRS))]


@contextlib.contextmanager
def taking(name: str, shape: Sequence[int]) -> Iterator[None]:
    """UserError where the net of that name fails on an input of a shape that the user gave.

    Likewise where it takes other arguments than it was given. Not where it fails otherwise, as by
    a `KeyError` of its own.
    """
    try:
        yield
    except _OF_SHAPES as error:
        if _OF_ARGUMENTS.search(str(error)) and not _their_code(error):
            raise UserError(
                f"{reason(error)}: what {name} takes beside images is given by name, as train=False"
            ) from error
        raise UserError(
            f"{name} does not run on an input of shape {tuple(shape)}, {where_and_why(error)}"
        ) from error
