"""The study's figures, drawn again: by net, and against what a net costs."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rice_jax.report import numbers, scales, style
from rice_jax.report.comparison.choice import ACCURACY, devices, front
from rice_jax.report.comparison.compared import NetRuns, Spread
from rice_jax.report.comparison.measures import MEASURES
from rice_jax.report.placement import label_points

WITHOUT_FINAL = "_without_final"
"""End of the names of figures that leave the final net out."""

_ROW = 0.5
_LABEL = 1.7  # inches for a net's label


@dataclasses.dataclass(frozen=True)
class Picture:
    """A figure with its name as a file and what it shows."""

    name: str
    caption: str
    figure: Figure


@dataclasses.dataclass(frozen=True)
class _Axis:
    """What a scatter plot has across, on a log axis."""

    name: str
    measure: str
    title: str
    label: str
    form: Callable[[float | None], str]


def _short(number: float | None) -> str:
    return numbers.short(number, 3)


_AXES = (
    _Axis("flops", "flops_study", "Accuracy and FLOPs", "FLOPs for one image (study)", _short),
    _Axis(
        "bits",
        "bit_operations",
        "Accuracy and bit operations",
        "bit operations for one image",
        _short,
    ),
    _Axis("filters", "filters", "Accuracy and filters", "filters", _short),
    _Axis("parameters", "params", "Accuracy and parameters", "parameters", _short),
    _Axis(
        "latency",
        "latency_seconds",
        "Accuracy and latency",
        "latency of one image, measured",
        numbers.seconds,
    ),
)


def pictures(nets: Sequence[NetRuns], *, synthetic: bool) -> Iterator[Picture]:
    """Each figure over `nets`, and then, where the final net is drawn beside others, without it."""
    yield from _pictures(nets, "", synthetic)
    if any(net.is_final and net.mean(ACCURACY) is not None for net in nets):
        others = [net for net in nets if not net.is_final]
        yield from _pictures(others, WITHOUT_FINAL, synthetic)


def _pictures(nets: Sequence[NetRuns], suffix: str, synthetic: bool) -> Iterator[Picture]:
    without = " without the final net" if suffix else ""
    with_accuracy = [net for net in nets if net.mean(ACCURACY) is not None]
    if with_accuracy:
        title = f"Accuracy and F1 by net{without}"
        figure = accuracy_and_f1(with_accuracy, title=title, synthetic=synthetic)
        yield Picture(f"accuracy_f1{suffix}", title, figure)
    for axis in _AXES:
        chosen = [net for net in with_accuracy if (net.mean(axis.measure) or 0) > 0]
        comparable = _comparable(axis, nets)
        if chosen and comparable:
            title = axis.title + without
            figure = scatter(chosen, axis, title=title, synthetic=synthetic)
            yield Picture(f"{axis.name}_accuracy{suffix}", title, figure)
    chosen = [net for net in nets if (net.mean("accuracy_per_tflop") or 0) > 0]
    if chosen:
        title = f"Accuracy per TFLOP{without}"
        figure = accuracy_per_tflop(chosen, title=title, synthetic=synthetic)
        yield Picture(f"accuracy_per_tflop{suffix}", title, figure)


def _comparable(axis: _Axis, nets: Sequence[NetRuns]) -> bool:
    """Whether the axis says something: bits of one precision would be the FLOPs once more."""
    if axis.measure == "bit_operations":
        return len({entry.summary.precision for net in nets for entry in net.entries}) > 1
    return axis.measure != "latency_seconds" or len(devices(nets)) == 1


@style.styled
def accuracy_and_f1(nets: Sequence[NetRuns], *, title: str, synthetic: bool = False) -> Figure:
    """Accuracy and macro F1 on augmented images, a row for each net, the study's beside them."""
    figure, axes = _rows(nets, ACCURACY, title, synthetic)
    for place, net in enumerate(nets):
        for measure, offset, look in (
            (ACCURACY, -0.16, {"marker": "o", "mfc": style.BLUE, "color": style.BLUE}),
            ("augmented_f1", 0.16, {"marker": "^", "mfc": "white", "color": style.VERMILION}),
        ):
            spread = net.spread(measure)
            if spread is not None:
                name = "accuracy" if measure == ACCURACY else "macro F1"
                _dot(axes, spread, place + offset, 100.0, name, look)
            reported = MEASURES[measure].reported(net.summary)
            if reported is not None:
                _study_dot(axes, 100 * reported, place + offset)
        accuracy, f1 = net.mean(ACCURACY), net.mean("augmented_f1")
        text = f"{numbers.percent(accuracy, 1)}\n{numbers.percent(f1, 1)}"
        _beside(axes, place, text)
    axes.set_xlabel("accuracy and macro F1,\naugmented test images (%)")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.margins(x=0.06)
    style.end_at_100(axes, across=True)
    _legend(figure, axes)
    return figure


@style.styled
def accuracy_per_tflop(nets: Sequence[NetRuns], *, title: str, synthetic: bool = False) -> Figure:
    """Points of augmented accuracy for each TFLOP that 7,500 images take, on a log axis."""
    nets = sorted(nets, key=lambda net: -(net.mean("accuracy_per_tflop") or 0))
    figure, axes = _rows(nets, "accuracy_per_tflop", title, synthetic)
    look = {"marker": "o", "mfc": style.BLUE, "color": style.BLUE}
    for place, net in enumerate(nets):
        spread = net.spread("accuracy_per_tflop")
        assert spread is not None
        _dot(axes, spread, place, 1.0, "this comparison", look)
        _beside(axes, place, numbers.short(spread.mean, 3))
        accuracy = MEASURES[ACCURACY].reported(net.summary)
        total = MEASURES["tflops_7500"]
        tflops = total.correct(net.summary) or total.reported(net.summary)
        if accuracy is not None and tflops:
            _study_dot(axes, 100 * accuracy / tflops, place)
    scales.log_axis(axes, _short)
    axes.set_xlabel("accuracy (%) per TFLOP\nthat 7,500 augmented images take (log axis)")
    _legend(figure, axes)
    return figure


def _rows(
    nets: Sequence[NetRuns], measure: str, title: str, synthetic: bool
) -> tuple[Figure, Axes]:
    height = _ROW * len(nets) + 0.9
    figure = style.canvas(style.WIDTH, height, title, legend_rows=1, synthetic=synthetic)
    axes = figure.subplots()
    names = [_name(net, measure) for net in nets]
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    return figure, axes


def _name(net: NetRuns, measure: str) -> str:
    """A net's label, with ≥ or ≤ after it where what is drawn is only a bound."""
    sign = MEASURES[measure].incomplete
    mark = f" ({sign})" if sign and not net.complete else ""
    room = _LABEL - style.width_of(mark, style.SMALL) if mark else _LABEL
    return style.fit(style.drawable(net.label), room, style.SMALL) + mark


def _dot(
    axes: Axes, spread: Spread, y: float, scale: float, name: str, look: dict[str, Any]
) -> None:
    error = scale * (spread.deviation or 0.0)
    axes.errorbar(
        scale * spread.mean,
        y,
        xerr=error or None,
        ls="",
        capsize=3,
        elinewidth=1.4,
        ms=7,
        label=_once(axes, name),
        **look,
    )


def _study_dot(axes: Axes, x: float, y: float) -> None:
    label = _once(axes, "the study")
    axes.plot(x, y, "s", ms=7, mfc="none", mec=style.INK, mew=1, label=label, zorder=1.5)


def _once(axes: Axes, name: str) -> str | None:
    """The name for the legend, only for the first artist that has it."""
    return None if name in axes.get_legend_handles_labels()[1] else name


def _beside(axes: Axes, place: float, text: str) -> None:
    axes.text(
        1.04,
        place,
        text,
        transform=axes.get_yaxis_transform(),
        va="center",
        size=style.SMALL,
        linespacing=1.25,
    )


def _legend(figure: Figure, axes: Axes) -> None:
    style.legend_above(figure, axes, columns=4)


@style.styled
def scatter(nets: Sequence[NetRuns], axis: _Axis, *, title: str, synthetic: bool = False) -> Figure:
    """Augmented accuracy against what `axis` measures, on a log axis; the front is marked."""
    figure = style.canvas(style.WIDTH, 4.6, title, legend_rows=1, synthetic=synthetic)
    axes = figure.subplots()
    points = [(net.mean(axis.measure) or 0.0, 100 * (net.mean(ACCURACY) or 0.0)) for net in nets]
    # A net whose cost is only a bound beats none.
    sure = [net.complete or not MEASURES[axis.measure].incomplete for net in nets]
    best = front([(x if known else np.inf, -y) for (x, y), known in zip(points, sure, strict=True)])
    on_front = [on and known for on, known in zip(best, sure, strict=True)]
    stairs = _stairs([point for point, on in zip(points, on_front, strict=True) if on])
    if stairs:
        axes.plot(*zip(*stairs, strict=True), "--", color=style.GREY, lw=1, zorder=1, label=None)
    lines = [stairs]
    for net, (x, y), on in zip(nets, points, on_front, strict=True):
        name = "on the Pareto front" if on else "off it"
        fill = style.BLUE if on else "white"
        spread = net.spread(ACCURACY)
        error = 100 * ((spread and spread.deviation) or 0.0)
        axes.errorbar(
            x,
            y,
            yerr=error or None,
            marker="o",
            mfc=fill,
            mew=1.4,
            color=style.BLUE,
            ms=8,
            capsize=3,
            elinewidth=1.2,
            ls="",
            label=_once(axes, name),
            zorder=3,
        )
        lines.append([(x, y - error), (x, y + error)])
    # The study measured no latency: its nets have no place across there.
    studied = [] if axis.name in ("latency", "bits") else _study_points(axes, nets, points)
    lines += [[point, theirs] for point, theirs in studied]
    scales.log_axis(axes, axis.form)
    axes.set_xlabel(f"{axis.label} (log axis)")
    axes.set_ylabel("accuracy, augmented test images (%)")
    axes.margins(x=0.16, y=0.12)
    style.end_at_100(axes)
    _legend(figure, axes)
    figure.draw_without_rendering()  # settles the layout
    labels = [_name(net, axis.measure) for net in nets]
    label_points(axes, points, labels, avoid=[theirs for _, theirs in studied], lines=lines)
    return figure


def _study_points(
    axes: Axes, nets: Sequence[NetRuns], points: Sequence[tuple[float, float]]
) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """The study's accuracy above or below each net's point, with a line to it; both ends."""
    found = []
    for net, (x, y) in zip(nets, points, strict=True):
        reported = MEASURES[ACCURACY].reported(net.summary)
        if reported is not None:
            _study_dot(axes, x, 100 * reported)
            axes.plot((x, x), (y, 100 * reported), color=style.GREY, lw=0.8, ls=":", zorder=1)
            found.append(((x, y), (x, 100 * reported)))
    return found


def _stairs(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The border of what the front's points beat, from the cheapest to the best."""
    corners: list[tuple[float, float]] = []
    for x, y in sorted(points):
        if corners:
            corners.append((x, corners[-1][1]))
        corners.append((x, y))
    return corners
