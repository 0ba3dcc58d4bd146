"""Several runs side by side: tables, figures, the Pareto front, and which net to take."""

from rice_jax.report.comparison.comparing import compare, require_place

__all__ = ["compare", "require_place"]
