"""The zoo as a table."""

import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rice_jax.records import ZooCard

HEADER = (
    *("net", "parameters", "FLOPs (study)", "recipe", "epochs", "training images"),
    *("validation", "clean test", "augmented test"),
)

_FIRST_LEFT_OUT = (
    *("recipe", "training images", "validation", "epochs"),
    *("parameters", "clean test", "FLOPs (study)", "augmented test"),
)
_GAP = "  "


def rows(cards: "Iterable[ZooCard]") -> list[tuple[str, ...]]:
    """`HEADER`, and a row of text for each card."""
    return [HEADER, *map(_row, cards)]


def lines(table: Sequence[Sequence[str]], width: int | None = None) -> list[str]:
    """A table as text, and where it is wider than `width` letters as many columns as fit.

    What is left out is told below. None for all, whatever that takes.
    """
    told, note = _told(table, table[0]), list[str]()
    for number in range(1, len(_FIRST_LEFT_OUT) + 1):
        if width is None or max(map(len, told)) <= width:
            break
        gone = _FIRST_LEFT_OUT[:number]
        told = _told(table, [name for name in table[0] if name not in gone])
        text = f"No room for {', '.join(gone)}: a wider terminal has all, as has a pipe."
        note = textwrap.wrap(text, max(width, 1))
    return told + note


def _told(table: Sequence[Sequence[str]], names: Sequence[str]) -> list[str]:
    """The columns of these names, each as wide as its longest cell."""
    columns = [column for column in zip(*table, strict=True) if column[0] in names]
    widths = [max(map(len, column)) for column in columns]
    return [
        _GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in zip(*columns, strict=True)
    ]


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
