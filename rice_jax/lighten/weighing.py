"""How a search weighs its candidates, and what it does next: plain numbers, no nets."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

from rice_jax.records import Candidate
from rice_jax.report.comparison import choice


class Point(NamedTuple):
    """A candidate as the search weighs it."""

    name: str
    cost: float
    """In the measure that is to be small."""
    accuracy: float
    """Share of the augmented validation images that it has right."""

    @classmethod
    def of(cls, candidate: Candidate, measure: str) -> "Point":
        """A candidate's, by one of its costs."""
        return cls(candidate.name, candidate.costs[measure], candidate.accuracy)


def front(points: Sequence[Point]) -> list[Point]:
    """Those that no other beats in cost and accuracy, the cheapest first; of equals the first."""
    unlike = {(point.cost, point.accuracy): point for point in reversed(points)}
    distinct = list(unlike.values())
    on = choice.front([(point.cost, -point.accuracy) for point in distinct])
    return sorted((p for p, best in zip(distinct, on, strict=True) if best), key=lambda p: p.cost)


def reaches(accuracy: float, least: float) -> bool:
    """Whether an accuracy is `least` or more; rounded, so that 0.48 is within 0.05 of 0.53."""
    return round(least - accuracy, 9) <= 0


def to_lighten(
    points: Sequence[Point], done: Collection[str], least: float, beam: int
) -> list[Point]:
    """The members of the front that are to be made lighter next: the cheapest, `beam` at most.

    Args:
        points: all that there are.
        done: names of those that were made lighter already.
        least: accuracy below which nothing is made lighter.
        beam: how many.
    """
    hopeful = (p for p in front(points) if reaches(p.accuracy, least) and p.name not in done)
    return list(hopeful)[:beam]


def lightest(points: Sequence[Point], floor: float) -> Point | None:
    """The cheapest with an accuracy of `floor` or more; of equal cost the best."""
    within = [point for point in points if reaches(point.accuracy, floor)]
    return min(within, key=lambda p: (p.cost, -p.accuracy), default=None)


def to_train(points: Sequence[Point], floor: float, least: float) -> list[Point]:
    """The members of the front that longer training may bring to `floor`, the dearest first.

    They are cheaper than the lightest that is there already, and have `least` or more. Where one
    does not get there, a cheaper one hardly will.
    """
    there = lightest(points, floor)
    limit = there.cost if there else float("inf")
    short = [p for p in front(points) if p.cost < limit and not reaches(p.accuracy, floor)]
    return [p for p in short if reaches(p.accuracy, least)][::-1]
