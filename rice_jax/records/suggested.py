"""suggestions.json: what several budgets would remove, and what would be left."""

import dataclasses
from typing import ClassVar

from rice_jax.records.store import FileRecord, left_out


@dataclasses.dataclass(frozen=True, kw_only=True)
class Suggestion:
    """A net cut to a budget, before any training."""

    cost: int
    """FLOPs of one image, as the study counts them."""
    flops_complete: bool = True
    """Whether they lack nothing."""
    params: int
    filters_removed: int
    clean: float
    """Accuracy on validation images, as they are and augmented."""
    augmented: float
    removed: dict[str, list[int]] | None = left_out()
    """Filters by layer; None for the whole net."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SuggestionsFile(FileRecord):
    """The whole net first."""

    FILE: ClassVar[str] = "suggestions.json"

    criterion: str
    finetuned: bool = False
    rows: list[Suggestion]
