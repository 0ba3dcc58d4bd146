"""comparison.json: several nets side by side."""

import dataclasses
from typing import Any, ClassVar

from rice_jax.records.store import FileRecord


@dataclasses.dataclass(frozen=True, kw_only=True)
class FrontTold:
    """The nets that no other beats."""

    measures: list[str]
    nets: list[str]
    why_no_latency: str | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recommendation:
    """The net to take."""

    net: str
    best: str
    margin: float
    within: list[str]
    """All nets near enough to the best."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ComparisonFile(FileRecord):
    """The rows of comparison.csv, with each run's own figures."""

    FILE: ClassVar[str] = "comparison.json"

    nets: list[dict[str, Any]]
    """By the names of comparison.csv's columns."""
    pareto_front: FrontTold
    recommendation: Recommendation | None
    """None where nothing is recommended."""
