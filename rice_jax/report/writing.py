"""From what the stages left to summary.json, the figures, report.md and report.html."""

from collections.abc import Iterator

from matplotlib.figure import Figure

from rice_jax import records
from rice_jax.errors import UserError
from rice_jax.report import figures, numbers
from rice_jax.report.html.run_page import run_page
from rice_jax.report.page import page
from rice_jax.report.record import TOLD, Record, load, summarize
from rice_jax.report.saving import save
from rice_jax.run import Run

_PAGE = "report.html"
_LAST = "report.md"
"""What is written last."""


def write(run: Run) -> None:
    """Write summary.json, the figures of what has been done so far, report.md and report.html.

    Raises:
        UserError: the folder has no config.json, a file in it is damaged, or cannot be written.
    """
    record = load(run)
    summary = summarize(record)
    records.write(run, summary)
    save(run, _figures(record))
    run.write_text(_PAGE, run_page(run, record, summary))
    run.write_text(_LAST, page(run, record, summary))


def is_current(run: Run) -> bool:
    """Whether the report is there whole, later than all that it tells of, and both can be read.

    A killed run has none.
    """
    if not (run.has(_PAGE) and run.has(_LAST)):
        return False
    ended = run.written(_LAST)
    return all(run.written(name) < ended for name in TOLD if run.has(name)) and _agrees(run)


def _agrees(run: Run) -> bool:
    """Whether summary.json says what the other files do, and none of them is damaged."""
    try:
        records.read_if_there(run, records.FeatureMapsFile)
        return records.read(run, records.SummaryFile) == summarize(load(run))
    except UserError:
        return False


def watch(run: Run, doing: str) -> None:
    """Write report.html alone, fast, while a stage is under way, or when none is any more ('').

    Raises:
        UserError: as `write`.
    """
    record = load(run)
    content = run_page(run, record, summarize(record), doing)
    try:
        run.write_text(_PAGE, content)
    except UserError:
        if doing:
            raise
        run.remove(_PAGE)  # on a full disk it would say for ever that a stage is under way
        run.write_text(_PAGE, content)


def _figures(record: Record) -> Iterator[tuple[str, Figure]]:
    """File name and figure, one after the other so that one at a time is in memory."""
    model, synthetic = record.model, record.synthetic
    if record.history:
        title = f"{model}: training"
        yield "curves.png", figures.curves(record.history, title=title, synthetic=synthetic)
    place = f"; images of {record.tested_elsewhere}" if record.tested_elsewhere else ""
    for part, result in record.results.items():
        figure = figures.confusion_matrix(
            result.confused(),
            list(result.per_class),
            f"{model}: {part} test images",
            f"{numbers.percent(result.accuracy)} of {numbers.count(result.images)} right{place}",
            synthetic=synthetic,
        )
        yield f"confusion_matrix_{part}.png", figure
    if record.profile:
        title = f"{model}: where the compute goes"
        layers = record.profile.layers
        yield "flops.png", figures.flops(layers, title=title)
        if record.profile.roofline:
            title = f"{model}: what bounds each layer"
            figure = figures.roofline(layers, record.profile.roofline, title=title)
            yield "roofline.png", figure
    if record.dead_filters:
        title = f"{model}: dead filters"
        found = record.dead_filters.layers
        yield "dead_filters.png", figures.dead_filters(found, title=title, synthetic=synthetic)
