"""How a net learned, and what it takes for what: curves and confusion matrices."""

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from rice_jax.records import EpochRow
from rice_jax.report import history as histories
from rice_jax.report import numbers, scales, style
from rice_jax.report.confusion import Confused, gathered

_DASHES = {"learning rate": ":", "image size": "--"}


@style.styled
def curves(
    history: Sequence[EpochRow], *, title: str = "Training", synthetic: bool = False
) -> Figure:
    """Loss and accuracy by epoch, and the learning rate where it changes; the best epoch is marked.

    Args:
        history: rows of history.csv; None and NaN leave a gap.
        title: the figure's title.
        synthetic: whether the data is.
    """
    changes, marks = histories.rate_changes(history), histories.marks(history)
    heights = (4, 4, 2) if changes else (4, 4)
    figure = style.canvas(
        style.WIDTH, 0.64 * sum(heights), title, legend_rows=1 + len(marks), synthetic=synthetic
    )
    panels = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
    loss, accuracy = panels[:2]
    epochs = np.array([row.epoch for row in history], float)
    losses = _numbers(r.train_loss for r in history), _numbers(r.val_loss for r in history)
    _pair(loss, epochs, *losses)
    _scale_loss(loss, np.concatenate(losses))
    shares = (
        100 * _numbers(row.train_accuracy for row in history),
        100 * _numbers(row.val_accuracy for row in history),
    )
    _pair(accuracy, epochs, *shares)
    accuracy.set_ylabel("accuracy (%)")
    every = np.concatenate(shares)
    accuracy.set_ylim(scales.percent_limits(every[np.isfinite(every)].tolist()))
    style.end_at_100(accuracy)
    if changes:
        log = histories.rate_in_steps(history)
        _learning_rate(panels[2], epochs, _numbers(r.learning_rate for r in history), log=log)
    _mark_changes(panels, marks)
    _mark_best((loss, accuracy), history)
    panels[-1].set_xlabel("epoch")
    if len(epochs):
        first, last = epochs[0], max(epochs[-1], epochs[0] + 1)
        room = 0.03 * (last - first)
        panels[-1].set_xlim(first - room, last + room)
        panels[-1].set_xticks(scales.epoch_ticks(first, epochs[-1]))
    style.legend_above(figure, loss, columns=2 if marks else 3)
    figure.align_ylabels()
    return figure


def _numbers(values: Iterable[float | None]) -> np.ndarray:
    return np.array([value if numbers.present(value) else math.nan for value in values], float)


def _pair(axes: Axes, epochs: np.ndarray, train: np.ndarray, validation: np.ndarray) -> None:
    axes.plot(epochs, train, "--", color=style.ORANGE, marker="o", mfc="white", label="train")
    axes.plot(epochs, validation, "-", color=style.BLUE, marker="o", label="validation")


def _scale_loss(axes: Axes, losses: np.ndarray) -> None:
    """A log axis where the loss falls far, so that its end shows as well as its start."""
    losses = losses[np.isfinite(losses)]
    axes.set_ylabel("loss (nats)")
    if scales.is_log(losses.tolist()):
        axes.set_yscale("log")
        axes.set_ylabel("loss (nats, log axis)")
        far = losses.max() > 1000 * losses.min()
        axes.yaxis.set_major_locator(LogLocator(subs=(1,) if far else (1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda loss, _: f"{loss:g}"))
        axes.yaxis.set_minor_locator(NullLocator())


def _learning_rate(axes: Axes, epochs: np.ndarray, rates: np.ndarray, *, log: bool) -> None:
    axes.plot(epochs, rates, color=style.INK, drawstyle="steps-mid" if log else None, marker=".")
    positive = np.unique(rates[rates > 0])
    axes.set_ylabel("learning\nrate (log)" if log else "learning\nrate")
    if log and positive.size:
        axes.set_yscale("log")
        low, high = positive[0] / 2, positive[-1] * 2
        axes.set_ylim(low, high)
        axes.set_yticks(_apart(positive, (high / low) ** 0.15))
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        axes.yaxis.set_major_locator(MaxNLocator(3))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{rate:.2g}"))


def _apart(rates: np.ndarray, ratio: float) -> list[float]:
    """Of ascending rates the largest, and those below that stand apart by a ratio at least."""
    chosen = [rates[-1]]
    for rate in rates[::-1]:
        if chosen[-1] >= ratio * rate:
            chosen.append(rate)
    return chosen


def _mark_changes(axes: Sequence[Axes], marks: Mapping[str, Sequence[float]]) -> None:
    for changing, dashes in _DASHES.items():
        for number, epoch in enumerate(marks.get(changing, ())):
            for panel in axes:
                label = f"{changing} changes" if number == 0 else None
                panel.axvline(epoch, color=style.GREY, lw=1, ls=dashes, label=label)


def _mark_best(axes: Sequence[Axes], history: Sequence[EpochRow]) -> None:
    best = histories.best_row(history)
    if best is None:
        return
    values = (best.val_loss, 1.0), (best.val_accuracy, 100.0)
    for panel, (value, scale) in zip(axes, values, strict=True):
        if numbers.present(value):
            panel.scatter(
                best.epoch,
                scale * value,
                marker="*",
                s=225,
                facecolor="white",
                edgecolor=style.VERMILION,
                linewidth=1.6,
                zorder=5,
                clip_on=False,
                label=histories.best_label(history, best),
            )


@style.styled
def confusion_matrix(
    cells: Confused,
    classes: Sequence[str],
    title: str = "Confusion matrix",
    subtitle: str = "",
    *,
    synthetic: bool = False,
) -> Figure:
    """Counts of images by true (row) and predicted (column) class, hits and errors in two hues.

    Of more than `MOST_CLASSES` those that are most often mistaken, the others added up.

    Args:
        cells: true class, predicted class and images of each pair of classes that there is.
        classes: names, in the order of the classes' numbers.
        title: the figure's title.
        subtitle: accuracy and number of images.
        synthetic: whether the data is.
    """
    counts, names, kept = gathered(cells, classes)
    labels = style.labels([classes[index] for index in kept], 1.35, places=kept)
    names = [*labels, *names[len(kept) :]]
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    cell = max(0.42, min(1.6, 4.0 / len(names)))
    side = cell * len(names)
    longest = max(style.width_of(name, style.SMALL) for name in names)
    upright = longest > cell - 0.08
    width = max(style.WIDTH, side + longest + 0.9)
    height = side + 0.5 + (longest if upright else 0.2)
    key = "Blue: right, orange: wrong; the stronger, the larger the share of the true class."
    if len(kept) < len(classes):
        key += " Of others taken for others not all are right."
    figure = style.canvas(width, height, title, f"{subtitle}\n{key}", synthetic=synthetic)
    axes = figure.subplots()
    right = np.eye(len(names), dtype=bool)
    norm = PowerNorm(0.5, vmin=0, vmax=1)  # a share of 1% is seen beside one of 99%
    for part, colors in ((right, "Blues"), (~right, "Oranges")):
        axes.imshow(np.ma.masked_where(~part | (counts == 0), shares), cmap=colors, norm=norm)
    _write_cells(axes, counts, shares, cell)
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks(range(len(names)), names)
    if upright:
        axes.tick_params(axis="x", labelrotation=90)
    axes.grid(visible=False)
    axes.set(xlabel="predicted class", ylabel="true class")
    return figure


def _write_cells(axes: Axes, counts: np.ndarray, shares: np.ndarray, cell: float) -> None:
    """The count in each cell where there is one, and its share below where there is room."""
    longest = max(len(str(count)) for count in counts.flat)
    size = min(style.FONT_SIZE, cell * 72 / (0.68 * max(longest, 3)))
    roomy = cell >= 0.7
    for (row, column), count in np.ndenumerate(counts):
        if not count:
            continue
        text = str(count) + (f"\n{numbers.percent(float(shares[row, column]), 1)}" if roomy else "")
        color = "white" if shares[row, column] > 0.35 else style.INK
        axes.text(column, row, text, ha="center", va="center", size=size, color=color)
