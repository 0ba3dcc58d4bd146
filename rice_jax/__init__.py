"""rice_jax: where a CNN's compute goes, which filters do nothing, and what removing them costs.

The libraries are imported on first use, as `rice_jax.profile.count`: importing the package alone
loads neither JAX nor anything else.
"""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rice_jax import (
        config,
        data,
        evaluate,
        export,
        inspection,
        models,
        ops,
        profile,
        prune,
        train,
        zoo,
    )

__version__ = "0.1.0"

__all__ = [
    "config",
    "data",
    "evaluate",
    "export",
    "inspection",
    "models",
    "ops",
    "profile",
    "prune",
    "train",
    "zoo",
]


def __getattr__(name: str) -> ModuleType:
    if name not in __all__:
        raise AttributeError(f"module 'rice_jax' has no attribute {name!r}")
    return importlib.import_module(f"rice_jax.{name}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
