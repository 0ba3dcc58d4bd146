"""Statistics of batch norms, measured on training images by the net as it is."""

import functools
from collections.abc import Callable, Iterable, Sized
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from flax import traverse_util

from rice_jax import data, ops
from rice_jax.models.statistics import COLLECTION, STATISTICS, Rows, norms, places, updated
from rice_jax.train import schedule
from rice_jax.train.state import Params, partition
from rice_jax.train.step import evaluation_inputs, streams

_SEEN = 512
"""Training images that are looked at; each gives a number for every pixel of a map."""

_Moments = dict[tuple[str, ...], tuple[np.ndarray, np.ndarray]]


def learning(config: ml_collections.ConfigDict, params: Params) -> frozenset[str]:
    """Paths of the norms that training changes: all that are not frozen."""
    return norms(partition(params, config.train.frozen)[0])


def images_looked_at(config: ml_collections.ConfigDict, source: Sized) -> int:
    """How many training images norms are measured on: no more than training learns from."""
    return min(_SEEN, schedule.images(config.train, len(source)))


class Norms:
    """Measures the statistics of one net's norms; compiled once, however often it is called.

    Running averages follow a net that changes, or was cut, only after hundreds of steps, and until
    then it may answer by chance. What they would come to is computed here instead: each batch goes
    by its own statistics and is as large as in training, but for the last, and all batches' are put
    together, each by its number of images (Wu and Johnson 2021, arXiv:2105.07576). They hang on no
    statistics of before, nor on the number of devices.
    """

    def __init__(self, config: ml_collections.ConfigDict, module: nn.Module) -> None:
        """Of the net `module` by its run's configuration."""
        self._config = config
        seed = config.seed if config.train.augment else None
        self._prepare = functools.partial(evaluation_inputs, augment_seed=seed)

        @jax.jit
        def measure(params: Params, images: jax.Array, number: jax.Array) -> Any:
            still = norms(partition(params, config.train.frozen)[1])
            given: Any = {"still": still} if still else {}
            net = module.clone(rows=Rows(jnp.ones(len(images)), alone=True), **given)
            rngs = streams(jax.random.key(number))
            with ops.inference():
                _, left = net.apply(
                    {"params": params}, images, train=True, rngs=rngs, mutable=[COLLECTION]
                )
            return left.get(COLLECTION, {})

        self._measure = measure

    def __call__(
        self,
        params: Params,
        source: Any,
        image_size: int = 0,
        on_batch: Callable[[int], None] = lambda images: None,
    ) -> Params:
        """The parameters with the statistics of `images_looked_at`, as they are trained on.

        Frozen norms stay what they are, and so does a net without norms.

        Args:
            params: of the net, statistics among them.
            source: the training images, as `data.batches` takes them.
            image_size: height and width that images are averaged to; 0 for whole ones.
            on_batch: told the number of images of each batch that is done.
        """
        if not learning(self._config, params):
            return params
        return updated(params, self.statistics(params, self._batches(source, image_size, on_batch)))

    def statistics(self, params: Params, batches: Iterable[jax.Array]) -> Params:
        """Mean and variance of each norm that learns, by its path, over batches of images.

        Args:
            params: of the net.
            batches: images (B, H, W, 3) in [0, 1]; one at least.
        """
        images_seen, sums = 0, None
        for number, images in enumerate(batches):
            own = _sums(jax.device_get(self._measure(params, images, number)), len(images))
            sums = own if sums is None else jax.tree.map(np.add, sums, own)
            images_seen += len(images)
        wanted = learning(self._config, params)
        return _statistics(
            {path: of for path, of in (sums or {}).items() if "/".join(path) in wanted},
            images_seen,
        )

    def _batches(
        self, source: Any, image_size: int, on_batch: Callable[[int], None]
    ) -> Iterable[jax.Array]:
        config, first, images = self._config, 0, images_looked_at(self._config, source)
        batches = data.batches(
            source,
            min(config.train.batch_size, images),
            image_size=image_size or config.data.image_size,
            whole_size=config.data.image_size,
            limit=images,
            workers=config.data.workers,
        )
        for batch in batches:
            real = int(np.sum(batch["weight"] > 0))
            yield self._prepare(batch["image"], np.uint32(first))[:real]
            on_batch(real)
            first += real


def _sums(statistics: Params, images: int) -> _Moments:
    """By the norm's place its input's first two raw moments, times images: these can be added."""
    flat = traverse_util.flatten_dict(statistics)
    found = {}
    for place in places(statistics):
        mean, var = (np.asarray(flat[(*place, each)], np.float64) for each in STATISTICS)
        found[place] = images * mean, images * (var + mean**2)
    return found


def _statistics(sums: _Moments, images: int) -> Params:
    """Mean and variance by the sums over so many images."""
    flat = {}
    for path, moments in sums.items():
        mean, square = (moment / images for moment in moments)
        for name, number in zip(STATISTICS, (mean, square - mean**2), strict=True):
            flat[(*path, name)] = np.asarray(number, np.float32)
    return traverse_util.unflatten_dict(flat)
