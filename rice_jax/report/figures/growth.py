"""The figure of what grows with size: seconds and memory, axis by axis."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from rice_jax.report import numbers, style

_ROW = 1.9  # inches
_LOOKS = {
    "training": (style.BLUE, "o"),
    "inference": (style.ORANGE, "s"),
    "evaluation": (style.GREEN, "^"),
    "preparing": (style.GREY, "D"),
    "decoding": (style.VERMILION, "v"),
    "epoch": (style.INK, "P"),
}
_PANELS = (("seconds", "seconds"), ("memory_mb", "peak MB"))
_LEAST = 4.0
"""How many times its lower end the upper end of an axis is at least: what is flat looks flat."""
_FAR = 100.0
_NEAR = 10.0
"""A range of more times than the first has labels at powers of ten alone, one of fewer than the
second more of them."""
_APART = 0.14
"""Share of an axis that two of its labels are apart at least."""


@style.styled
def growth(results: Mapping[str, Mapping[str, Any]], *, title: str = "Cost with size") -> Figure:
    """A row for each axis: seconds on the left, the process's peak memory on the right.

    Both axes are logarithmic. A panel's title says each task's slope over the upper half of the
    points, with the input; a dashed line leads to the last point as what grows with the input.

    Args:
        results: {axis: {size_name, input_name, points: [{size, input, tasks: {task: {seconds,
            memory_mb}}}], slopes: {task: {measure: {input_upper: slope}}}}}, as scripts/cost.py
            writes them.
        title: the figure's title.
    """
    tasks = {task for result in results.values() for task in result["slopes"]}
    named = [task for task in _LOOKS if task in tasks]
    figure = style.canvas(
        style.WIDTH, _ROW * len(results), title,
        "Log axes. A title says the slopes over the input, in the upper half of the points: 1 is "
        "as fast as the input, as the dashed lines are; what lies above its line grows slower.",
        legend_rows=-(-len(named) // 3),
    )  # fmt: skip
    grid = figure.subplots(len(results), len(_PANELS), squeeze=False)
    for row, (axis, result) in zip(grid, results.items(), strict=True):
        for axes, (measure, unit) in zip(row, _PANELS, strict=True):
            _panel(axes, result, measure)
            _name(axes, f"{axis}: {unit}", result, measure)
    for task in named:
        color, marker = _LOOKS[task]
        grid[0, 0].plot([], [], marker, color=color, ls="-", label=task)
    style.legend_above(figure, grid[0, 0], columns=3)
    return figure


def _panel(axes: Axes, result: Mapping[str, Any], measure: str) -> None:
    points = result["points"]
    sizes = [point["size"] for point in points]
    inputs = np.array([point["input"] for point in points], float)
    every = []
    for task in result["slopes"]:
        color, marker = _LOOKS[task]
        costs = [point["tasks"][task][measure] for point in points]
        axes.plot(sizes, costs, marker, color=color, ls="-", lw=1.4, label=f"_{task}")
        guide = costs[-1] * inputs / inputs[-1]
        axes.plot(sizes, guide, color=color, ls=(0, (4, 3)), lw=0.9, alpha=0.8, label="_as input")
        every += costs
    axes.set_xscale("log")
    axes.set_yscale("log")
    low, high = min(every) / 1.4, max(every) * 1.4
    wider = max(1.0, _LEAST * low / high) ** 0.5
    low, high = low / wider, high * wider
    axes.set_ylim(low, high)
    axes.xaxis.set_major_locator(FixedLocator(_labelled(sizes)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda size, _: numbers.short(float(size), 3)))
    axes.xaxis.set_minor_locator(NullLocator())
    form = numbers.seconds if measure == "seconds" else numbers.count
    axes.yaxis.set_major_locator(FixedLocator(_round(low, high)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda cost, _: form(float(cost))))
    axes.yaxis.set_minor_locator(NullLocator())


def _round(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten from `low` to `high`; fewer or more of a wide or narrow range.

    Matplotlib's own would count by ones within a decade.
    """
    steps = (1,) if high > _FAR * low else (1, 2, 5) if high > _NEAR * low else (1, 2, 3, 5, 7)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)))
    every = [step * 10.0**power for power in powers for step in steps]
    return [cost for cost in every if low <= cost <= high]


def _labelled(sizes: Sequence[float]) -> list[float]:
    """Sizes far enough apart for labels, the largest among them."""
    width = np.log(sizes[-1] / sizes[0]) or 1.0
    kept = [sizes[-1]]
    for size in reversed(sizes[:-1]):
        if np.log(kept[-1] / size) >= _APART * width:
            kept.append(size)
    return kept


def _name(axes: Axes, name: str, result: Mapping[str, Any], measure: str) -> None:
    told = [
        f"{task}\u00a0{numbers.slope(measures[measure]['input_upper'])}"  # on one line
        for task, measures in result["slopes"].items()
    ]
    inches = style.WIDTH / len(_PANELS) - 0.65
    lines = style.wrap(f"slope {', '.join(told)}", inches, style.SMALL)
    axes.set_title("\n".join([name, *lines]), fontsize=style.SMALL, loc="left")
    other = result["input_name"] != result["size_name"]
    said = (
        f"{result['size_name']} (input: {result['input_name']})" if other else result["size_name"]
    )
    axes.set_xlabel(said, fontsize=style.SMALL)
