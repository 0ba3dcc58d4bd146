"""Figures of a pruned run: filters before and after, maps side by side, what budgets cost."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rice_jax.records import Suggestion
from rice_jax.report import numbers, scales, style
from rice_jax.report.figures.layers import name_rows

_ROW = 0.26
_SHOWN = 32
"""Filters of a layer whose maps are drawn."""
_COLUMNS = 8


@style.styled
def filters_left(
    layers: Sequence[Mapping[str, Any]],
    *,
    title: str = "Filters before and after",
    synthetic: bool = False,
) -> Figure:
    """A bar for each layer, as long as the filters it had, filled as far as they remain.

    Args:
        layers: path, before, after (numbers of filters).
        title: the figure's title.
        synthetic: whether the data is.
    """
    height = _ROW * len(layers) + 0.8
    figure = style.canvas(style.WIDTH, height, title, legend_rows=1, synthetic=synthetic)
    axes = figure.subplots()
    before = np.array([layer["before"] for layer in layers])
    after = np.array([layer["after"] for layer in layers])
    places = range(len(layers))
    axes.barh(places, before, color=style.PALE, hatch="////", edgecolor="white", label="removed")
    axes.barh(places, after, color=style.BLUE, edgecolor="white", label="remaining")
    for place, (left, all_) in enumerate(zip(after, before, strict=True)):
        axes.text(all_, place, f" {left} of {all_}", va="center", size=style.SMALL)
    name_rows(axes, [layer["path"] for layer in layers])
    axes.set_xlim(0, 1.25 * max(before.max(initial=1), 1))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_xlabel("filters (units of a dense layer)")
    axes.grid(visible=False, axis="y")
    style.legend_above(figure, axes, columns=2)
    return figure


@style.styled
def maps_side_by_side(
    path: str,
    before: np.ndarray,
    after: np.ndarray,
    kept: Sequence[int],
    title: str,
    *,
    synthetic: bool = False,
) -> Figure:
    """A layer's maps of one image, each remaining one right below the map that it was.

    Args:
        path: the layer's.
        before: (H, W, filters) of the whole net.
        after: (H, W, len(kept)) of the smaller one.
        kept: for each filter that remains its index in the whole net.
        title: the figure's title.
        synthetic: whether the data is.
    """
    shown = min(before.shape[-1], _SHOWN)
    rows = -(-shown // _COLUMNS)
    note = f"{path}: each filter before and below it after, on its own scale; gaps were removed"
    if shown < before.shape[-1]:
        note += f" (the first {shown} of {before.shape[-1]})"
    figure = style.canvas(style.WIDTH, 1.55 * rows, title, note, synthetic=synthetic)
    grid = figure.subplots(2 * rows, _COLUMNS, squeeze=False)
    place_of = {index: place for place, index in enumerate(kept)}
    for axes in grid.flat:
        axes.set_axis_off()
    for index in range(shown):
        row, column = divmod(index, _COLUMNS)
        upper, lower = grid[2 * row, column], grid[2 * row + 1, column]
        maps = [before[..., index]]
        if index in place_of:
            maps.append(after[..., place_of[index]])
        scale = _common_scale(maps)
        for picture, values in zip((upper, lower), maps, strict=False):
            picture.imshow(values, cmap="inferno", norm=scale)
        upper.set_title(str(index), size=style.SMALL, loc="center")
    return figure


def _common_scale(maps: Sequence[np.ndarray]) -> PowerNorm:
    """From the least to the largest value of a filter's maps, so that weak filters show too.

    Of rectified maps by the square root, so that a strong pixel hides nothing.
    """
    low, high = (float(end([end(values) for values in maps])) for end in (np.min, np.max))
    return PowerNorm(0.5 if low >= 0 else 1.0, vmin=low, vmax=high if high > low else low + 1)


@style.styled
def budgets(
    rows: Sequence[Suggestion],
    *,
    measure: str,
    title: str = "What budgets cost",
    synthetic: bool = False,
) -> Figure:
    """Accuracy on validation images against what is left of the cost, and the Pareto front.

    Args:
        rows: the whole net first.
        measure: what the cost is.
        title: the figure's title.
        synthetic: whether the data is.
    """
    figure = style.canvas(style.WIDTH, 3.4, title, legend_rows=1, synthetic=synthetic)
    axes = figure.subplots()
    cost = [row.cost for row in rows]
    clean, augmented = [100 * row.clean for row in rows], [100 * row.augmented for row in rows]
    for name, values, color, marker in (
        ("clean", clean, style.BLUE, "o"),
        ("augmented", augmented, style.VERMILION, "s"),
    ):
        axes.plot(cost, values, marker, color=color, label=name)
        axes.step(*_front(cost, values), where="post", color=color, lw=1, alpha=0.6)
    scales.log_axis(axes, lambda amount: numbers.short(amount, 3))
    sign = "" if all(row.flops_complete for row in rows) else " (≥)"
    axes.set_xlabel(f"{measure} for one image{sign} (logarithmic axis)")
    axes.set_ylabel("accuracy (%)")
    style.end_at_100(axes)
    style.legend_above(figure, axes, columns=2)
    return figure


def _front(cost: Sequence[float], values: Sequence[float]) -> tuple[list[float], list[float]]:
    """The points that no cheaper one is as good as, in order of cost."""
    best, front = -1.0, []
    for price, value in sorted(zip(cost, values, strict=True), key=lambda p: (p[0], -p[1])):
        if value > best:
            best = value
            front.append((price, value))
    return [price for price, _ in front], [value for _, value in front]
