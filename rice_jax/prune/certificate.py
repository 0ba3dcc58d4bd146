"""What removal did to the logits, measured."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import numpy as np

from rice_jax import ops
from rice_jax.errors import UserError
from rice_jax.graph import call
from rice_jax.graph.batches import Batches
from rice_jax.graph.failing import taking
from rice_jax.graph.fronts import PureNet, opened
from rice_jax.graph.trace import trace
from rice_jax.inspection.rounding import rounding

_SUSPECT = 1e-5
"""Of a logit's own size: what moved by less is beneath a few roundings of float32."""

Given = tuple[Any, Any] | Any
"""A net and its variables; an NNX module alone."""


@dataclasses.dataclass(frozen=True)
class Certificate:
    """How far the logits of two nets are apart."""

    max_abs_logit_difference: float
    max_relative_logit_difference: float
    """The same over the largest absolute logit of either net on these images."""
    images: int
    changed_predictions: int
    """Images whose class with the largest logit is another one, where a net gives classes at each
    place of a map at any of them; 0 for a net of one number an image."""
    proven: bool
    """Whether they are equal but for float rounding on every possible image, not these alone. Where
    `rounding` can't be told, only nets that differ nowhere on these images are called so."""
    rounding: float | None
    """Where it is proven, what float rounding in both nets explains at the logit that differs most
    (`inspection.rounding`): never less than the difference. None for a net with a `while` loop or
    whatever else has no derivative."""
    departure: str | None = None
    """Where the smaller net's code computes otherwise than the whole one's, though not on a few
    random images: why nothing is proven. None where it does not, and where it was not asked."""

    def to_json(self) -> dict[str, Any]:
        """The certificate as plain JSON types."""
        return dataclasses.asdict(self)


def certify(
    before: Given,
    after: Given,
    batches: Iterable[Any],
    *,
    proven: bool = False,
    output: call.Output = None,
    **kwargs: Any,
) -> Certificate:
    """Compare two nets on all images.

    Args:
        before: a module and its variables, a function and its params, or an NNX module alone.
        after: the same of the smaller net.
        batches: images (B, H, W, C), alone or in pairs with labels, which do not count.
        proven: what is known of all other images.
        output: which of several outputs are the logits: a key, attribute or index, or a function.
        **kwargs: what else the modules' calls need, such as train=False.

    Raises:
        UserError: no images, or such as a net does not run on; logits of other shapes, complex, or
            without an axis of images; a logit that is NaN or infinite, in either net; a difference
            that float rounding does not explain though it was proven that there is none.
    """
    nets = [opened(*each) if isinstance(each, tuple) else opened(each) for each in (before, after)]

    @jax.jit
    def logits(variables: Any, images: Any) -> list[Any]:
        with ops.inference():
            return [
                _logits(net, each, images, output, kwargs)
                for (net, _), each in zip(nets, variables, strict=True)
            ]

    found = _Differences()
    for batch, _ in Batches(batches, keep=False):
        first, second = logits([variables for _, variables in nets], batch)
        found.meet(np.asarray(first), np.asarray(second), batch)
    if not found.images:
        raise UserError("no images to compare the nets on: give a split that has some")
    explained = found.explained(nets, kwargs | {"output": output}) if proven else None
    difference = found.worst.difference
    return Certificate(
        max_abs_logit_difference=difference,
        max_relative_logit_difference=difference / found.size if found.size else 0.0,
        images=found.images,
        changed_predictions=found.changed,
        proven=proven and (explained is not None or not difference),
        rounding=explained,
    )


def _logits(net: PureNet, variables: Any, images: Any, output: call.Output, kwargs: Any) -> Any:
    with taking(net.name, images.shape):
        result = net.apply(variables, images, **net.options(**kwargs))
    return call.chosen(result, output)


@dataclasses.dataclass
class _Worst:
    """The logit that differs most, in itself or `relative` to its own size; its image (1, H, W, C).

    A small logit beside a large one may move by much that the large one's rounding would hide.
    """

    relative: bool = False
    score: float = 0.0
    difference: float = 0.0
    place: tuple[int, ...] = ()
    image: Any = None

    def meet(self, first: np.ndarray, second: np.ndarray, images: Any) -> None:
        """Look at the logits (B, classes) of a batch of images."""
        first, second = first.astype(np.float64), second.astype(np.float64)
        apart = np.abs(first - second)
        size = np.maximum(np.abs(first), np.abs(second)) if self.relative else np.ones_like(apart)
        scores = np.divide(apart, size, out=np.zeros_like(apart), where=size > 0)
        if scores.size and (self.image is None or scores.max() > self.score):
            index = np.unravel_index(np.argmax(scores), scores.shape)
            row, *place = (int(each) for each in index)
            self.score, self.difference = float(scores.max()), float(apart[index])
            self.place, self.image = (0, *place), np.asarray(images[row : row + 1])


@dataclasses.dataclass
class _Differences:
    """What is known of two nets' logits on the images met so far."""

    worst: _Worst = dataclasses.field(default_factory=_Worst)
    beside: _Worst = dataclasses.field(default_factory=lambda: _Worst(relative=True))
    images: int = 0
    changed: int = 0
    """Images with another prediction."""
    size: float = 0.0
    """The largest absolute logit."""

    def meet(self, first: np.ndarray, second: np.ndarray, images: Any) -> None:
        """Look at the logits (B, classes) of a batch; UserError for such as can't be compared."""
        _refuse_unlike(first, second, len(images))
        _refuse_not_finite(first, second, self.images)
        self.worst.meet(first, second, images)
        self.beside.meet(first, second, images)
        self.changed += _changed(first, second)
        self.images += len(images)
        self.size = max(
            self.size, *(float(np.abs(each).max(initial=0)) for each in (first, second))
        )

    def explained(self, nets: Sequence[tuple[PureNet, Any]], kwargs: Any) -> float | None:
        """What rounding explains of the worst; UserError where it explains less than there is."""
        explained = _explained(nets, self.worst, kwargs)
        if explained is not None and self.beside.score > _SUSPECT:
            _explained(nets, self.beside, kwargs)
        return explained


def _changed(first: np.ndarray, second: np.ndarray) -> int:
    """Of how many images the largest logit is another one, where of several places at any."""
    if first.ndim < 2 or not first.size:
        return 0
    other = first.argmax(-1) != second.argmax(-1)
    return int(other.reshape(len(other), -1).any(axis=1).sum())


def _refuse_unlike(first: np.ndarray, second: np.ndarray, images: int) -> None:
    """UserError where the logits are not as many, not of so many images, or no real numbers."""
    if first.shape[:1] != (images,):
        raise UserError(
            f"the nets cannot be compared: their logits are {first.shape} of {images} images; the "
            "first axis must be the images'"
        )
    if first.shape != second.shape or np.iscomplexobj(first) or np.iscomplexobj(second):
        raise UserError(
            f"the nets cannot be compared: their logits are {first.dtype} {first.shape} and "
            f"{second.dtype} {second.shape}"
        )


def _refuse_not_finite(first: np.ndarray, second: np.ndarray, images: int) -> None:
    """UserError where a logit is NaN or infinite: no difference can be told there."""
    for logits, net in ((first, "whole"), (second, "smaller")):
        odd = ~np.isfinite(logits.astype(np.float64)).reshape(len(logits), -1).all(axis=1)
        if odd.any():
            raise UserError(
                f"the nets cannot be compared: the {net} one gives NaN or infinity on image "
                f"{images + int(np.argmax(odd))}"
            )


def _shape(array: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(np.shape(array), array.dtype)


def _explained(nets: Sequence[tuple[PureNet, Any]], worst: _Worst, kwargs: Any) -> float | None:
    """What rounding explains of a difference; UserError where that is less than it."""
    explained = 0.0
    for net, variables in nets:
        shapes = jax.tree.map(_shape, variables)
        traced = trace(net, worst.image.shape, worst.image.dtype, shapes=shapes, **kwargs)
        try:
            logits = traced.the_logits()
            explained += rounding(traced, variables, worst.image, logits, worst.place)
        except (ValueError, NotImplementedError, TypeError):
            # TypeError is JAX's own, of the gradient of a `pad` by a computed number.
            return None
    if worst.difference > explained:
        raise UserError(
            f"a logit moved by {worst.difference:.2g} where float rounding explains "
            f"{explained:.2g}, though it was proven that none does: the smaller net computes "
            "something else, or the images leave the range of pixels that the proof is for"
        )
    return explained
