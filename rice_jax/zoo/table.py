"""The zoo as a table."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rice_jax.records import ZooCard

HEADER = (
    *("net", "parameters", "FLOPs (study)", "recipe", "epochs", "training images"),
    *("validation", "clean test", "augmented test"),
)


def rows(cards: "Iterable[ZooCard]") -> list[tuple[str, ...]]:
    """`HEADER`, and a row of text for each card."""
    return [HEADER, *map(_row, cards)]


def _row(card: "ZooCard") -> tuple[str, ...]:
    measured = (card.accuracy.validation, card.accuracy.clean, card.accuracy.augmented)
    return (
        card.name,
        f"{card.params:,}",
        f"{card.flops.by('study'):,}",
        card.recipe,
        str(card.epochs),
        f"{card.data.images['train']:,}",
        *(f"{share.accuracy:.4f}" for share in measured),
    )
