"""What a recipe asks of each step and each epoch: its learning rate, its image size, how many."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from rice_jax import nets
from rice_jax.errors import UserError
from rice_jax.graph.remembered import remembered
from rice_jax.records import EpochRow

Recipe = Any
"""The `train` part of a configuration."""

STUDY, QUICK = "study", "quick"


@dataclasses.dataclass(frozen=True)
class Schedule:
    """A training from its first step to the last that may come: what it learns from, how fast."""

    recipe: Recipe
    sizes: tuple[int, ...]
    """Height and width of the images of each epoch."""
    validated: tuple[int, ...]
    """Height and width of the images that each epoch is validated on."""
    images: int
    """Of an epoch."""

    @property
    def steps_an_epoch(self) -> int:
        """Batches of an epoch, the last of which may be filled up."""
        return -(-self.images // self.recipe.batch_size)

    def size(self, epoch: int) -> int:
        """Height and width of the images of epoch `epoch` (from 0); after the last one, of its."""
        return self.sizes[min(epoch, len(self.sizes) - 1)]

    def validation_size(self, epoch: int) -> int:
        """As `size`, of the images that epoch `epoch` is validated on."""
        return self.validated[min(epoch, len(self.validated) - 1)]

    def rate(self, step: int, held: float, restarts: int = 0) -> float:
        """Learning rate of step `step` (from 0, through all epochs).

        The study's schedule has the one that is `held`, which validation alone changes. By the
        quick one it is half as high in each try as in the one before: so high a rate brings deep
        nets to rest, whatever their seed.
        """
        if self.recipe.schedule == STUDY:
            return held
        rate = quick_rate(self.recipe, step, len(self.sizes) * self.steps_an_epoch)
        return rate / 2**restarts

    def told(self, config: ml_collections.ConfigDict) -> str:
        """What to say beforehand of images that are not whole; empty where all are."""
        whole, grid = config.data.image_size, config.model.get("grid", 0)
        told = nets.learned_from(self.sizes, self.validated, whole, grid)
        return told and f"{config.model.name} learns from {told}"

    def seconds_left(self, history: Sequence[EpochRow]) -> float:
        """How long the epochs after those of `history` take at most.

        Each takes what the newest one took for each of its pixels. A size that is yet to come is
        compiled once, for as long as any epoch's was.
        """
        ended, newest = len(history), history[-1].spent()
        size, to_come = self.sizes[ended - 1], self.sizes[ended:]
        computing = sum(newest.values()) - newest.get("compiling", 0.0)
        compiling = max(row.spent().get("compiling", 0.0) for row in history)
        return computing * sum((each / size) ** 2 for each in to_come) + compiling * len(
            {*to_come} - {size}
        )


def epochs(recipe: Recipe) -> int:
    """Epochs that are planned: all of them where the schedule is quick, at most so many else."""
    return sum(recipe.quick.epochs) if recipe.schedule == QUICK else recipe.epochs


def images(recipe: Recipe, available: int) -> int:
    """Images of an epoch, of those that the training split has."""
    return min(available, recipe.images or available)


def validation_images(recipe: Recipe, available: int) -> int:
    """Images that are looked at after an epoch, of those that the validation split has."""
    return min(available, recipe.validation_images or available)


def planned(recipe: Recipe) -> tuple[int, float]:
    """How many epochs there may be, and the highest learning rate in them."""
    rate = recipe.quick.peak_rate if recipe.schedule == QUICK else recipe.learning_rate
    return epochs(recipe), rate


def weight_decay(recipe: Recipe) -> float:
    """What AdamW takes off a kernel in a step, as a share of it, for a learning rate of 1."""
    return recipe.quick.weight_decay if recipe.schedule == QUICK else 0.0


def quick_rate(recipe: Recipe, step: int, steps: int) -> float:
    """Learning rate of step `step` (from 0) of `steps`: a linear warm-up, then half a cosine.

    The cosine is that of Loshchilov and Hutter 2017 (arXiv:1608.03983) without restarts. The
    warm-up's last step has the peak rate, and so has the one after it; the rate after the last
    step would be 0.
    """
    warmup = int(recipe.quick.warmup * steps)
    if step < warmup:
        return recipe.quick.peak_rate * (step + 1) / warmup
    return recipe.quick.peak_rate * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2


def image_sizes(recipe: Recipe, module: nn.Module, image_size: int) -> tuple[int, ...]:
    """Height and width of the images that each epoch learns from.

    Smaller ones come first by the quick schedule, where the module's parameters do not depend on
    the size: a net that averages its maps. One that flattens them learns at `image_size` always,
    one that averages the image from none that is smaller than what it makes of it.

    Raises:
        UserError: images that the net would pool away.
    """
    whole, vanished = _shapes(module, image_size)
    if vanished:
        raise UserError(
            f"config.data.image_size={image_size} is too small for this net, whose layers pool all "
            "of such an image away: give larger images"
        )
    if recipe.schedule == STUDY:
        return (image_size,) * recipe.epochs
    sizes = quick_sizes(recipe.quick.shrink, image_size, getattr(module, "grid", 0))
    if any(_shapes(module, max(size, 1))[0] != whole for size in sizes):
        sizes = [image_size] * len(sizes)
    for size in sizes:
        if size < 1 or vanishes(module, size):
            raise UserError(
                f"config.train.quick.shrink={recipe.quick.shrink!r} makes images of {size} x "
                f"{size} pixels, too small for this net: give --config.train.quick.shrink=1 "
                f"--config.train.quick.epochs={sum(recipe.quick.epochs)} to learn from whole ones"
            )
    pairs = zip(sizes, recipe.quick.epochs, strict=True)
    return tuple(size for size, count in pairs for _ in range(count))


def quick_sizes(shrink: Sequence[int], image_size: int, grid: int) -> list[int]:
    """About `image_size` / each of `shrink`: sizes that a net takes for those of whole images.

    One that averages images to about `grid` makes of each what it makes of a whole one. Of others
    it would learn what is of no use there, and at `image_size` itself it may never learn.
    """
    sizes = [image_size // each for each in shrink]
    if not grid:
        return sizes
    seen, block = nets.averaged(image_size, grid), nets.block(image_size, grid)
    return [
        size if nets.averaged(size, grid) == seen else seen * max(1, block // each)
        for size, each in zip(sizes, shrink, strict=True)
    ]


def fits(module: nn.Module, params: Any, size: int) -> bool:
    """Whether a net with these parameters takes images of `size` x `size` pixels."""
    shapes, vanishes = _shapes(module, size)
    wanted = jax.tree.map(lambda leaf: leaf.shape, shapes["params"])
    return not vanishes and wanted == jax.tree.map(np.shape, params)


def takes(module: nn.Module, size: int) -> bool:
    """Whether the net runs on images of `size` x `size` pixels, and pools none of them away."""
    shapes, vanished = _shapes(module, size)
    return bool(shapes["params"]) and not vanished


def vanishes(module: nn.Module, size: int) -> bool:
    """Whether a layer of the net pools images of `size` x `size` pixels away."""
    return _shapes(module, size)[1]


@remembered(32)  # a trace of a large net takes a second
def _shapes(module: nn.Module, size: int) -> tuple[Any, bool]:
    """Shapes of the parameters for images of a size, and whether a layer pools those away.

    No shapes where the net does not run on them.
    """

    def init() -> Any:
        images = jnp.zeros((1, size, size, 3))
        return module.init(jax.random.key(0), images, capture_intermediates=True)

    try:
        found = dict(jax.eval_shape(init))
    except ZeroDivisionError:
        # Older JAX divides by a dense layer's inputs, of which a map pooled away leaves none.
        return {"params": {}}, True
    except Exception:
        # An NNX net that flattens its maps has one size, as does code that asks for it.
        return {"params": {}}, False
    outputs = jax.tree.leaves(found.pop("intermediates"))
    return found, any(leaf.size == 0 for leaf in outputs)
