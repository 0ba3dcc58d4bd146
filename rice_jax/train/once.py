"""Compilation of what runs once: quick to compile rather than quick to run."""

from collections.abc import Callable
from typing import Any

import jax

_HASTY = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def jit(function: Callable[..., Any]) -> Callable[..., Any]:
    """`jax.jit`; on a CPU with LLVM's optimisations off, which take most of the time to compile."""
    hasty = jax.default_backend() == "cpu"
    return jax.jit(function, compiler_options=_HASTY if hasty else None)
