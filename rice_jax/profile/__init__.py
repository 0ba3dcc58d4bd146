"""What a net costs: FLOPs by layer in three conventions, parameters, filters, and time."""

from rice_jax.profile import study
from rice_jax.profile.bits import PRECISIONS, Precision
from rice_jax.profile.memory import Memory
from rice_jax.profile.profiler import Profile, count, of_trace
from rice_jax.profile.roofline import Device
from rice_jax.profile.rows import Row, Uncounted
from rice_jax.profile.rules import Flops
from rice_jax.profile.table import CONVENTIONS, summary
from rice_jax.profile.timing import latency, theoretical_seconds
from rice_jax.profile.traffic import Traffic

__all__ = [
    "CONVENTIONS",
    "PRECISIONS",
    "Device",
    "Flops",
    "Memory",
    "Precision",
    "Profile",
    "Row",
    "Traffic",
    "Uncounted",
    "count",
    "latency",
    "of_trace",
    "study",
    "summary",
    "theoretical_seconds",
]
