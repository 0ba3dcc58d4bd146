"""Loss, accuracy and learning rate by epoch as SVG, drawn small enough to be made anew often."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

from markupsafe import Markup

from rice_jax.records import EpochRow
from rice_jax.report import history as histories
from rice_jax.report import numbers, scales
from rice_jax.report.html.rendering import render

_WIDTH, _HEIGHT = 440, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 428, 10, 222
_MARKED = 60  # epochs up to which each has a mark
_STAR = "M0-9 2.1-2.9 8.6-2.8 3.4 1.1 5.3 7.3 0 3.6-5.3 7.3-3.4 1.1-8.6-2.8-2.1-2.9Z"
_CLASSES = {"learning rate": "pace", "image size": "size"}
"""By what changes, how the style sheet calls its line."""

Read = Callable[[EpochRow], float | None]
"""A column of history.csv."""
_Columns = Mapping[str, tuple[Read, float]]
"""By the name of its line a column, and its factor."""


@dataclasses.dataclass(frozen=True)
class _Line:
    name: str
    stretches: list[str]
    points: list[tuple[float, float, str]]
    radius: float


@dataclasses.dataclass(frozen=True)
class _Panel:
    title: str
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    lines: list[_Line]
    marks: list[tuple[str, float]]
    """Class and place of each line upright."""
    star: tuple[float, float] | None = None


def curves(history: Sequence[EpochRow]) -> Markup:
    """The panels with their legend; nothing for a run without epochs."""
    if not history:
        return Markup()
    best = histories.best_row(history)
    loss: _Columns = {
        "train": (lambda row: row.train_loss, 1.0),
        "validation": (lambda row: row.val_loss, 1.0),
    }
    accuracy: _Columns = {
        "train": (lambda row: row.train_accuracy, 100.0),
        "validation": (lambda row: row.val_accuracy, 100.0),
    }
    panels = [
        _panel("loss (nats)", history, loss, log=scales.is_log(_values(history, loss))),
        _panel("accuracy (%)", history, accuracy, log=False),
    ]
    if histories.rate_changes(history):
        rate: _Columns = {"rate": (lambda row: row.learning_rate, 1.0)}
        panels.append(_panel("learning rate", history, rate, log=histories.rate_in_steps(history)))
    return render(
        "curves.html",
        panels=panels,
        best=best and histories.best_label(history, best),
        marks=[(changing, _CLASSES[changing]) for changing in histories.marks(history)],
        star=Markup(_STAR),
        width=_WIDTH,
        height=_HEIGHT,
        left=_LEFT,
        right=_RIGHT,
        top=_TOP,
        bottom=_BOTTOM,
    )


def _values(history: Sequence[EpochRow], columns: _Columns) -> list[float]:
    return [
        scale * value
        for read, scale in columns.values()
        for row in history
        if numbers.present(value := read(row))
    ]


def _panel(title: str, history: Sequence[EpochRow], columns: _Columns, *, log: bool) -> _Panel:
    """A panel of some columns."""
    values = [value for value in _values(history, columns) if value > 0 or not log]
    log = log and bool(values)
    epochs = [float(row.epoch) for row in history]
    first, last = epochs[0], max(epochs[-1], epochs[0] + 1)
    low, high = _limits(values, log=log, percent="%" in title)

    def x(epoch: float) -> float:
        inset = 10
        return round(
            _LEFT + inset + (epoch - first) / (last - first) * (_RIGHT - _LEFT - 2 * inset), 1
        )

    def y(value: float) -> float:
        scaled = math.log if log else float
        share = (scaled(value) - scaled(low)) / (scaled(high) - scaled(low))
        return round(_BOTTOM - share * (_BOTTOM - _TOP), 1)

    ticks = scales.log_ticks(low, high) if log else scales.ticks(low, high)
    lines = [
        _line(name, history, read, scale, x, lambda v: y(v) if v > 0 or not log else None)
        for name, (read, scale) in columns.items()
    ]
    best, star = histories.best_row(history), None
    if "validation" in columns and best is not None:
        read, scale = columns["validation"]
        value = read(best)
        if numbers.present(value) and (value > 0 or not log):
            star = x(best.epoch), y(scale * value)
    return _Panel(
        title + (", log axis" if log else ""),
        [(x(tick), f"{tick:g}") for tick in scales.epoch_ticks(first, epochs[-1])],
        [(y(tick), f"{tick:g}") for tick in ticks],
        lines,
        [
            (_CLASSES[changing], x(epoch))
            for changing, places in histories.marks(history).items()
            for epoch in places
        ],
        star,
    )


def _limits(values: Sequence[float], *, log: bool, percent: bool) -> tuple[float, float]:
    if percent:
        return scales.percent_limits(values)
    if not values:
        return 0.0, 1.0
    low, high = min(values), max(values)
    if log:
        return low / 1.3, high * 1.3
    margin = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    return low - margin, high + margin


def _line(
    name: str,
    history: Sequence[EpochRow],
    read: Read,
    scale: float,
    x: Callable[[float], float],
    y: Callable[[float], float | None],
) -> _Line:
    """The points of a column; where it has no number the line is broken."""
    stretches: list[list[str]] = [[]]
    points = []
    for row in history:
        value = read(row)
        if not numbers.present(value) or (place := y(scale * value)) is None:
            stretches.append([])
            continue
        stretches[-1].append(f"{x(row.epoch)},{place}")
        points.append((x(row.epoch), place, f"epoch {row.epoch}, {name}: {scale * value:.5g}"))
    radius = 3.5 if len(history) <= _MARKED else 1.5
    return _Line(name, [" ".join(s) for s in stretches if s], points, radius)
