"""report.md: a run as a page to read."""

from collections.abc import Mapping
from typing import Any

from rice_jax.report.page import layers, overview, pruning, results
from rice_jax.report.record import Record
from rice_jax.run import Run


def page(run: Run, record: Record, summary: Mapping[str, Any]) -> str:
    """The page's Markdown; it shows those pictures that are in the run's folder."""
    sections = (
        overview.opening(record, summary),
        overview.headline(summary),
        pruning.pruning(run, record),
        overview.data(run, record),
        results.training(run, record, summary),
        results.evaluation(run, record),
        layers.compute(run, record),
        layers.dead_filters(run, record),
        layers.feature_maps(run, record),
        overview.how_to_go_on(run, record),
        overview.provenance(record),
    )
    return "\n\n".join(section for section in sections if section) + "\n"
