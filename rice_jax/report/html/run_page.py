"""report.html: a run as one page, which is watched while the run goes on."""

from markupsafe import Markup

from rice_jax import records
from rice_jax.records import FeatureMapsFile
from rice_jax.report.html import rendering, tables
from rice_jax.report.html.curves import curves
from rice_jax.report.html.rendering import picture, prose
from rice_jax.report.html.viewer import viewer
from rice_jax.report.page import Section, Shown, sections
from rice_jax.report.record import PARTS, Record
from rice_jax.run import Run

MOST_PICTURES = 4 << 20
"""Bytes of all pictures that are files of the run; what is beyond is named instead."""


def run_page(run: Run, record: Record, summary: records.SummaryFile, doing: str = "") -> str:
    """The page: what report.md tells, with tables and a viewer in the place of its pictures.

    It has at most 12 MB: sprites 5, kernels 1.4, pictures 5.4, and text.

    Args:
        run: its folder, of which pictures and feature_maps.json are read.
        record: what the stages left.
        summary: its headline figures.
        doing: the stage under way; '' for a run that is at rest.

    Raises:
        UserError: feature_maps.json is damaged.
    """
    content = sections(run, record, summary)
    blocks = _blocks(run, record) | _pictures(run, content)
    return rendering.page(
        record.model,
        content,
        blocks,
        narrow=_narrow(record),
        scripts=["maps.js", "viewer.js"],
        doing=doing,
    )


def _narrow(record: Record) -> set[str]:
    most = max((len(result.per_class) for result in record.results.values()), default=0)
    matrices = {f"confusion_matrix_{part}.png" for part in PARTS}
    return {"classes.png"} | (matrices if most < tables.SMALL else set())


def _blocks(run: Run, record: Record) -> dict[str, Markup]:
    """What the page has of its own, by the name of what it stands for."""
    blocks = {"curves.png": curves(record.history)}
    for part, result in record.results.items():
        blocks[f"confusion_matrix_{part}.png"] = tables.matrix(result, part)
    if record.profile is not None:
        blocks["layers"] = tables.layers(record.profile)
    if record.dead_filters is not None:
        blocks["dead_filters"] = tables.dead_filters(record.dead_filters)
    blocks["feature_maps"] = (
        viewer(records.read(run, FeatureMapsFile), record)
        if run.has(FeatureMapsFile.FILE)
        else prose("They are pictures in the run's folder; `--stages=inspect` makes a viewer.")
    )
    return blocks


def _pictures(run: Run, content: list[Section]) -> dict[str, Markup]:
    """The pictures that are files of the run, as many as there is room for."""
    left, found = MOST_PICTURES, {}
    names = [part.name for section in content for part in section if isinstance(part, Shown)]
    for name in names:
        if name in _DRAWN_HERE or not name.endswith(".png") or not run.has(name):
            continue
        image = run.read_bytes(name)
        left -= len(image)
        found[name] = (
            picture(name.removesuffix(".png"), image)
            if left >= 0
            else prose(f"`{name}` is beside this page.")
        )
    return found


_DRAWN_HERE = {"curves.png", *(f"confusion_matrix_{part}.png" for part in PARTS)}
