"""Figures and pages out of the JSON that the stages wrote; the only importer of matplotlib."""

from rice_jax.report.writing import is_current, write

__all__ = ["is_current", "write"]
