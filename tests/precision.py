"""float64 for a while: `jax.enable_x64` is not in the oldest JAX that is supported."""

import contextlib

import jax


@contextlib.contextmanager
def double_precision():
    jax.config.update("jax_enable_x64", True)
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", False)
