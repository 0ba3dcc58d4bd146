"""Confusion matrix, compute and dead filters as tables whose cells are bars and colours."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from rice_jax.records import DeadFiltersFile, LayerCosts, LayerFilters, ProfileFile, Result
from rice_jax.report import fates, numbers
from rice_jax.report.confusion import gathered
from rice_jax.report.figures.layers import kind_of
from rice_jax.report.html.rendering import render
from rice_jax.report.page.layers import ranges

SMALL = 12
"""Classes from which on a matrix has small cells, without shares."""
_ROWS = 400
"""Layers of a table: of deeper nets those that matter most."""
_DEEP = 0.6  # strength from which on letters are white


def matrix(result: Result, part: str) -> Markup:
    """A confusion matrix with its counts, hits and errors in hues of their own."""
    counts, names, kept = gathered(result.confused(), list(result.per_class))
    caption = (
        f"{part.capitalize()} test images: {numbers.percent(result.accuracy)} of "
        f"{numbers.count(result.images)} right (n = {numbers.count(result.images)})"
    )
    rows = [
        (name, [_cell(counts[row], row, column, names) for column in range(len(names))])
        for row, name in enumerate(names)
    ]
    small = len(names) >= SMALL
    others = len(kept) < len(names)
    return render(
        "matrix.html", caption=caption, names=names, rows=rows, small=small, others=others
    )


def _cell(row: np.ndarray, true: int, given: int, names: Sequence[str]) -> dict[str, Any]:
    count = int(row[given])
    share = count / max(int(row.sum()), 1)
    strength = round(0.08 + 0.92 * share**0.5, 3)  # one percent is seen beside ninety-nine
    return {
        "count": count,
        "text": f"{count:,}" if count else "",
        "share": numbers.percent(share, 1) if count and len(names) < SMALL else "",
        "kind": "hit" if true == given else "miss",
        "strength": strength,
        "deep": strength > _DEEP,
        "tip": f"{names[true]} taken for {names[given]}: {count:,}, {numbers.percent(share, 1)}",
    }


def layers(profile: ProfileFile) -> Markup:
    """What each layer costs, in the order of the net, FLOPs as bars."""
    content = profile.layers
    total = profile.totals.flops.study or 1
    costliest = sorted(range(len(content)), key=lambda place: -content[place].study)[:_ROWS]
    most = max((layer.study for layer in content), default=0) or 1
    shown = [content[place] for place in sorted(costliest)]
    rows = [_layer(layer, total, most) for layer in shown]
    return render("layers.html", rows=rows, left_out=_left_out(len(content) - len(shown)))


def _layer(layer: LayerCosts, total: float, most: float) -> dict[str, Any]:
    return {
        "path": layer.path or "the net",
        "kind": kind_of(layer),
        "width": round(60 * layer.study / most, 1),
        "flops": numbers.at_least(numbers.short(layer.flops.study, 3), layer.complete),
        "share": numbers.percent(layer.study / total, 1),
        "params": numbers.count(layer.params),
        "filters": numbers.count(layer.filters or None),
        "output": layer.size,
        "type": layer.type,
        "bytes": numbers.short(layer.bytes.total, 3) if layer.bytes else "",
        "bound": layer.bound or "",
    }


def dead_filters(found: DeadFiltersFile) -> Markup:
    """For each layer a bar of what became of its filters."""
    content = found.layers
    by_layer = [fates.fates(layer) for layer in content]
    doing_nothing = [sum(fate != fates.ALIVE for fate in each) for each in by_layer]
    order = sorted(range(len(content)), key=lambda index: -doing_nothing[index])[:_ROWS]
    rows = [_fated(content[index], by_layer[index]) for index in sorted(order)]
    met = {fate for each in by_layer for fate in each}
    legend = [(name, words) for name, words in fates.WORDS.items() if name in met]
    left_out = _left_out(len(content) - len(rows))
    return render("dead_filters.html", rows=rows, legend=legend, left_out=left_out)


def _fated(layer: LayerFilters, each: Sequence[str]) -> dict[str, Any]:
    counts = {name: each.count(name) for name in fates.WORDS}
    zeros = [share for share in layer.zero_fraction if numbers.present(share)]
    return {
        "path": layer.path or "the net",
        "filters": len(each),
        "bars": [
            (name, round(100 * number / max(len(each), 1), 2), f"{number} {fates.WORDS[name]}")
            for name, number in counts.items()
            if number
        ],
        "dead": len(each) - counts[fates.ALIVE] - counts[fates.NEARLY],
        "proven": counts[fates.PROVEN],
        "nearly": counts[fates.NEARLY],
        "zeros": numbers.percent(float(np.median(zeros)), 1) if zeros else numbers.MISSING,
        "which": ranges(layer.dead_clean),
    }


def _left_out(number: int) -> str:
    if number <= 0:
        return ""
    be = "is" if number == 1 else "are"
    return f"{numbers.counted(number, 'more layer')} {be} in the run's JSON."
