"""Criteria: how much each channel is worth; what is worth least goes first."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from rice_jax import ops
from rice_jax.errors import UserError, reason
from rice_jax.graph.batches import Batches
from rice_jax.graph.call import by_path
from rice_jax.graph.trace import Value
from rice_jax.prune.dependencies import Dependencies, along


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What a criterion may look at."""

    graph: Dependencies
    variables: Any
    batches: Iterable[tuple[Any, Any]]
    """Pairs of images (B, H, W, C) and labels (B,) or None; read once a criterion, from the
    start."""
    seed: int = 0


_MEANS = ("batch_stats/{}/mean", "params/{}/running_mean")
"""Where a batch norm has its running mean: in Flax, and in a trained run, whose statistics are
among its parameters. By it the norms of groups and of layers are told apart, that have none."""

Criterion = Callable[[Evidence], np.ndarray]
"""From evidence to one number a channel."""


def l1(evidence: Evidence) -> np.ndarray:
    """Sum of a filter's absolute weights (Li et al. 2017, arXiv:1608.08710), over its layer's mean.

    The mean makes layers comparable, which the paper prunes one by one.
    """
    return _over_layers(evidence, lambda rows: np.abs(rows).sum(1))


def l2(evidence: Evidence) -> np.ndarray:
    """Root of the sum of a filter's squared weights, over its layer's mean as in `l1`."""
    return _over_layers(evidence, lambda rows: np.sqrt((rows**2).sum(1)))


def batch_norm(evidence: Evidence) -> np.ndarray:
    """Absolute scale of the batch normalisations that a channel passes (Liu et al. 2017).

    The mean of all of them, as it is (arXiv:1708.06519, without its training for sparsity). A
    channel that passes none is worth as much as the mean of all that do.

    Raises:
        UserError: the net has no batch normalisation with a scale.
    """
    graph, variables = evidence.graph, by_path(evidence.variables)
    total, passed = np.zeros(graph.channels), np.zeros(graph.channels)
    for path, _, channels in graph.variables():
        module = path.removeprefix("params/").removesuffix("/scale")
        means = (place.format(module) for place in _MEANS)
        if path == f"params/{module}/scale" and any(mean in variables for mean in means):
            free = channels >= 0
            scale = np.abs(np.asarray(variables[path], np.float64))
            np.add.at(total, channels[free], scale[free])
            np.add.at(passed, channels[free], 1)
    if not passed.any():
        raise UserError(
            "criterion 'batch_norm': the net has no batch normalisation with a scale that its "
            "filters pass; try 'taylor'"
        )
    scales = total / np.maximum(passed, 1)
    return np.where(passed > 0, scales, scales[passed > 0].mean())


def geometric_median(evidence: Evidence) -> np.ndarray:
    """A filter's distance to all others of its layer (He et al. 2019, arXiv:1811.00250).

    Least at the layer's geometric median, where the others can stand in for it; over its layer's
    mean, as in `l1`.
    """

    def distances(rows: np.ndarray) -> np.ndarray:
        squares = (rows**2).sum(1)
        between = squares[:, None] + squares[None] - 2 * rows @ rows.T
        return np.sqrt(np.maximum(between, 0)).sum(1)

    return _over_layers(evidence, distances)


def apoz(evidence: Evidence) -> np.ndarray:
    """Share of a map that is not zero: 1 - APoZ (Hu et al. 2016, arXiv:1607.03250).

    Over the outputs of all ReLUs that a channel passes; where it passes none, where it is read.
    """
    graph = evidence.graph
    relus = [equation.outputs[0] for equation in graph.trace.equations if equation.name == "relu"]
    rectified = [place for value in relus for place in _axes(graph, value)]
    read = list(_reading_places(graph))

    def nonzero(variables: Any, image: jax.Array, _: jax.Array) -> jax.Array:
        values = [value for value, _ in (*rectified, *read)]
        with ops.inference():
            arrays = graph.trace.evaluate(variables, image[None], values, run=ops.replayed)
        shares = [
            jnp.mean(array != 0, axis=_others(array, axis))
            for array, (_, axis) in zip(arrays, (*rectified, *read), strict=True)
        ]
        passed = _mean_by_channel(graph, rectified, shares[: len(rectified)])
        arrived = _mean_by_channel(graph, read, shares[len(rectified) :])
        return jnp.where(jnp.isnan(passed), arrived, passed)

    return _mean_over_images(evidence, nonzero)


def taylor(evidence: Evidence) -> np.ndarray:
    """What the loss changes by, to first order, without a channel (Molchanov et al. 2017).

    |sum over the map of activation x gradient|, averaged over images (arXiv:1611.06440, without
    its normalisation by layer): the gradient of the loss by a factor on the channel. Where the net
    gives classes at each place of a map, an image's label holds at all of them; of labels for each
    place those that are no class (255, -1) have no loss.
    """
    graph, wanted = evidence.graph, evidence.graph.trace.the_logits()
    places = list(_reading_places(graph))

    def influence(variables: Any, image: jax.Array, label: jax.Array) -> jax.Array:
        def loss(factors: list[jax.Array]) -> jax.Array:
            edits: dict[Value, Any] = {}
            for (value, axis), factor in zip(places, factors, strict=True):
                edits[value] = _then(edits.get(value), _scale(factor, axis, len(value.shape)))
            (logits,) = graph.trace.evaluate(
                variables, image[None], [wanted], edits, run=ops.replayed
            )
            if not jnp.issubdtype(logits.dtype, jnp.floating):  # of which optax's releases differ
                raise TypeError(f"its logits are of {logits.dtype}")
            labels = label.reshape(1, *label.shape, *(1,) * (logits.ndim - 2 - label.ndim))
            labels = jnp.broadcast_to(labels, logits.shape[:-1])
            known = _known(labels, logits.shape)
            labels = jnp.where(known, labels, 0)
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            return jnp.where(known, losses, 0).mean()

        ones = [jnp.ones(value.shape[axis]) for value, axis in places]
        try:
            slopes = jax.grad(loss)(ones)
        except (ValueError, NotImplementedError, TypeError) as error:  # as JAX has them
            raise UserError(
                f"criterion 'taylor' needs the loss's gradient, which the net does not give: "
                f"{reason(error)}; try criterion='l1'"
            ) from error
        return jnp.abs(_gather(graph, places, slopes))

    return _mean_over_images(evidence, influence, labelled=True)


def random(evidence: Evidence) -> np.ndarray:
    """No reason at all: the baseline."""
    return np.random.default_rng(evidence.seed).random(evidence.graph.channels)


CRITERIA: Mapping[str, Criterion] = MappingProxyType(
    {
        "taylor": taylor,
        "l1": l1,
        "l2": l2,
        "batch_norm": batch_norm,
        "geometric_median": geometric_median,
        "apoz": apoz,
        "random": random,
    }
)
"""By name: what a filter is judged by, the least of which goes first."""


def importance(criterion: str, evidence: Evidence) -> np.ndarray:
    """One number a channel by the criterion of that name; UserError where there is none."""
    if criterion not in CRITERIA:
        raise UserError(f"criterion {criterion!r}: there are {', '.join(CRITERIA)}")
    scores = CRITERIA[criterion](evidence)
    if not np.isfinite(scores).all():
        raise UserError(f"{criterion} is not finite: the net gives NaN or infinity on these images")
    return scores


def _over_layers(evidence: Evidence, score: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Add up what each layer's filters score, relative to the mean of their layer."""
    weights = by_path(evidence.variables)
    total = np.zeros(evidence.graph.channels)
    for filters in evidence.graph.filters.values():
        rows = np.moveaxis(np.asarray(weights[filters.variable], np.float64), filters.axis, 0)
        scores = score(rows.reshape(len(rows), -1))
        scores = scores / max(scores.mean(), np.finfo(float).tiny)
        free = filters.channels >= 0
        np.add.at(total, filters.channels[free], scores[free])
    return total


Place = tuple[Value, int]
"""A value and its axis that holds channels."""


def _axes(graph: Dependencies, value: Value) -> Iterator[Place]:
    for axis, channels in enumerate(graph.axes[value]):
        if np.any(channels >= 0):
            yield value, axis


def _reading_places(graph: Dependencies) -> Iterator[Place]:
    """Where channels are summed over, each value once."""
    seen = set()
    for contraction in graph.contractions:
        place = contraction.place
        if place not in seen and np.any(graph.read(contraction) >= 0):
            seen.add(place)
            yield place


def _gather(graph: Dependencies, places: Iterable[Place], lines: Iterable[Any]) -> jax.Array:
    """Add numbers along axes up to one number a channel."""
    total = jnp.zeros(graph.channels)
    for (value, axis), line in zip(places, lines, strict=True):
        channels = graph.axes[value][axis]
        free = np.flatnonzero(channels >= 0)
        total = total.at[channels[free]].add(line[free])
    return total


def _mean_by_channel(graph: Dependencies, places: Sequence[Place], lines: Any) -> jax.Array:
    """As `_gather`, but the mean; NaN for a channel that is in none of the places."""
    counts = _gather(graph, places, [jnp.ones(value.shape[axis]) for value, axis in places])
    return _gather(graph, places, lines) / counts


def _others(array: jax.Array, axis: int) -> tuple[int, ...]:
    return tuple(other for other in range(array.ndim) if other != axis)


def _scale(factor: jax.Array, axis: int, rank: int) -> Callable[[jax.Array], jax.Array]:
    line = along(factor, axis, rank)
    # In the factor's own precision, in which the gradient is then summed up; what reads the array
    # takes it in its type alone.
    return lambda array: (array * line).astype(array.dtype)


def _then(first: Any, second: Callable[[jax.Array], jax.Array]) -> Callable[[jax.Array], jax.Array]:
    return second if first is None else lambda array: second(first(array))


def _mean_over_images(
    evidence: Evidence, measure: Callable[..., jax.Array], labelled: bool = False
) -> np.ndarray:
    """The mean of measure(variables, image, label), one number a channel, over all images."""
    total, images = np.zeros(evidence.graph.channels), 0
    batched = jax.jit(
        lambda variables, *batch: jax.vmap(measure, (None, 0, 0))(variables, *batch).sum(0)
    )
    for batch, labels in Batches(evidence.batches):
        if labels is None and labelled:
            raise UserError(
                "this criterion needs labels: give batches of pairs (images, labels), or "
                "criterion='l1'"
            )
        if labelled:
            _check_labels(np.asarray(labels), evidence.graph.trace.the_logits().shape)
        labels = np.zeros(len(batch), np.int32) if labels is None else labels
        total += np.asarray(batched(evidence.variables, batch, labels), np.float64)
        images += len(batch)
    if not images:
        raise UserError("no images to judge filters on: give a split that has some")
    return total / images


def _check_labels(labels: np.ndarray, logits: Sequence[int]) -> None:
    """UserError where labels are not a class's number for each image, or for each place of it.

    Some places may have another, as segmented images have where nothing is said.
    """
    places = tuple(logits[1:-1])
    if not np.issubdtype(labels.dtype, np.integer) or labels.shape[1:] not in (
        places[:rank] for rank in range(len(places) + 1)
    ):
        raise UserError(
            f"labels are the classes' numbers, one an image, not {labels.dtype} of shape "
            f"{labels.shape}"
        )
    known = _known(labels, logits)
    strange = labels[~known]
    if strange.size and (labels.ndim == 1 or not known.any()):
        raise UserError(
            f"labels are the classes' numbers, from 0 to {logits[-1] - 1}, and there is a "
            f"{strange.flat[0]}"
        )


def _known(labels: Any, logits: Sequence[int]) -> Any:
    """Which labels are the number of a class of logits of this shape."""
    return (labels >= 0) & (labels < logits[-1])
