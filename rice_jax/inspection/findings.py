"""What inspection found, as dead_filters.json holds it."""

from collections.abc import Mapping, Sequence
from typing import Any

from rice_jax.errors import UserError
from rice_jax.inspection.census import Census


def to_json(
    clean: Census, augmented: Census, proven: Mapping[str, Sequence[int]]
) -> dict[str, Any]:
    """Join a census of clean images, one of augmented images, and the proof.

    Args:
        clean: census of the images as they are.
        augmented: census of the same net on augmented images.
        proven: filters that are dead for every image, by path, as `proven_dead` gives them.

    Returns:
        {"layers": [{path, filters, dead_clean, dead_augmented, proven_dead, zero_fraction}],
        "images": n, "unseen": paths}; zero_fraction is that of the clean images, unseen are the
        convolutions inside a loop, which no census counts.

    Raises:
        UserError: where they tell of different layers, or a filter that is proven dead lives in a
            census: then they are not of the same net with the same variables, or the images not
            within the proof's range.
    """
    paths = clean.layers.keys()
    if strange := sorted((paths ^ augmented.layers.keys()) | (paths ^ proven.keys())):
        raise UserError(f"{strange[0]}: not in both censuses and the proof; give those of one net")
    layers = []
    for path, layer in clean.layers.items():
        dead = {"clean": layer.dead, "augmented": augmented.layers[path].dead}
        for kind, indices in dead.items():
            alive = set(proven[path]) - set(indices)
            if alive:
                raise UserError(
                    f"{path}: filters {sorted(alive)} are proven dead but live in the {kind} "
                    "census: give proof and census the same variables, and images within the "
                    "proof's range"
                )
        layers.append(
            {
                "path": path,
                "filters": layer.filters,
                "dead_clean": dead["clean"],
                "dead_augmented": dead["augmented"],
                "proven_dead": list(proven[path]),
                "zero_fraction": layer.zero_fraction,
            }
        )
    return {"layers": layers, "images": clean.images, "unseen": list(clean.unseen)}
