"""The figure of a search for lighter nets: all that were tried, and the front."""

import functools
import itertools
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from rice_jax.records import Candidate
from rice_jax.report import numbers, scales, style
from rice_jax.report.placement import label_points

SEARCHED = "front.png"
"""Its name in the run's folder."""
_DEEP = 0.08
"""Accuracy below what is wanted that the axis still shows."""


@style.styled
def searched(
    candidates: Sequence[Candidate],
    *,
    front: Sequence[str],
    chosen: str | None,
    measure: str,
    floor: float,
    title: str,
    studied: Sequence[tuple[str, float, float]] = (),
    synthetic: bool = False,
) -> Figure:
    """Accuracy on augmented validation images against cost, a point for each candidate.

    Those of the front have their number, from 0 for the run itself in the order of the search, and
    are joined by the border of what they beat.

    Args:
        candidates: the run itself first.
        front: names of those that no other beats.
        chosen: the name of the one that was taken.
        measure: the cost across.
        floor: accuracy that was wanted.
        title: the figure's title.
        studied: nets of the study, to be drawn beside: name, cost, accuracy.
        synthetic: whether the data is.
    """
    lowest = floor - _DEEP
    drawn = [(i, c) for i, c in enumerate(candidates) if c.accuracy >= lowest]
    below = len(candidates) - len(drawn)
    lie = "lies" if below == 1 else "lie"
    note = f"{numbers.counted(len(candidates) - 1, 'net')} tried" + (
        f"; {below} {lie} below" if below else ""
    )
    rows = 2 if studied else 1
    figure = style.canvas(style.WIDTH, 4.4, title, note, legend_rows=rows, synthetic=synthetic)
    axes = figure.subplots()
    place = {c.name: (c.costs[measure], 100 * c.accuracy) for _, c in drawn}
    off = [place[c.name] for _, c in drawn if c.name not in front]
    on = sorted(place[name] for name in front if name in place)
    theirs = [(cost, 100 * accuracy) for _, cost, accuracy in studied]
    axes.axhline(100 * floor, color=style.VERMILION, lw=1, ls=":", label="wanted")
    _marks(axes, off, on, None if chosen is None else place.get(chosen), theirs)
    lacks = measure == "flops" and not all(c.flops_complete for c in candidates)
    _axes(axes, measure, " (≥)" if lacks else "")
    style.legend_above(figure, axes, columns=4)
    figure.draw_without_rendering()  # settles the layout
    named = [(str(i), place[c.name]) for i, c in drawn if c.name in front]
    named += [(name, point) for (name, *_), point in zip(studied, theirs, strict=True)]
    points, labels = [point for _, point in named], [text for text, _ in named]
    label_points(axes, points, labels, avoid=off, lines=[_border(on)])
    return figure


def _marks(
    axes: Any,
    off: Sequence[tuple[float, float]],
    on: Sequence[tuple[float, float]],
    chosen: tuple[float, float] | None,
    studied: Sequence[tuple[float, float]],
) -> None:
    if off:
        axes.plot(*zip(*off, strict=True), "o", mfc="white", mec=style.GREY, label="beaten")
    if on:
        axes.step(*zip(*on, strict=True), where="post", color=style.BLUE, lw=1, alpha=0.6)
        axes.plot(*zip(*on, strict=True), "o", color=style.BLUE, ms=7, label="on the front")
    if chosen:
        ring = {"ms": 13, "mfc": "none", "mec": style.VERMILION, "mew": 1.8}
        axes.plot(*chosen, "o", label="chosen", **ring)
    if studied:
        square = {"ms": 6, "mfc": "none", "mec": style.INK, "mew": 1}
        axes.plot(*zip(*studied, strict=True), "s", label="the study", **square)


def _border(front: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The corners of the line that joins the front: first along, then up."""
    corners = ((end, accuracy) for (_, accuracy), (end, _) in itertools.pairwise(front))
    return [corner for pair in itertools.zip_longest(front, corners) for corner in pair if corner]


def _axes(axes: Any, measure: str, sign: str) -> None:
    named = {
        "flops": "FLOPs (study) of one image",
        "params": "parameters",
        "bytes": "bytes read and written for one image",
        "latency": "latency of one image, measured",
    }
    axes.margins(x=0.1, y=0.12)
    form = numbers.seconds if measure == "latency" else functools.partial(numbers.short, digits=3)
    scales.log_axis(axes, form)
    axes.set_xlabel(f"{named[measure]}{sign} (log axis)")
    axes.set_ylabel("accuracy (%), augmented validation images")
    style.end_at_100(axes)
