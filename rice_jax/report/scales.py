"""Where axes begin and end, and where their ticks stand."""

import math
from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

_FAR = 1000  # a range of so many times has ticks at powers of ten alone
_LOG = 5  # a loss that falls so many times is on a log axis


def epoch_ticks(first: float, last: float, most: int = 8) -> list[float]:
    """Round epochs from the first to the last; of few epochs all."""
    if last - first < most:
        return [float(epoch) for epoch in range(math.ceil(first), math.floor(last) + 1)]
    return inside(MaxNLocator(most, integer=True, steps=[1, 2, 5, 10]), first, last)


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers from `low` to `high`."""
    return inside(MaxNLocator(most, steps=[1, 2, 2.5, 5, 10]), low, high)


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten from `low` to `high`, of a wide range these alone."""
    return inside(LogLocator(subs=(1,) if high > _FAR * low else (1, 2, 5)), low, high)


def log_axis(axes: Axes, form: Callable[[float], str]) -> None:
    """Make the x axis logarithmic and a decade wide or more, so that ticks stand on it.

    `form` tells their numbers. What is drawn is to be there already, with its margins.
    """
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    decades = math.log10(high / low)
    if decades < 1:
        middle, decades = math.sqrt(low * high), 1
        axes.set_xlim(middle / math.sqrt(10), middle * math.sqrt(10))
    axes.xaxis.set_major_locator(LogLocator(subs=(1,) if decades > 2 else (1, 2, 5), numticks=8))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: form(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_minor_locator(NullLocator())


def inside(locator: MaxNLocator | LogLocator, low: float, high: float) -> list[float]:
    """The locator's ticks that are within the axis."""
    slack = 1e-9 * abs(high - low)
    return [float(x) for x in locator.tick_values(low, high) if low - slack <= x <= high + slack]


def is_log(values: Sequence[float]) -> bool:
    """Whether a loss falls so far that its end shows on a log axis alone."""
    return bool(values) and min(values) > 0 and max(values) > _LOG * min(values)


def percent_limits(values: Sequence[float]) -> tuple[float, float]:
    """Ends of an axis of percentages: a little beyond the values, and never beyond 0 or 100."""
    if not values:
        return 0.0, 100.0
    low, high = min(values), max(values)
    margin = max(0.06 * (high - low), 0.5)
    return max(0.0, low - margin), min(100.0, high + margin)
