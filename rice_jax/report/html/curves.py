"""Loss, accuracy and learning rate by epoch as SVG, drawn small enough to be made anew often."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

from markupsafe import Markup

from rice_jax.report import history as histories
from rice_jax.report import numbers, scales
from rice_jax.report.html.rendering import render

_WIDTH, _HEIGHT = 440, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 428, 10, 222
_MARKED = 60  # epochs up to which each has a mark
_STAR = "M0-9 2.1-2.9 8.6-2.8 3.4 1.1 5.3 7.3 0 3.6-5.3 7.3-3.4 1.1-8.6-2.8-2.1-2.9Z"

Row = Mapping[str, float | None]


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
    changes: list[float]
    star: tuple[float, float] | None = None


def curves(history: Sequence[Row]) -> Markup:
    """The panels with their legend; nothing for a run without epochs."""
    if not history:
        return Markup()
    best = histories.best_row(history)
    changes, moments = histories.rate_changes(history), histories.moments(history)
    panels = [
        _pair("loss (nats)", history, "loss", 1.0),
        _pair("accuracy (%)", history, "accuracy", 100.0),
    ]
    if changes:
        column, log = {"rate": ("learning_rate", 1.0)}, histories.rate_in_steps(history)
        panels.append(_panel("learning rate", history, column, log=log))
    return render(
        "curves.html",
        panels=panels,
        best=best and histories.best_label(best),
        changes=moments,
        star=Markup(_STAR),
        width=_WIDTH,
        height=_HEIGHT,
        left=_LEFT,
        right=_RIGHT,
        top=_TOP,
        bottom=_BOTTOM,
    )


def _pair(title: str, history: Sequence[Row], name: str, scale: float) -> _Panel:
    columns = {
        part: (f"{column}_{name}", scale)
        for part, column in (("train", "train"), ("validation", "val"))
    }
    values = _values(history, columns)
    return _panel(title, history, columns, log=name == "loss" and scales.is_log(values))


def _values(history: Sequence[Row], columns: Mapping[str, tuple[str, float]]) -> list[float]:
    return [
        scale * value
        for column, scale in columns.values()
        for row in history
        if numbers.present(value := row.get(column))
    ]


def _panel(
    title: str, history: Sequence[Row], columns: Mapping[str, tuple[str, float]], *, log: bool
) -> _Panel:
    """A panel of some columns, each with its factor, by the name of its line."""
    values = [value for value in _values(history, columns) if value > 0 or not log]
    log = log and bool(values)
    epochs = [float(row["epoch"] or 0) for row in history]
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
        _line(name, history, column, scale, x, lambda v: y(v) if v > 0 or not log else None)
        for name, (column, scale) in columns.items()
    ]
    best, star = histories.best_row(history), None
    if "validation" in columns and best is not None:
        column, scale = columns["validation"]
        value = best.get(column)
        if numbers.present(value) and (value > 0 or not log):
            star = x(float(best["epoch"])), y(scale * value)
    return _Panel(
        title + (", log axis" if log else ""),
        [(x(tick), f"{tick:g}") for tick in scales.epoch_ticks(first, epochs[-1])],
        [(y(tick), f"{tick:g}") for tick in ticks],
        lines,
        [x(epoch) for epoch in histories.moments(history)],
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
    history: Sequence[Row],
    column: str,
    scale: float,
    x: Callable[[float], float],
    y: Callable[[float], float | None],
) -> _Line:
    """The points of a column; where it has no number the line is broken."""
    stretches: list[list[str]] = [[]]
    points = []
    for row in history:
        value, epoch = row.get(column), float(row["epoch"] or 0)
        if not numbers.present(value) or (place := y(scale * value)) is None:
            stretches.append([])
            continue
        stretches[-1].append(f"{x(epoch)},{place}")
        points.append((x(epoch), place, f"epoch {epoch:g}, {name}: {scale * value:.5g}"))
    radius = 3.5 if len(history) <= _MARKED else 1.5
    return _Line(name, [" ".join(s) for s in stretches if s], points, radius)
