"""What became of each filter: dead on which images, proven dead, nearly dead, alive."""

from collections.abc import Mapping

from rice_jax import records
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


def marked(found: records.DeadFiltersFile | None) -> dict[str, dict[str, list[int]]]:
    """What a picture of maps marks of each layer: filters dead and nearly so.

    {path: {"dead": indices on clean images, "nearly": indices}}; {} for no census.
    """
    return {
        layer.path: {
            "dead": layer.dead_clean,
            "nearly": [index for index, fate in enumerate(fates(layer)) if fate == NEARLY],
        }
        for layer in (found.layers if found else ())
    }


def fates(layer: records.LayerFilters) -> list[str]:
    """The fate of each filter of a layer, a key of `WORDS`."""
    clean, augmented, proven = map(set, (layer.dead_clean, layer.dead_augmented, layer.proven_dead))
    zeros = [*layer.zero_fraction, *[None] * (layer.filters - len(layer.zero_fraction))]

    def fate(index: int) -> str:
        if index in proven:
            return PROVEN
        if index in clean:
            return DEAD if index in augmented else CLEAN
        if index in augmented:
            return AUGMENTED
        share = zeros[index]
        return NEARLY if numbers.present(share) and share >= NEAR else ALIVE

    return [fate(index) for index in range(layer.filters)]
