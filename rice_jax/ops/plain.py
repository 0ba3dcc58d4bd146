"""A switch that leaves every operation of this room to XLA."""

import contextlib
import contextvars
from collections.abc import Iterator

_is_plain: contextvars.ContextVar[bool] = contextvars.ContextVar("rice_jax_plain", default=False)


@contextlib.contextmanager
def plain() -> Iterator[None]:
    """What is traced within is `lax.conv_general_dilated` and `lax.reduce_window`, unchanged.

    For counting the operations of a net as it is written, and for measuring what this room gains.
    A function that `jax.jit` has traced before stays as it was traced.
    """
    token = _is_plain.set(True)
    try:
        yield
    finally:
        _is_plain.reset(token)


def is_plain() -> bool:
    """Whether `plain` is in force."""
    return _is_plain.get()
