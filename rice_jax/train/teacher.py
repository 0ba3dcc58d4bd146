"""A trained net that another learns from: its softened answers beside the labels.

Source: Hinton, Vinyals and Dean 2015 (arXiv:1503.02531), section 2.
"""

import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import ml_collections
import optax

from rice_jax import nets, zoo
from rice_jax.errors import UserError
from rice_jax.run import Run, where_moved
from rice_jax.train import schedule, state, weights
from rice_jax.train.state import Params


class Teacher(NamedTuple):
    """A net as its training left it, and how much it has to say."""

    module: nn.Module
    params: Params
    temperature: float
    """What the logits of both nets are divided by before their probabilities are compared."""
    weight: float
    """Of its answers in the loss; the labels have the rest, 1 - weight."""

    @property
    def digest(self) -> str:
        """Of its parameters: with others it is another teacher."""
        return state.digest(self.params)

    def mixed(self, labelled: jax.Array, logits: jax.Array, answers: jax.Array) -> jax.Array:
        """The loss of each image (N,) that is to be learnt from, in nats.

        The cross-entropy between both nets' probabilities at the temperature T is taken times T^2,
        so that its gradient keeps its size whatever T is.

        Args:
            labelled: cross-entropy with the labels (N,).
            logits: of the net that learns (N, classes).
            answers: the teacher's logits for the same images (N, classes).
        """
        heat = self.temperature
        softened = optax.softmax_cross_entropy(logits / heat, jax.nn.softmax(answers / heat))
        return (1 - self.weight) * labelled + self.weight * heat**2 * softened


def named(config: ml_collections.ConfigDict) -> str:
    """The teacher that is learnt from; empty where there is none, or its weight is 0."""
    return config.train.teacher if config.train.distill.weight else ""


def load(config: ml_collections.ConfigDict, dataset: Any, run: Run | None = None) -> Teacher | None:
    """The teacher that config.train.teacher names; None without one, or where its weight is 0.

    Args:
        config: of the net that learns.
        dataset: its images.
        run: its folder. With it there is a warning, on standard error, of images of a size that
            the teacher was not trained on.

    Raises:
        UserError: the teacher is missing, tells other classes apart, or cannot take images of a
            size that is learnt from.
    """
    source, distill = named(config), config.train.distill
    if not source:
        return None
    told = f"config.train.teacher={source!r}"
    if source.startswith(zoo.PREFIX):
        entry = zoo.load(source.removeprefix(zoo.PREFIX))
        module, params, theirs = entry.module, entry.variables["params"], entry.card.config
        classes = entry.card.data.classes
    else:
        folder = Run(source)
        if not folder.path.is_dir():
            raise UserError(f"{told}: there is no such folder; {where_moved(source)}")
        trained = weights.load(folder)
        module, params, classes = trained.module, trained.params, trained.classes
        theirs = trained.config.to_dict()
    if classes != tuple(dataset.classes):
        raise UserError(
            f"{told} is a net for {', '.join(classes)}; the images are of "
            f"{', '.join(dataset.classes)}"
        )
    for size in sorted(set(weights.image_sizes(config))):
        if not schedule.fits(module, params, size):
            raise UserError(f"{told} cannot take images of {size} x {size} pixels")
        if run and _sees(theirs, size) not in _seen(theirs) and jax.process_index() == 0:
            print(
                f"WARNING: {source} was not trained on images of {size} x {size} pixels: it may "
                "teach what is wrong",
                file=sys.stderr,
            )
    return Teacher(module, params, distill.temperature, distill.weight)


def refuse_itself(config: ml_collections.ConfigDict, run: Run) -> None:
    """UserError where the teacher is the run that learns."""
    source = named(config)
    if source and not source.startswith(zoo.PREFIX) and Run(source).is_at(run.path):
        raise UserError(f"config.train.teacher={source!r} is the run itself: name another")


def _seen(config: Mapping[str, Any]) -> set[int]:
    """Height and width of what a net of this configuration saw of the images it learnt from."""
    whole, recipe = config["data"]["image_size"], config["train"]
    shrink = recipe["quick"]["shrink"] if recipe.get("schedule") == schedule.QUICK else ()
    sizes = schedule.quick_sizes(shrink, whole, config["model"].get("grid", 0))
    return {_sees(config, size) for size in (*sizes, whole)}


def _sees(config: Mapping[str, Any], size: int) -> int:
    """Height and width of an image of `size` pixels once the net has averaged it."""
    return nets.averaged(size, config["model"].get("grid", 0))
