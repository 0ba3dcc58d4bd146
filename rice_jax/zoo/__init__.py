"""What comes with the package: trained nets with their cards, and a sample of photographs.

Cards are told without JAX; a net is loaded with it.
"""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rice_jax.zoo.cards import PREFIX, card, names
from rice_jax.zoo.table import lines, rows

if TYPE_CHECKING:
    from rice_jax.zoo.catalogue import Entry, load, save

SAMPLE = Path(__file__).parent / "sample" / "rice_sample.zip"
"""1,000 photographs of the Kaggle data set; no net of the zoo was trained on any of them."""

__all__ = ["PREFIX", "SAMPLE", "Entry", "card", "lines", "load", "names", "rows", "save"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'rice_jax.zoo' has no attribute {name!r}")
    return getattr(importlib.import_module("rice_jax.zoo.catalogue"), name)
