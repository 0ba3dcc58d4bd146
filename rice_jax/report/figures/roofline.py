"""What bounds each layer on a device: its arithmetic, or the bytes that it moves."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from rice_jax.records import LayerCosts, Peaks
from rice_jax.report import numbers, style
from rice_jax.report.figures.layers import name_rows

_ROW = 0.26
_NAMED = 10
_ROOF = 2.9  # inches
_LEVELS = 4
_STEP = 12.0  # points from one level of numbers to the next
_SIDE = 3.0  # points that a label reaches past its point
_APART = 9.0  # points that two numbers are apart to be labelled apart
_BOUNDS = (("memory", style.ORANGE, "////", "s"), ("compute", style.BLUE, "", "o"))


@style.styled
def roofline(
    layers: Sequence[LayerCosts],
    device: Peaks,
    *,
    title: str = "What bounds each layer",
) -> Figure:
    """The device's roof with every layer under it, and the slowest layers' least times.

    A layer's place across is its FLOPs a byte, its height the FLOP/s that it can reach there, its
    size its share of the time. Numbers lead from the slowest layers to their names; what has no
    FLOPs has no place above.

    Args:
        layers: the rows of profile.json.
        device: what it can do, of profile.json too.
        title: the figure's title.
    """
    moving = [layer for layer in layers if layer.bound]
    total = sum(layer.seconds for layer in moving) or 1.0
    slowest = sorted(moving, key=lambda layer: -layer.seconds)[:_NAMED]
    rest = total - sum(layer.seconds for layer in slowest)
    rows = len(slowest) + (len(moving) > len(slowest))
    peaks = device.flops_per_second, device.bytes_per_second
    figure = style.canvas(
        style.WIDTH,
        _ROOF + _ROW * rows + 1.3,
        title,
        f"least time of one image {numbers.seconds(total)} at "
        f"{numbers.quantity(peaks[0], 'FLOP/s', 3)} and {numbers.quantity(peaks[1], 'B/s', 3)}",
        legend_rows=1,
    )
    heights = (_ROOF, _ROW * rows + 0.3)
    roof, bars = figure.subplots(2, 1, height_ratios=heights)
    _roof(roof, moving, peaks, total)
    _bars(bars, slowest, len(moving) - len(slowest), rest, total)
    style.legend_above(figure, roof, columns=2)
    figure.draw_without_rendering()  # settles the layout
    _number(roof, slowest, peaks)
    return figure


def _reachable(intensity: float, peaks: tuple[float, float]) -> float:
    """FLOP/s of what does so many FLOPs a byte."""
    return min(peaks[0], intensity * peaks[1])


def _across(layer: LayerCosts) -> float:
    """A layer's FLOPs a byte; 0 for what has no FLOPs, and no place above."""
    return max(layer.intensity or 0.0, 0.0)


def _roof(
    axes: Axes,
    layers: Sequence[LayerCosts],
    peaks: tuple[float, float],
    total: float,
) -> None:
    ridge = peaks[0] / peaks[1]
    across = list(filter(None, map(_across, layers))) or [ridge]
    low, high = min(*across, ridge) / 3, max(*across, ridge) * 3
    line = np.array([low, ridge, high])
    axes.plot(line, [_reachable(x, peaks) for x in line], color=style.INK, lw=1.4, zorder=2)
    for name, color, _, marker in _BOUNDS:
        chosen = [layer for layer in layers if layer.bound == name and _across(layer)]
        if chosen:
            axes.scatter(
                [_across(layer) for layer in chosen],
                [_reachable(_across(layer), peaks) for layer in chosen],
                s=[18 + 250 * layer.seconds / total for layer in chosen],
                marker=marker,
                color=color,
                edgecolor="white",
                alpha=0.85,
                zorder=3,
            )
            axes.plot([], [], marker, color=color, ms=6, label=f"bound by {name}")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(low, high)
    bottom = _reachable(low, peaks)
    # Above the roof there is room for the numbers.
    axes.set_ylim(bottom, peaks[0] * (peaks[0] / bottom) ** 0.55)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(numticks=6))
        axis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: numbers.short(x, 3)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: numbers.short(y, 3)))
    axes.set_xlabel("FLOPs a byte (xla convention, log axis)")
    axes.set_ylabel("FLOP/s within reach (log axis)")


def _number(axes: Axes, slowest: Sequence[LayerCosts], peaks: tuple[float, float]) -> None:
    """Numbers above the roof, neighbours in one label, labels at heights that keep them apart.

    A label ends at its point, so that no line from a point further right runs over it.
    """
    figure = axes.figure
    points = {
        number: (across, _reachable(across, peaks))
        for number, across in enumerate(map(_across, slowest), 1)
        if across
    }
    labels: list[tuple[float, list[int]]] = []
    for number, point in sorted(points.items(), key=lambda item: item[1]):
        place = float(axes.transData.transform(point)[0]) * 72 / figure.dpi
        if labels and place - labels[-1][0] < _APART:
            labels[-1][1].append(number)
        else:
            labels.append((place, [number]))
    ends = [-np.inf] * _LEVELS
    for place, together in labels:
        text = ", ".join(map(str, sorted(together)))
        start = place - 72 * style.width_of(text, style.SMALL)
        level = next((i for i, end in enumerate(ends) if start >= end), len(ends) - 1)
        ends[: level + 1] = [place + 2 * _SIDE] * (level + 1)
        point, offset = points[together[0]], (_SIDE, _STEP * (level + 1))
        line = {"arrowstyle": "-", "color": style.GREY, "lw": 0.7}
        axes.annotate("", point, offset, textcoords="offset points", arrowprops=line)
        axes.annotate(
            text, point, offset, textcoords="offset points", ha="right", size=style.SMALL, zorder=4
        )


def _bars(
    axes: Axes, slowest: Sequence[LayerCosts], others: int, rest: float, total: float
) -> None:
    for place, layer in enumerate(slowest):
        _, color, hatch, _ = next(look for look in _BOUNDS if look[0] == layer.bound)
        axes.barh(place, layer.seconds, color=color, hatch=hatch, edgecolor="white")
    names = [f"{n}  {layer.path or 'the net'}" for n, layer in enumerate(slowest, 1)]
    times = [layer.seconds for layer in slowest]
    if others:
        axes.barh(len(slowest), rest, color=style.GREY, hatch="....", edgecolor="white")
        names.append(f"{others} others")
        times.append(rest)
    for place, time in enumerate(times):
        text = f" {numbers.seconds(time)}  {numbers.percent(time / total, 1)}"
        axes.text(time, place, text, va="center", size=style.SMALL)
    name_rows(axes, names)
    axes.set_xlim(0, 1.5 * max(times, default=1.0))
    axes.set_xticks(())
    axes.grid(visible=False)
    axes.spines["bottom"].set_visible(False)
    axes.set_xlabel("least time on the device, the slowest first")
