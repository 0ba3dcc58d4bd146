"""Compilation of what runs once: quick to compile rather than quick to run."""

from collections.abc import Callable
from typing import Any

import jax

HASTY = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
"""For XLA's CPU compiler: LLVM's optimisations off, which take most of the time to compile.
Convolutions are not slower by it: they are compiled already."""


def jit(function: Callable[..., Any]) -> Callable[..., Any]:
    """`jax.jit`; on a CPU with `HASTY`."""
    hasty = jax.default_backend() == "cpu"
    return jax.jit(function, compiler_options=HASTY if hasty else None)
