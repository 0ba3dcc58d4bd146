"""How a net learned, and what it takes for what: curves and confusion matrices."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from rice_jax.report import numbers, style
from rice_jax.report.history import best_row


@style.styled
def curves(
    history: Sequence[Mapping[str, Any]], *, title: str = "Training", synthetic: bool = False
) -> Figure:
    """Loss, accuracy and learning rate by epoch; the best epoch and rate changes are marked.

    Args:
        history: rows of history.csv as numbers (epoch, train_loss, train_accuracy, val_loss,
            val_accuracy, learning_rate); None and NaN leave a gap.
        title: the figure's title.
        synthetic: whether the data is.
    """
    figure = style.canvas(style.WIDTH, 6.4, title, legend_rows=1, synthetic=synthetic)
    loss, accuracy, rate = figure.subplots(3, 1, sharex=True, height_ratios=(4, 4, 2))
    epochs = np.array([row["epoch"] for row in history], float)
    _pair(loss, epochs, history, "loss", 1.0)
    _scale_loss(loss, history)
    _pair(accuracy, epochs, history, "accuracy", 100.0)
    accuracy.set_ylabel("accuracy (%)")
    _learning_rate(rate, epochs, _column(history, "learning_rate"))
    _mark_rate_changes((loss, accuracy, rate), epochs, _column(history, "learning_rate"))
    _mark_best((loss, accuracy), epochs, history)
    rate.set_xlabel("epoch")
    rate.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if len(epochs) == 1:
        rate.set_xlim(epochs[0] - 1, epochs[0] + 1)
        rate.set_xticks(epochs)
    style.legend_above(figure, loss, columns=4)
    figure.align_ylabels()
    return figure


def _column(history: Sequence[Mapping[str, Any]], name: str) -> np.ndarray:
    values = [row.get(name) for row in history]
    return np.array([value if numbers.present(value) else math.nan for value in values], float)


def _pair(
    axes: Axes, epochs: np.ndarray, history: Sequence[Mapping[str, Any]], name: str, scale: float
) -> None:
    train, validation = (scale * _column(history, f"{part}_{name}") for part in ("train", "val"))
    axes.plot(epochs, train, "--", color=style.ORANGE, marker="o", mfc="white", label="train")
    axes.plot(epochs, validation, "-", color=style.BLUE, marker="o", label="validation")


def _scale_loss(axes: Axes, history: Sequence[Mapping[str, Any]]) -> None:
    """A log axis where the loss falls far, so that its end shows as well as its start."""
    losses = np.concatenate([_column(history, name) for name in ("train_loss", "val_loss")])
    losses = losses[np.isfinite(losses)]
    axes.set_ylabel("loss (nats)")
    if losses.size and losses.min() > 0 and losses.max() > 5 * losses.min():
        axes.set_yscale("log")
        axes.set_ylabel("loss (nats, log axis)")
        far = losses.max() > 1000 * losses.min()
        axes.yaxis.set_major_locator(LogLocator(subs=(1,) if far else (1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda loss, _: f"{loss:g}"))
        axes.yaxis.set_minor_locator(NullLocator())


def _learning_rate(axes: Axes, epochs: np.ndarray, rates: np.ndarray) -> None:
    axes.plot(epochs, rates, color=style.INK, drawstyle="steps-mid", marker=".")
    axes.set_ylabel("learning\nrate (log)")
    positive = np.unique(rates[rates > 0])
    if positive.size:
        axes.set_yscale("log")
        low, high = positive[0] / 2, positive[-1] * 2
        axes.set_ylim(low, high)
        axes.set_yticks(_apart(positive, (high / low) ** 0.15))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{rate:.2g}"))
        axes.yaxis.set_minor_locator(NullLocator())


def _apart(rates: np.ndarray, ratio: float) -> list[float]:
    """Of ascending rates the largest, and those below that stand apart by a ratio at least."""
    chosen = [rates[-1]]
    for rate in rates[::-1]:
        if chosen[-1] >= ratio * rate:
            chosen.append(rate)
    return chosen


def _mark_rate_changes(axes: Sequence[Axes], epochs: np.ndarray, rates: np.ndarray) -> None:
    changes = [
        (epochs[i - 1] + epochs[i]) / 2
        for i in range(1, len(rates))
        if np.isfinite(rates[i - 1 : i + 1]).all() and rates[i] != rates[i - 1]
    ]
    if len(changes) == len(rates) - 1 > 2:
        return  # a rate that moves all the time: there is no moment to mark
    for number, epoch in enumerate(changes):
        for panel in axes:
            label = "rate change" if number == 0 else None
            panel.axvline(epoch, color=style.GREY, lw=1, ls=":", label=label)


def _mark_best(
    axes: Sequence[Axes], epochs: np.ndarray, history: Sequence[Mapping[str, Any]]
) -> None:
    best = best_row(history)
    if best is None:
        return
    for panel, column, scale in zip(axes, ("val_loss", "val_accuracy"), (1.0, 100.0), strict=True):
        if numbers.present(best.get(column)):
            panel.scatter(
                best["epoch"],
                scale * best[column],
                marker="*",
                s=225,
                facecolor="white",
                edgecolor=style.VERMILION,
                linewidth=1.6,
                zorder=5,
                label=f"best epoch: {best['epoch']:g}",
            )


MOST_CLASSES = 50
"""Of a confusion matrix as a picture: of more no cell can be read, and 1,000 take gigabytes."""


@style.styled
def confusion_matrix(
    matrix: Any,
    classes: Sequence[str],
    title: str = "Confusion matrix",
    *,
    synthetic: bool = False,
) -> Figure:
    """Counts of images by true (row) and predicted (column) class.

    Args:
        matrix: (classes, classes) counts, rows the true class.
        classes: names by row.
        title: the figure's title.
        synthetic: whether the data is.
    """
    counts = np.asarray(matrix, float)
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    names = style.labels(classes, 1.35)
    cell = max(0.42, min(1.6, 4.0 / len(names)))
    side = cell * len(names)
    longest = max(style.width_of(name, style.SMALL) for name in names)
    upright = longest > cell - 0.08
    width = max(style.WIDTH, side + longest + 1.9)
    height = side + 0.5 + (longest if upright else 0.2)
    figure = style.canvas(width, height, title, synthetic=synthetic)
    axes = figure.subplots()
    # A square root lets a share of 1% be seen beside one of 99%.
    norm = PowerNorm(0.5, vmin=0, vmax=1)
    image = axes.imshow(shares, cmap="Blues", norm=norm)
    _write_cells(axes, counts, shares, cell)
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks(range(len(names)), names)
    if upright:
        axes.tick_params(axis="x", labelrotation=90)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.set(xlabel="predicted class", ylabel="true class")
    bar = figure.colorbar(image, ax=axes, shrink=0.9, ticks=(0, 0.01, 0.1, 0.25, 0.5, 1))
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g}"))
    bar.set_label("share of the true class (%)\nsquare-root scale")
    return figure


def _write_cells(axes: Axes, counts: np.ndarray, shares: np.ndarray, cell: float) -> None:
    """The count in each cell where there is one, and its share below where there is room."""
    longest = max(len(f"{count:.0f}") for count in counts.flat)
    size = min(style.FONT_SIZE, cell * 72 / (0.68 * max(longest, 3)))
    roomy = cell >= 0.7
    for (row, column), count in np.ndenumerate(counts):
        if not count:
            continue
        text = f"{count:.0f}" + (f"\n{100 * shares[row, column]:.1f} %" if roomy else "")
        color = "white" if shares[row, column] > 0.35 else style.INK
        axes.text(column, row, text, ha="center", va="center", size=size, color=color)
