"""What removal did to the logits, measured."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from rice_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Certificate:
    """How far the logits of two nets are apart."""

    max_abs_logit_difference: float
    images: int
    changed_predictions: int
    """Images whose class with the largest logit is another one."""
    proven: bool
    """Whether they are equal but for float rounding on every possible image, not these alone."""

    def to_json(self) -> dict[str, Any]:
        """The certificate as plain JSON types."""
        return dataclasses.asdict(self)


def certify(
    before: tuple[nn.Module, Any],
    after: tuple[nn.Module, Any],
    batches: Iterable[tuple[Any, Any]],
    *,
    proven: bool = False,
    **kwargs: Any,
) -> Certificate:
    """Compare two nets on all images.

    Args:
        before: a module and its variables.
        after: the same of the smaller net.
        batches: pairs of images (B, H, W, C) and labels, of which the images count.
        proven: what is known of all other images.
        **kwargs: what else the modules' calls need, such as train=False.
    """

    def logits(net: tuple[nn.Module, Any], variables: Any, images: Any) -> Any:
        return net[0].apply(variables, images, **kwargs)

    @jax.jit
    def compare(one: Any, other: Any, images: Any) -> tuple[jax.Array, jax.Array]:
        first, second = logits(before, one, images), logits(after, other, images)
        changed = jnp.argmax(first, -1) != jnp.argmax(second, -1)
        return jnp.max(jnp.abs(first - second)), jnp.sum(changed)

    largest, changed, images = 0.0, 0, 0
    for batch, _ in batches:
        difference, count = compare(before[1], after[1], batch)
        largest, changed = max(largest, float(difference)), changed + int(count)
        images += len(batch)
    if not images:
        raise UserError("no images to compare the nets on: give a split that has some")
    return Certificate(largest, images, changed, proven)
