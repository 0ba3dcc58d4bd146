"""How a net is traced: its operations as usual, as XLA's own, or for inference; its layers joined.

A function that `jax.jit` has traced before stays as it was traced: switch inside it.
"""

import contextlib
import contextvars
import enum
from collections.abc import Iterator


class Mode(enum.Enum):
    """What `max_pool`, `relu` and `conv_general_dilated` become."""

    USUAL = enum.auto()
    PLAIN = enum.auto()
    INFERENCE = enum.auto()


_mode: contextvars.ContextVar[Mode] = contextvars.ContextVar("rice_jax_mode", default=Mode.USUAL)
_joins: contextvars.ContextVar[bool] = contextvars.ContextVar("rice_jax_joins", default=False)


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


def inference() -> contextlib.AbstractContextManager[None]:
    """What is traced within is run, not counted: all max pools that fit become slices on CPU.

    They are two to four times as fast as `lax.reduce_window`, with the same values, but XLA counts
    operations in float32 sums, and its count of a net would stray by 1e-6.
    """
    return _switched(Mode.INFERENCE)


@contextlib.contextmanager
def joined() -> Iterator[None]:
    """What is traced within is run, not looked at: layers that read one map may become one.

    They are then missing by their own names: count, look into and prune a net outside.
    """
    token = _joins.set(True)
    try:
        yield
    finally:
        _joins.reset(token)


def joins() -> bool:
    """Whether layers may become one."""
    return _joins.get()


def mode() -> Mode:
    """What is in force."""
    return _mode.get()
