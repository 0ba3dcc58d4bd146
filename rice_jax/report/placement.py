"""Labels beside points, placed so that they cover neither points, lines nor each other."""

import itertools
import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.transforms import Bbox

from rice_jax.report import style

_MARKER = 5.0  # points from a marker's centre to its edge
_STEP = 4.0  # points between the samples of a line
_GAP = 3.0  # points between a marker and its label
_REACH = 14  # rows of text that a label may lie away
_DIRECTIONS = 16


def label_points(
    axes: Axes,
    points: Sequence[tuple[float, float]],
    labels: Sequence[str],
    *,
    avoid: Sequence[tuple[float, float]] = (),
    lines: Sequence[Sequence[tuple[float, float]]] = (),
    size: float = style.SMALL,
) -> None:
    """Write each label near its point, with a thin line to it where it lies further away.

    The figure's layout must be settled, and the axes' limits too: places are found in its pixels.
    No line to a label runs over another label, or over another point, whose label it would seem to
    be. A label for which there is no free place within reach goes where it covers the least.

    Args:
        axes: where the points are drawn.
        points: (x, y) in data coordinates, one for each label.
        labels: texts of one line.
        avoid: other markers to leave free.
        lines: polylines in data coordinates to leave free.
        size: of the letters, in points.
    """
    scale = axes.figure.dpi / 72
    pixels = [_pixels(axes, point) for point in points]
    taken = [_around(x, y, _MARKER * scale) for x, y in pixels]
    taken += [_around(*_pixels(axes, point), _MARKER * scale) for point in avoid]
    for line in lines:
        corners = [_pixels(axes, point) for point in line]
        for start, end in itertools.pairwise(corners):
            taken += [_around(x, y, scale) for x, y in _samples(start, end, _STEP * scale)]
    bounds = axes.get_window_extent()
    # From the most crowded point to the loneliest.
    crowded = sorted(range(len(points)), key=lambda i: _nearest(pixels, i))
    written: list[Bbox] = []
    for index in crowded:
        width = style.width_of(labels[index], size) * 72 * scale + 2 * scale
        others = [other for other in pixels if other != pixels[index]]
        size_in_pixels = (width, size * 1.3 * scale)
        box = _place(pixels[index], size_in_pixels, bounds, taken, others, written, scale)
        taken.append(box)
        written.append(box)
        leader = _samples(pixels[index], _nearest_in(box, pixels[index]), _STEP * scale)
        taken += [_around(x, y, scale) for x, y in leader]
        _write(axes, pixels[index], box, labels[index], size, scale)


def _pixels(axes: Axes, point: tuple[float, float]) -> tuple[float, float]:
    x, y = axes.transData.transform(point)
    return float(x), float(y)


def _around(x: float, y: float, radius: float) -> Bbox:
    return Bbox.from_extents(x - radius, y - radius, x + radius, y + radius)


def _samples(
    start: tuple[float, float], end: tuple[float, float], step: float
) -> list[tuple[float, float]]:
    number = max(1, math.ceil(math.dist(start, end) / step))
    shares = [index / number for index in range(number + 1)]
    return [
        (start[0] + share * (end[0] - start[0]), start[1] + share * (end[1] - start[1]))
        for share in shares
    ]


def _nearest(pixels: Sequence[tuple[float, float]], index: int) -> float:
    others = [math.dist(pixels[index], p) for i, p in enumerate(pixels) if i != index]
    return min(others, default=math.inf)


def _place(
    point: tuple[float, float],
    size: tuple[float, float],
    bounds: Bbox,
    taken: Sequence[Bbox],
    others: Sequence[tuple[float, float]],
    written: Sequence[Bbox],
    scale: float,
) -> Bbox:
    """The nearest box of that size that is inside `bounds` and free, else the least covered.

    Free is a box that covers nothing of `taken` and whose line to the point meets none of the
    points `others` and of the labels `written`.
    One that is nearer to another point by half, whose label it would seem to be, is taken only
    where there is no other.
    """
    candidates = [
        _candidate(point, *size, direction, row, scale)
        for row in range(_REACH)
        for direction in range(_DIRECTIONS)
    ]
    inside = [
        box
        for box in candidates
        if bounds.x0 <= box.x0
        and box.x1 <= bounds.x1
        and bounds.y0 <= box.y0
        and box.y1 <= bounds.y1
    ]
    obstacles = [*(_around(*other, _MARKER * scale / 2) for other in others), *written]
    free = []
    for box in inside:
        line = _samples(point, _nearest_in(box, point), scale)
        crossed = any(obstacle.contains(*place) for place in line for obstacle in obstacles)
        if box.count_overlaps(taken) or crossed:
            continue
        if not any(_distance(box, other) < _distance(box, point) / 2 for other in others):
            return box
        free.append(box)
    if free:
        return free[0]
    return min(inside or candidates, key=lambda box: box.count_overlaps(taken))


def _distance(box: Bbox, point: tuple[float, float]) -> float:
    return math.dist(point, _nearest_in(box, point))


def _nearest_in(box: Bbox, point: tuple[float, float]) -> tuple[float, float]:
    """The place in the box that is nearest to the point."""
    x, y = point
    return min(max(x, box.x0), box.x1), min(max(y, box.y0), box.y1)


def _candidate(
    point: tuple[float, float],
    width: float,
    height: float,
    direction: int,
    row: int,
    scale: float,
) -> Bbox:
    """A box that touches an ellipse around the point, first to the right, then to the left."""
    half = (direction + 1) // 2 * (1 if direction % 2 else -1)
    angle = 2 * math.pi * half / _DIRECTIONS
    distance = (_MARKER + _GAP) * scale + row * height
    x = point[0] + math.cos(angle) * (distance + width / 2)
    y = point[1] + math.sin(angle) * (distance + height / 2)
    return Bbox.from_bounds(x - width / 2, y - height / 2, width, height)


def _write(
    axes: Axes, point: tuple[float, float], box: Bbox, label: str, size: float, scale: float
) -> None:
    to_data = axes.transData.inverted()
    middle = (box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2
    x, y = to_data.transform(middle)
    axes.text(x, y, label, size=size, ha="center", va="center", zorder=6)
    end = _nearest_in(box, point)
    if math.dist(point, end) > 2.5 * _MARKER * scale:
        line = to_data.transform([point, end])
        axes.plot(line[:, 0], line[:, 1], color=style.GREY, lw=0.6, zorder=1)
