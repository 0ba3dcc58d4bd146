"""How long candidates of a search learn where that is left open."""

import dataclasses
from collections.abc import Collection
from typing import Any

from rice_jax import data
from rice_jax.own_images import MOST_EPOCHS
from rice_jax.records import SearchRequest

LEAST_STEPS = {"epochs": 500, "final_epochs": 2_000}
"""Of training after a step of the search, and of more training at its end."""
_OPTIONS = {"epochs": "--finetune_epochs", "final_epochs": "--final_epochs"}


def settled(
    request: SearchRequest, dataset: data.Dataset, batch_size: int, given: Collection[str] = ()
) -> tuple[SearchRequest, str]:
    """Let candidates learn for as many epochs as make `LEAST_STEPS`, up to `MOST_EPOCHS`.

    Args:
        request: of which those epochs are open that have their default and are not `given`.
        dataset: what is learned from; where grains are drawn all stays, for they only try it out.
        batch_size: images in a step.
        given: fields of the request that the user has set.

    Returns:
        The request, and what was decided, in a line; that is empty where nothing was.
    """
    images = len(dataset.splits["train"])
    usual = SearchRequest()
    more: dict[str, Any] = {}
    for field, least in LEAST_STEPS.items():
        epochs = getattr(usual, field)
        needed = min(-(-least // -(-images // batch_size)), MOST_EPOCHS)
        if field not in given and getattr(request, field) == epochs and needed > epochs:
            more[field] = needed
    if not more or dataset.synthetic:
        return request, ""
    longer = dataclasses.replace(request, **more)
    told = ", ".join(f"{_OPTIONS[field]}={number}" for field, number in more.items())
    return (
        longer,
        f"{images:,} images are few, so that candidates learn from each more often: {told}",
    )
