"""Configurations: every field's default, meaning and bounds; to JSON and back.

The defaults are the study's recipe. A net's own fields, `config.model`, are in nets.py.
"""

from rice_jax.config.checks import NO_PART_IN, check, flat, idle, same
from rice_jax.config.defaults import FIELDS, default, fields, set_epochs, split_seed
from rice_jax.config.stored import completed, filled, from_json, mistake, read, to_json

__all__ = [
    "FIELDS",
    "NO_PART_IN",
    "check",
    "completed",
    "default",
    "fields",
    "filled",
    "flat",
    "from_json",
    "idle",
    "mistake",
    "read",
    "same",
    "set_epochs",
    "split_seed",
    "to_json",
]
