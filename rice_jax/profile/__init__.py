"""What a net costs: FLOPs by layer in three conventions, parameters, filters, and time."""

from rice_jax.profile import study
from rice_jax.profile.profiler import Profile, count
from rice_jax.profile.rows import Row, Uncounted
from rice_jax.profile.rules import Flops
from rice_jax.profile.table import CONVENTIONS, summary
from rice_jax.profile.timing import latency, theoretical_seconds

__all__ = [
    "CONVENTIONS",
    "Flops",
    "Profile",
    "Row",
    "Uncounted",
    "count",
    "latency",
    "study",
    "summary",
    "theoretical_seconds",
]
