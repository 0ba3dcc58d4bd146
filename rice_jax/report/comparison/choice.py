"""Which nets nothing beats, and which one to take."""

import dataclasses
import math
from collections.abc import Sequence

from rice_jax.report import chance
from rice_jax.report.comparison.compared import NetRuns, listed

ACCURACY = "augmented_accuracy"
_GOALS = ((ACCURACY, -1), ("flops_study", 1), ("latency_seconds", 1))
"""Measures, and 1 where less is better."""

MARGINS = (0.0, 0.005, 0.01, 0.02, 0.05)


def front(points: Sequence[Sequence[float]]) -> list[bool]:
    """Whether each point is on the Pareto front, less being better in every coordinate.

    A point is off it where another is no worse in any coordinate and better in one; equal points
    are on it together.
    """

    def beats(one: Sequence[float], other: Sequence[float]) -> bool:
        pairs = list(zip(one, other, strict=True))
        return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)

    return [not any(beats(rival, point) for rival in points) for point in points]


@dataclasses.dataclass(frozen=True)
class Front:
    """The nets that no other net beats."""

    measures: tuple[str, ...]
    """What was weighed; without latency where it was not measured for all on one device."""
    labels: tuple[str, ...]
    why_no_latency: str = ""


def pareto_front(nets: Sequence[NetRuns]) -> Front:
    """The Pareto front over augmented accuracy, FLOPs and latency, of nets that have them.

    A net whose FLOPs lack something has no place among them.
    """
    nets = [net for net, _, _ in _weighed(nets)]
    measures = [measure for measure, _ in _GOALS]
    reason = ""
    without = [net.label for net in nets if net.mean("latency_seconds") is None]
    if without:
        reason = f"it was not measured for {listed(without)}"
    elif len(devices(nets)) > 1:
        reason = f"it was measured on several devices ({listed(devices(nets))})"
    if reason:
        measures.remove("latency_seconds")
    signs = dict(_GOALS)
    points = [[signs[m] * (net.mean(m) or 0.0) for m in measures] for net in nets]
    labels = [net.label for net, on in zip(nets, front(points), strict=True) if on]
    return Front(tuple(measures), tuple(labels), reason)


def _weighed(nets: Sequence[NetRuns]) -> list[tuple[NetRuns, float, float]]:
    """The nets with both accuracy and whole FLOPs, and these."""
    return [
        (net, accuracy, flops)
        for net in nets
        if net.complete
        and (accuracy := net.mean(ACCURACY)) is not None
        and (flops := net.mean("flops_study")) is not None
    ]


def devices(nets: Sequence[NetRuns]) -> list[str]:
    """The devices on which latency was measured."""
    found = {entry.summary.latency_device for net in nets for entry in net.entries}
    return sorted(device for device in found if device)


@dataclasses.dataclass(frozen=True)
class Recommended:
    """The smallest net near enough to the best."""

    net: NetRuns
    best: NetRuns
    margin: float
    within: tuple[NetRuns, ...]
    """All nets near enough."""


def choose(nets: Sequence[NetRuns], margin: float) -> Recommended | None:
    """The net of the fewest FLOPs within `margin` of the best augmented accuracy.

    Of equal FLOPs the fewest parameters decide, then accuracy. None where no net has both
    accuracy, better than chance, and FLOPs that lack nothing.

    Args:
        nets: what to choose from.
        margin: share of images, 0.01 for one point of a hundred.
    """
    candidates = [candidate for candidate in _weighed(nets) if not candidate[0].at_chance]
    if not candidates:
        return None
    best, highest, _ = max(candidates, key=lambda candidate: candidate[1])
    # Rounded so that 0.95 is within 0.01 of 0.96.
    within = [c for c in candidates if round(highest - c[1], 9) <= margin]
    net, *_ = min(within, key=lambda c: (c[2], c[0].mean("params") or math.inf, -c[1]))
    return Recommended(net, best, margin, tuple(c[0] for c in within))


def standard_error(net: NetRuns) -> float | None:
    """That of a net's augmented accuracy, of the images of one run's test; None without one."""
    accuracy = net.mean(ACCURACY)
    images = net.summary.augmented.images if net.summary.augmented else None
    return chance.standard_error(accuracy, images) if accuracy is not None and images else None
