"""How a cost grows with a size: slopes on logarithmic axes, and the table that tells them.

Linear growth has a slope of 1, quadratic growth one of 2; what stays the same has 0.
"""

import math
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rice_jax.ops.backend import cores
from rice_jax.report import numbers

MEASURES = ("seconds", "compile_seconds", "memory_mb")
"""Of each task: of one turn (the median), of compiling, and the process's peak."""
SLOPES = ("size", "size_upper", "input_upper", "added")
FASTER = 1.1
"""A slope over the input beyond which a cost grows faster than that."""
_NOTICED = 0.05
"""Share of the first point's cost that must be added for what is added to be told from noise."""
_HEADS = {"seconds": "{}", "compile_seconds": "compiled in", "memory_mb": "peak MB"}
_NAMED = {"seconds": "seconds", "compile_seconds": "compiling", "memory_mb": "memory"}
_LABELS = {
    "size": "slope over {size_name}",
    "size_upper": "slope over {size_name}, upper half",
    "input_upper": "slope over {input_name}, upper half",
    "added": "slope of what is added to the first over {input_name}",
}


def slope(sizes: Sequence[float], costs: Sequence[float]) -> float | None:
    """Least-squares slope of log costs over log sizes; None of fewer than two points or a zero."""
    if len(set(sizes)) < 2 or min(*sizes, *costs) <= 0:
        return None
    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])


def upper(points: Sequence[Any]) -> Sequence[Any]:
    """The upper half of points, the middle one with them, two at least: below it is overhead."""
    return points[-max(2, math.ceil(len(points) / 2)) :]


def added(inputs: Sequence[float], costs: Sequence[float]) -> float | None:
    """Slope, over the upper half, of what is added to the first point's cost over added input.

    What each process has whatever its input, as its libraries' memory, hides how the rest grows;
    the difference to the first point has none of it. For a cost of a + b * input it is 1.
    """
    pairs = zip(inputs, costs, strict=True)
    more = [(size - inputs[0], cost - costs[0]) for size, cost in pairs]
    noticed = [pair for pair in upper(more) if pair[0] > 0 and pair[1] > _NOTICED * costs[0]]
    if len(noticed) < 2:
        return None
    return slope(*zip(*noticed, strict=True))


def slopes(points: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, float | None]]]:
    """{task: {measure: {one of SLOPES: slope}}} of an axis's points.

    'size' is over the axis's size, 'size_upper' over that in the upper half, 'input_upper' there
    over what a point takes in, 'added' as `added` has it.
    """
    told: dict[str, dict[str, dict[str, float | None]]] = {}
    sizes, inputs = ([point[key] for point in points] for key in ("size", "input"))
    for task, found in points[0]["tasks"].items():
        for measure in (measure for measure in MEASURES if measure in found):
            costs = [point["tasks"][task][measure] for point in points]
            told.setdefault(task, {})[measure] = {
                "size": slope(sizes, costs),
                "size_upper": slope(upper(sizes), upper(costs)),
                "input_upper": slope(upper(inputs), upper(costs)),
                "added": added(inputs, costs),
            }
    return told


def verdict(results: Mapping[str, Mapping[str, Any]]) -> str:
    """What grows faster than its input, by the slopes over the input; a line of text."""
    told = [
        (value, f"{axis}, {task}, {_NAMED[measure]}, {_LABELS[kind].format(**results[axis])}")
        for axis, result in results.items()
        for task, measures in result["slopes"].items()
        for measure, values in measures.items()
        for kind in ("input_upper", "added")
        if (value := values[kind]) is not None
    ]
    told.sort(reverse=True)
    beyond = [f"{value:.2f} ({what})" for value, what in told if value > FASTER]
    if beyond:
        return f"Faster than its input (a slope beyond {FASTER}) grows: {'; '.join(beyond)}."
    if not told:
        return "No axis has two points: no slope can be told."
    value, what = told[0]
    return f"Nothing grows faster than its input: the steepest slope is {value:.2f} ({what})."


def table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Markdown: what the slopes say, and for each axis a row a point and a row a kind of slope."""
    lines = [
        f"{cores()} cores, {platform.machine()}, Python {platform.python_version()}; "
        "seconds are medians, each point is a process of its own. Slopes are on logarithmic axes: "
        "1 is as fast as what stands behind 'over', 2 as its square. What is added are the "
        "differences to the first point, in the upper half, which have nothing of what every "
        f"process takes; — where less than {_NOTICED:.0%} is added.\n",
        verdict(results),
    ]
    for axis, result in results.items():
        lines += ["", f"## {axis}", "", f"{result['what']}.", "", *_axis(result)]
    return "\n".join(lines) + "\n"


def _axis(result: Mapping[str, Any]) -> list[str]:
    columns = [(task, measure) for task, found in result["slopes"].items() for measure in found]
    same = result["size_name"] == result["input_name"]
    names = [result["size_name"], *([] if same else [result["input_name"]])]
    heads = [_HEADS[measure].format(task) for task, measure in columns]
    rows = [[*names, *heads], ["---:"] * (len(names) + len(heads))]
    for point in result["points"]:
        given = [numbers.count(point["size"]), *([] if same else [numbers.short(point["input"])])]
        costs = [_cost(measure, point["tasks"][task][measure]) for task, measure in columns]
        rows.append([*given, *costs])
    for kind in SLOPES:
        if not (same and kind == "input_upper"):
            told = [result["slopes"][task][measure][kind] for task, measure in columns]
            label = _LABELS[kind].format(**result)
            empty = [""] * (len(names) - 1)
            rows.append([label, *empty, *map(numbers.slope, told)])
    return [f"| {' | '.join(row)} |" for row in rows]


def _cost(measure: str, value: float) -> str:
    return numbers.count(value) if measure == "memory_mb" else numbers.seconds(value)
