"""Figures with one row for each layer: where the compute goes, and which filters are dead."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from rice_jax.records import LayerCosts, LayerFilters
from rice_jax.report import fates, numbers, style

_ROW = 0.26
_LABEL = 1.9  # inches for a layer's path
_FLOP_ROWS = 24
_DEAD_ROWS = 80

_KINDS = (
    ("convolution", style.BLUE, ""),
    ("dense", style.ORANGE, "////"),
    ("other", style.GREY, "...."),
)
_LOOKS = {
    fates.PROVEN: (style.INK, ""),
    fates.DEAD: (style.VERMILION, "xxxx"),
    fates.CLEAN: (style.ORANGE, "////"),
    fates.AUGMENTED: (style.SKY, "\\\\\\\\"),
    fates.NEARLY: ("#f4e3b5", "...."),
    fates.ALIVE: (style.PALE, ""),
}


@style.styled
def flops(
    layers: Sequence[LayerCosts],
    *,
    convention: str = "study",
    title: str = "Where the compute goes",
) -> Figure:
    """FLOPs of each layer for one image, as bars in the order of the net.

    Of a net with many layers those inside one module are added up (`inception3a`), and where
    there are still too many the smallest share one bar.

    Args:
        layers: the rows of profile.json.
        convention: 'formula', 'study' or 'xla'.
        title: the figure's title.
    """
    rows, note = _flop_rows(layers, convention)
    total = sum(amount for _, _, amount in rows) or 1.0
    figure = style.canvas(
        style.WIDTH,
        _ROW * len(rows) + 0.8,
        title,
        note,
        legend_rows=1,
    )
    axes = figure.subplots()
    for name, color, hatch in _KINDS:
        chosen = [(i, amount) for i, (_, kind, amount) in enumerate(rows) if kind == name]
        if chosen:
            places, amounts = zip(*chosen, strict=True)
            axes.barh(places, amounts, color=color, hatch=hatch, edgecolor="white", label=name)
    for place, (_, _, amount) in enumerate(rows):
        text = f" {numbers.short(amount, 3)}  {numbers.percent(amount / total, 1)}"
        box = {"fc": "white", "ec": "none", "pad": 0.3}  # keeps grid lines out of the text
        axes.text(amount, place, text, va="center", size=style.SMALL, bbox=box)
    axes.spines["left"].set_zorder(4)  # above those boxes
    name_rows(axes, [path for path, _, _ in rows])
    largest = max((amount for _, _, amount in rows), default=0) or 1.0
    axes.set_xlim(0, 1.45 * largest)  # leaves room for the figures after the bars
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda amount, _: numbers.short(amount, 3)))
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(f"FLOPs for one image ({convention} convention, linear axis)")
    style.legend_above(figure, axes, columns=3)
    return figure


def kind_of(layer: LayerCosts) -> str:
    """'convolution', 'dense' or 'other', by what the layer computes, whatever its class is called.

    Of convolutions and dense products alone `formula` counts anything. A kernel that an earlier
    layer has too has no filters of its own.
    """
    if layer.filters or "conv" in layer.type.lower():
        return "convolution"
    return "dense" if layer.flops.by("formula") else "other"


def _flop_rows(
    layers: Sequence[LayerCosts], convention: str
) -> tuple[list[tuple[str, str, float]], str]:
    """(label, kind, FLOPs) of each bar, and what became of layers without a bar."""
    rows = [(layer.path, kind_of(layer), float(layer.flops.by(convention))) for layer in layers]
    rows, note = [row for row in rows if row[2]], ""
    if not rows:
        note = "no layer is counted"
    if len(rows) > _FLOP_ROWS:
        rows, note = _by_module(rows), "layers of one module added up"
    if len(rows) > _FLOP_ROWS:
        kept = sorted(rows, key=lambda row: -row[2])[: _FLOP_ROWS - 1]
        rest = [row for row in rows if row not in kept]
        rows = [row for row in rows if row in kept]
        rows.append((f"{len(rest)} smaller layers", "other", sum(row[2] for row in rest)))
    return [(path or "(the net itself)", kind, amount) for path, kind, amount in rows], note


def _by_module(rows: Sequence[tuple[str, str, float]]) -> list[tuple[str, str, float]]:
    """Rows added up by the first name of their path; the kind is that of the costliest row."""
    groups: dict[str, list[tuple[str, str, float]]] = {}
    for row in rows:
        groups.setdefault(row[0].split("/")[0], []).append(row)
    return [
        (name, max(group, key=lambda row: row[2])[1], sum(row[2] for row in group))
        for name, group in groups.items()
    ]


@style.styled
def dead_filters(
    layers: Sequence[LayerFilters],
    *,
    title: str = "Dead filters",
    synthetic: bool = False,
) -> Figure:
    """For each layer, the share of its filters that are dead, and how often filters are zero.

    Args:
        layers: those of dead_filters.json.
        title: the figure's title.
        synthetic: whether the data is.
    """
    shown, note = list(layers), ""
    if len(shown) > _DEAD_ROWS:
        deadest = sorted(shown, key=lambda layer: _counts(layer)[fates.ALIVE] - layer.filters)
        shown = [layer for layer in shown if layer in deadest[:_DEAD_ROWS]]
        left_out = numbers.counted(len(layers) - len(shown), "layer")
        note = f"{left_out} with as many dead and nearly dead filters or fewer left out"
    counts = [_counts(layer) for layer in shown]
    met = sum(any(row[name] for row in counts) for name in _LOOKS)
    figure = style.canvas(
        style.WIDTH,
        _ROW * len(shown) + 0.8,
        title,
        note,
        legend_rows=max(3, met),
        synthetic=synthetic,
    )
    bars, spread = figure.subplots(1, 2, sharey=True, width_ratios=(5, 4))
    _fate_bars(bars, counts)
    name_rows(bars, [layer.path for layer in shown])
    bars.set_xlabel("filters of\nthe layer (%)")
    bars.set_xticks((0, 50, 100))
    _zero_spread(spread, shown)
    spread.set_xlabel("zero values of\na filter's maps (%)")
    spread.set_xticks((0, 50, 100))
    spread.tick_params(axis="y", length=0)
    style.legend_above(figure, bars)
    style.legend_above(figure, spread, right=True)
    return figure


def _counts(layer: LayerFilters) -> dict[str, int]:
    """How many filters share each fate; together all of the layer's."""
    found = fates.fates(layer)
    return {name: found.count(name) for name in _LOOKS}


def _fate_bars(axes: Axes, by_layer: Sequence[Mapping[str, int]]) -> None:
    counts = np.array([[row[name] for name in _LOOKS] for row in by_layer], float)
    counts = counts.reshape(-1, len(_LOOKS))
    shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    starts = np.cumsum(shares, axis=1) - shares
    for index, (name, (color, hatch)) in enumerate(_LOOKS.items()):
        if counts[:, index].any():
            axes.barh(
                range(len(counts)), shares[:, index], left=starts[:, index], color=color,
                hatch=hatch, edgecolor="white", lw=0.5, label=fates.WORDS[name],
            )  # fmt: skip
    for place, row in enumerate(by_layer):
        filters = sum(row.values())
        dead = filters - row[fates.ALIVE] - row[fates.NEARLY]
        axes.text(103, place, f"{dead} of {filters}", va="center", size=style.SMALL)
    axes.set_xlim(0, 150)
    axes.grid(visible=False, axis="y")


def _zero_spread(axes: Axes, layers: Sequence[LayerFilters]) -> None:
    """A line from least to most, a thick one over the middle half, a tick at the median."""
    names: Sequence[str | None] = ("all filters", "middle half", "median")
    for place, layer in enumerate(layers):
        values = [100 * x for x in layer.zero_fraction if numbers.present(x)]
        if not values:
            continue
        low, first, median, third, high = np.percentile(values, (0, 25, 50, 75, 100))
        axes.plot((low, high), (place, place), color=style.BLUE, lw=1, label=names[0])
        axes.plot(
            (first, third), (place, place),
            color=style.SKY, lw=6, solid_capstyle="butt", label=names[1],
        )  # fmt: skip
        axes.plot(median, place, "|", color=style.INK, ms=10, mew=2, label=names[2])
        names = (None,) * 3  # the legend has each once
    axes.set_xlim(-4, 104)
    axes.grid(visible=False, axis="y")


def name_rows(axes: Axes, paths: Sequence[str]) -> None:
    """Paths beside the rows, the first row on top."""
    names = [style.fit(style.drawable(path), _LABEL, style.SMALL) for path in paths]
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
