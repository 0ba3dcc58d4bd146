"""The zoo as a table."""

from collections.abc import Iterable, Mapping
from typing import Any

HEADER = (
    *("net", "parameters", "FLOPs (study)", "recipe", "epochs", "training images"),
    *("validation", "clean test", "augmented test"),
)


def rows(cards: Iterable[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """`HEADER`, and a row of text for each card."""
    return [HEADER, *map(_row, cards)]


def _row(card: Mapping[str, Any]) -> tuple[str, ...]:
    measured = (card["accuracy"][part]["accuracy"] for part in ("validation", "clean", "augmented"))
    return (
        card["name"],
        f"{card['params']:,}",
        f"{card['flops']['study']:,}",
        card["recipe"],
        str(card["epochs"]),
        f"{card['data']['images']['train']:,}",
        *(f"{accuracy:.4f}" for accuracy in measured),
    )
