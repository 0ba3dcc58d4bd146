"""How a net is traced: as usual, by XLA's own operations, to learn, or for inference alone.

A function that `jax.jit` has traced before stays as it was traced: switch inside it.
"""

import contextlib
import contextvars
import enum
from collections.abc import Iterator


class Mode(enum.Enum):
    """What `max_pool`, `relu`, `conv_general_dilated` and layers that can be joined become."""

    USUAL = enum.auto()
    PLAIN = enum.auto()
    TRAINING = enum.auto()
    INFERENCE = enum.auto()


_mode: contextvars.ContextVar[Mode] = contextvars.ContextVar("rice_jax_mode", default=Mode.USUAL)


@contextlib.contextmanager
def _switched(mode: Mode) -> Iterator[None]:
    token = _mode.set(mode)
    try:
        yield
    finally:
        _mode.reset(token)


def plain() -> contextlib.AbstractContextManager[None]:
    """What is traced within is `lax.conv_general_dilated` and `lax.reduce_window`, unchanged.

    For counting the operations of a net as it is written, and for measuring what this room gains.
    """
    return _switched(Mode.PLAIN)


def training() -> contextlib.AbstractContextManager[None]:
    """What is traced within is run, not counted: layers that read one map may become one."""
    return _switched(Mode.TRAINING)


def inference() -> contextlib.AbstractContextManager[None]:
    """As `training`, without a gradient: all max pools that fit become slices on CPU too.

    They are two to four times as fast as `lax.reduce_window`, with the same values, but XLA counts
    operations in float32 sums, and its count of a net would stray by 1e-6.
    """
    return _switched(Mode.INFERENCE)


def is_run() -> bool:
    """Whether what is traced is run; else it is looked at layer by layer, as it is written."""
    return mode() in (Mode.TRAINING, Mode.INFERENCE)


def mode() -> Mode:
    """What is in force."""
    return _mode.get()
