"""The figure of a benchmark: images a second of each contender, net by net."""

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from rice_jax.report import numbers, style

_LOOKS = (
    (style.BLUE, "o"),
    (style.GREY, "s"),
    (style.ORANGE, "^"),
    (style.SKY, "v"),
    (style.VERMILION, "D"),
    (style.GREEN, "P"),
    (style.INK, "X"),
    (style.BLUE, "<"),
)
_ROW = 0.42
_APART = 0.13
"""Between two contenders' marks, in rows: equal ones would hide each other."""
_PANELS = (
    ("train_images_per_second", "training"),
    ("inference_images_per_second", "inference"),
)


@style.styled
def speeds(
    results: Mapping[str, Mapping[str, Mapping[str, Mapping[str, Any]]]],
    *,
    title: str = "Images a second, side by side",
) -> Figure:
    """A row for each net and batch size, a mark for each contender, on a log axis.

    Args:
        results: {net: {batch: {contender: measures}}}, as the benchmark writes them.
        title: the figure's title.
    """
    rows = [(net, batch) for net, batches in results.items() for batch in batches]
    names = list(dict.fromkeys(name for net, batch in rows for name in results[net][batch]))
    height = 2 * (_ROW * len(rows) + 0.75)
    figure = style.canvas(
        style.WIDTH, height, title, "batch size after the net's name; further right is faster",
        legend_rows=-(-len(names) // 3),
    )  # fmt: skip
    panels = figure.subplots(len(_PANELS), 1)
    for axes, (measure, task) in zip(panels, _PANELS, strict=True):
        _panel(axes, results, rows, names, measure)
        axes.set_xlabel(f"{task}, images per second (log scale)")
    style.legend_above(figure, panels[0], columns=3)
    return figure


def _panel(
    axes: Axes,
    results: Mapping[str, Any],
    rows: list[tuple[str, str]],
    names: list[str],
    measure: str,
) -> None:
    for number, name in enumerate(names):
        color, marker = _LOOKS[number % len(_LOOKS)]
        points = [
            (results[net][batch][name][measure], place + _APART * (number - (len(names) - 1) / 2))
            for place, (net, batch) in enumerate(rows)
            if measure in results[net][batch].get(name, {})
        ]
        x, y = ([point[axis] for point in points] for axis in (0, 1))
        axes.plot(x, y, marker, color=color, markersize=5, label=name, alpha=0.9)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda rate, _: numbers.short(rate)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_yticks(range(len(rows)), [f"{net}, {batch}" for net, batch in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
