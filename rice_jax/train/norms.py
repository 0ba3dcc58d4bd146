"""Statistics of batch norms, measured anew for a net whose filters are no longer what they were."""

from collections.abc import Iterable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from rice_jax.models.statistics import COLLECTION, STATISTICS, Rows, norms, updated
from rice_jax.train.state import Params, merge, partition

_Moments = dict[tuple[str, ...], tuple[np.ndarray, np.ndarray]]


def remeasured(
    module: nn.Module,
    params: Params,
    batches: Iterable[tuple[Any, Any]],
    frozen: Sequence[str] = (),
) -> Params:
    """The parameters, with each batch norm's mean and variance those of these images.

    Running averages follow a net that was cut only after hundreds of steps, and until then it
    answers by chance. What they would come to is computed here, each batch by its own statistics
    as in training, and put together over all batches; cut nets are told apart by it as if they had
    been trained on (Li et al. 2020, arXiv:2007.02491).

    Args:
        module: one of this package's nets, or of the user's own in the main job.
        params: its parameters, statistics among them.
        batches: pairs of images (B, H, W, 3) in [0, 1], as they are trained on, and labels.
        frozen: paths of layers that do not learn; their norms stay what they are.

    Returns:
        Other parameters; the same ones for a net without such norms, or without images.
    """
    learning, still = partition(params, frozen)
    if not norms(learning):
        return params

    @jax.jit
    def measure(params: Params, images: jax.Array, number: jax.Array) -> Any:
        given: Any = {"still": norms(still)} if norms(still) else {}
        net = module.clone(rows=Rows(jnp.ones(len(images)), alone=True), **given)
        rngs = {"dropout": jax.random.key(number)}
        _, left = net.apply({"params": params}, images, train=True, rngs=rngs, mutable=[COLLECTION])
        return left[COLLECTION]

    images_seen, sums = 0, None
    for number, (images, _) in enumerate(batches):
        own = _sums(jax.device_get(measure(params, images, number)), len(images))
        sums = own if sums is None else jax.tree.map(np.add, sums, own)
        images_seen += len(images)
    if sums is None:
        return params
    return merge(updated(learning, _statistics(sums, images_seen)), still)


def _sums(statistics: Params, images: int) -> _Moments:
    """By the norm's path its input's first two raw moments, times images: these can be added."""
    flat = traverse_util.flatten_dict(statistics)
    found = {}
    for *path, name in flat:
        if name == STATISTICS[0]:
            mean, var = (np.asarray(flat[(*path, each)], np.float64) for each in STATISTICS)
            found[tuple(path)] = images * mean, images * (var + mean**2)
    return found


def _statistics(sums: _Moments, images: int) -> Params:
    """Mean and variance."""
    flat = {}
    for path, moments in sums.items():
        mean, square = (moment / images for moment in moments)
        for name, number in zip(STATISTICS, (mean, square - mean**2), strict=True):
            flat[(*path, name)] = jnp.asarray(number, jnp.float32)
    return traverse_util.unflatten_dict(flat)
