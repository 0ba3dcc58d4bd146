"""Takes filters out of a net for real, and proves what that cost."""

from rice_jax.graph.narrowed import Narrowed
from rice_jax.prune.allocation import ALLOCATIONS
from rice_jax.prune.certificate import Certificate, certify
from rice_jax.prune.dependencies import Dependencies, dependencies
from rice_jax.prune.importance import CRITERIA
from rice_jax.prune.pruner import Pruned, prune
from rice_jax.prune.shapes import hold_shapes
from rice_jax.prune.tally import totals

__all__ = [
    "ALLOCATIONS",
    "CRITERIA",
    "Certificate",
    "Dependencies",
    "Narrowed",
    "Pruned",
    "certify",
    "dependencies",
    "hold_shapes",
    "prune",
    "totals",
]
