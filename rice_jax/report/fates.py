"""What became of each filter: dead on which images, proven dead, nearly dead, alive."""

from collections.abc import Mapping
from typing import Any

from rice_jax.report import numbers

NEAR = 0.99
"""Share of a filter's values on clean images from which on it is nearly dead."""

PROVEN, DEAD, CLEAN, AUGMENTED = "proven", "dead", "clean", "augmented"
NEARLY, ALIVE = "nearly", "alive"

WORDS: Mapping[str, str] = {
    PROVEN: "proven dead for every image",
    DEAD: "dead on clean and augmented",
    CLEAN: "dead on clean only",
    AUGMENTED: "dead on augmented only",
    NEARLY: f"nearly dead: {100 * NEAR:g} % zeros",
    ALIVE: "alive",
}
"""What to call them, in the order in which they are drawn."""


def marked(found: Mapping[str, Any] | None) -> dict[str, dict[str, list[int]]]:
    """What a picture of maps marks of each layer of dead_filters.json: filters dead and nearly so.

    {path: {"dead": indices on clean images, "nearly": indices}}; {} for no census.
    """
    return {
        layer["path"]: {
            "dead": list(layer["dead_clean"]),
            "nearly": [index for index, fate in enumerate(fates(layer)) if fate == NEARLY],
        }
        for layer in (found or {}).get("layers", ())
    }


def fates(layer: Mapping[str, Any]) -> list[str]:
    """The fate of each filter of a layer of dead_filters.json, a key of `WORDS`."""
    clean, augmented, proven = (
        set(layer.get(name) or ()) for name in ("dead_clean", "dead_augmented", "proven_dead")
    )
    zeros = [*(layer.get("zero_fraction") or ())]
    zeros += [None] * (layer["filters"] - len(zeros))

    def fate(index: int) -> str:
        if index in proven:
            return PROVEN
        if index in clean:
            return DEAD if index in augmented else CLEAN
        if index in augmented:
            return AUGMENTED
        share = zeros[index]
        return NEARLY if numbers.present(share) and share >= NEAR else ALIVE

    return [fate(index) for index in range(layer["filters"])]
