"""A run as a page to read: its sections, and report.md of them."""

from rice_jax.records import SummaryFile
from rice_jax.report.page import commands, layers, lightening, overview, pruning, results
from rice_jax.report.page.blocks import Part, Section, Shown, to_markdown
from rice_jax.report.record import Record
from rice_jax.run import Run

__all__ = ["Part", "Section", "Shown", "page", "sections", "to_markdown"]


def page(run: Run, record: Record, summary: SummaryFile) -> str:
    """The page's Markdown; it shows those pictures that are in the run's folder."""
    return to_markdown(sections(run, record, summary))


def sections(run: Run, record: Record, summary: SummaryFile) -> list[Section]:
    """What any page of the run tells, in order."""
    return [
        overview.opening(record, summary),
        overview.headline(record, summary),
        pruning.pruning(run, record),
        lightening.lightening(run, record),
        overview.data(run, record),
        results.training(run, record, summary),
        *results.evaluation(run, record),
        layers.compute(run, record),
        layers.dead_filters(run, record),
        layers.feature_maps(run, record),
        commands.how_to_go_on(run, record),
        overview.provenance(record),
    ]
