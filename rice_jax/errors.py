"""The one exception that a user can cause and read, and the system's words on one line."""

import re
import sys
from collections.abc import Iterator

_STEERING = re.compile("[\0-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, those that turn the direction of writing, and bytes that are no text."""


class UserError(Exception):
    """Something the user can mend: its text says what is wrong, where, and what to do.

    Commands print it as one line and end with exit status 1, without a traceback.
    """


class NotFiniteError(UserError):
    """A loss became infinite or no number: the net is lost, and nothing else is wrong."""


def reason(error: Exception) -> str:
    """What went wrong, in the system's words and on one line."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__


def line(error: Exception) -> str:
    """What went wrong, on one line; of what the system refuses (space, permission) also where."""
    file = error.filename if isinstance(error, OSError) else None
    return f"{file}: {reason(error)}" if file else reason(error)


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what it followed from, the latest first."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def of_an_interrupt(error: BaseException) -> bool:
    """Whether an error followed from a Ctrl-C, which a library told in words of its own."""
    return any(isinstance(each, KeyboardInterrupt) for each in causes(error))


def tell(message: object) -> None:
    """Print an error as one line on standard error, without what would steer a terminal."""
    print(f"error: {harmless(' '.join(str(message).split()))}", file=sys.stderr)


def harmless(text: str) -> str:
    """A text without what would steer a terminal, which is written as Python writes it."""
    return _STEERING.sub(lambda found: ascii(found[0])[1:-1], text)
