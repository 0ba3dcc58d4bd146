"""The two compiled steps: one that learns from a batch, one that measures on a batch."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from rice_jax import data, ops
from rice_jax.errors import UserError
from rice_jax.models.statistics import COLLECTION, Rows, norms, updated
from rice_jax.train.feed import AXIS
from rice_jax.train.state import Params, TrainState, adam, merge, replicate
from rice_jax.train.teacher import Teacher

MOST_ARRAYS = 50
"""Of nets with more, the step is two programs, which XLA compiles in less memory than one."""
_SMALL = 1 << 16
"""Numbers of an array that costs nothing to copy."""
Batch = dict[str, Any]
"""image uint8 (B, H, W, C), label int32 (B,), weight float32 (B,), signal int32 (devices,)."""


class Metrics(struct.PyTreeNode):
    """What a training step says of its batch."""

    loss: jax.Array
    """Sum over the images of the cross-entropy with the labels, in nats, before the update."""
    correct: jax.Array
    images: jax.Array
    finite: jax.Array
    """False where loss or gradient was not finite; the state then stays what it was."""
    signal: jax.Array
    """Largest of the processes' signals."""


class Sums(struct.PyTreeNode):
    """What a measuring step says of its batch."""

    loss: jax.Array
    """Sum over the images of the cross-entropy, in nats."""
    confusion: jax.Array
    """Number of images by true class (row) and predicted class (column)."""
    signal: jax.Array
    """Largest of the processes' signals."""


def train_step(
    module: nn.Module,
    mesh: Mesh,
    *,
    seed: int,
    augment: bool,
    weight_decay: float = 0.0,
    teacher: Teacher | None = None,
) -> Callable[[TrainState, Batch, Any, Any], tuple[TrainState, Metrics]]:
    """Compile f(state, batch, index, learning_rate) -> (state, metrics) over all of the mesh.

    The state is donated. `index` is the number of steps before this one: with the seed it alone
    decides dropout and augmentation. Once a step has met a loss or a gradient that is not finite,
    that step and all after it leave the state as it was, since the state's own count of steps no
    longer equals the index: what went wrong can be looked at however late it is noticed.

    `weight_decay` is AdamW's (Loshchilov and Hutter 2019, arXiv:1711.05101): each step takes that
    share, times the learning rate, off the kernels. A `teacher` answers on the same images as
    the net that learns, augmented alike, and never changes.
    """

    measure = _Lesson(module, mesh, seed, augment, teacher).measured
    learn = functools.partial(_learned, weight_decay=weight_decay)

    def at_once(
        state: TrainState, batch: Batch, index: jax.Array, rate: jax.Array, knowledge: Params
    ) -> tuple[TrainState, Metrics]:
        return learn(state, index, rate, *measure(state, batch, index, knowledge))

    knowledge = replicate(teacher.params, mesh) if teacher else {}
    whole = _over(mesh, at_once, replicated=(True, False, True, True, True), donate=0)
    first = _over(mesh, measure, replicated=(True, False, True, True))
    second = _over(mesh, learn, replicated=(True,) * 5, donate=0)

    def step(state: TrainState, batch: Batch, index: Any, rate: Any) -> tuple[TrainState, Metrics]:
        if len(jax.tree.leaves(state.trainable)) <= MOST_ARRAYS:
            return whole(state, batch, index, rate, knowledge)
        return second(state, index, rate, *first(state, batch, index, knowledge))

    return step


@dataclasses.dataclass(frozen=True)
class _Lesson:
    """What a training step measures on its batch."""

    module: nn.Module
    mesh: Mesh
    seed: int
    augment: bool
    teacher: Teacher | None

    def measured(
        self, state: TrainState, batch: Batch, index: jax.Array, knowledge: Params
    ) -> tuple[Any, jax.Array]:
        """Sums over a batch's images, of loss, hits, weights and gradients, and its signal."""
        params = merge(state.trainable, state.frozen)
        size = _part_size(self.module, params, batch, self.mesh)
        if self.teacher is not None:
            size = min(size, _part_size(self.teacher.module, knowledge, batch, self.mesh))
        if norms(state.trainable):  # images that see each other in a norm are computed together
            size = len(batch["image"])

        def totals_of(row: jax.Array, part: Batch) -> tuple[Any, ...]:
            return self._totals(state, part, row + _first(batch["image"]), index, knowledge)

        return _over_all(totals_of, batch, size, self.mesh)

    def _totals(
        self, state: TrainState, part: Batch, first: jax.Array, index: jax.Array, knowledge: Params
    ) -> tuple[Any, ...]:
        """The sums of a part, the `first` of whose images has that index in the global batch."""
        images, dropout_key = _inputs(self.seed, index, part["image"], self.augment, first)
        net, rngs = _at(self.module, first, part, state), streams(dropout_key, first)
        answers = _answers(self.teacher, knowledge, images)

        def total_loss(trainable: Params) -> tuple[jax.Array, tuple[Any, ...]]:
            params = merge(trainable, state.frozen)
            with ops.joined():
                logits, left = net.apply(
                    {"params": params}, images, train=True, rngs=rngs, mutable=[COLLECTION]
                )
            entropies = _entropies(logits, part)
            loss = jnp.sum(entropies * part["weight"])
            if self.teacher is None:
                return loss, (loss, logits, left)
            mixed = self.teacher.mixed(entropies, logits, answers)
            return jnp.sum(mixed * part["weight"]), (loss, logits, left)

        gradients, (loss, logits, left) = jax.grad(total_loss, has_aux=True)(state.trainable)
        hits = part["weight"] * (jnp.argmax(logits, axis=-1) == part["label"])
        # Every device has the statistics of all, and the sum over them is to be these.
        shares = jax.tree.map(lambda leaf: leaf / self.mesh.size, left.get(COLLECTION, {}))
        return loss, hits.sum(), part["weight"].sum(), gradients, shares


def eval_step(
    module: nn.Module, mesh: Mesh, classes: int, *, augment_seed: int | None = None
) -> Callable[[Params, Batch, Any], Sums]:
    """Compile f(params, batch, first) -> sums over all of the mesh.

    `first` is the batch's first image's index in the split: with the seed it decides how each
    image is augmented, so that the batch size does not. It raises UserError for a net of another
    number of classes, whose answers would be in no row.
    """

    def step(params: Params, batch: Batch, first: jax.Array) -> Sums:
        def totals_of(row: jax.Array, part: Batch) -> tuple[jax.Array, jax.Array]:
            """Loss and confusion of a part."""
            place = first + _first(batch["image"]) + row
            images = evaluation_inputs(part["image"], place, augment_seed=augment_seed)
            with ops.inference(), ops.joined():
                logits: Any = module.apply({"params": params}, images, train=False)
            if logits.shape[1:] != (classes,):
                raise UserError(
                    f"the net gives logits (N, {', '.join(map(str, logits.shape[1:]))}) of N "
                    f"images, which are of {classes} classes"
                )
            counted = jnp.zeros((classes, classes), jnp.int32)
            counted = counted.at[part["label"], jnp.argmax(logits, axis=-1)].add(
                part["weight"].astype(jnp.int32)
            )
            return _loss(logits, part), counted

        size = _part_size(module, params, batch, mesh)
        (loss, confusion), signal = _over_all(totals_of, batch, size, mesh)
        return Sums(loss=loss, confusion=confusion, signal=signal)

    return _over(mesh, step, replicated=(True, False, True))


@functools.partial(jax.jit, static_argnames="augment_seed")
def evaluation_inputs(
    images: jax.Array, first: jax.Array | int = 0, *, augment_seed: int | None = None
) -> jax.Array:
    """What a net is evaluated on, in [0, 1]: images (N, H, W, C) as they are, or augmented.

    Args:
        images: uint8 pixels.
        first: index of the first of them in the split.
        augment_seed: decides with an image's index how it is augmented; None leaves it alone.
    """
    return _inputs(augment_seed or 0, 0, images, augment_seed is not None, first)[0]


def training_inputs(
    images: Any, *, seed: int, index: int, augment: bool
) -> tuple[jax.Array, jax.Array]:
    """The images (N, H, W, C) in [0, 1] and the dropout key of step `index`, for a look at it."""
    return _inputs(seed, index, jnp.asarray(images), augment, 0)


def streams(dropout_key: jax.Array, first: jax.Array | int = 0) -> dict[str, jax.Array]:
    """The random streams of a net that learns from the images of the global batch from `first` on.

    Dropout draws by an image's index from one key for all. Flax lets every other stream, such as a
    net's own for the depth that it drops, draw from 'params': here another in each part.
    """
    return {"dropout": dropout_key, "params": jax.random.fold_in(dropout_key, first)}


def _at(module: nn.Module, first: jax.Array, part: Batch, state: TrainState) -> nn.Module:
    """The net for images of the global batch from the `first` on."""
    still, learning = norms(state.frozen), norms(state.trainable)
    given: Any = {"rows": Rows(part["weight"], AXIS)} if learning else {}
    if still:  # Keras's frozen norms neither see the batch nor learn of it
        given["still"] = still
    return module.clone(first_image=first, **given)


def _learned(
    state: TrainState,
    index: jax.Array,
    learning_rate: jax.Array,
    totals: Any,
    signal: jax.Array,
    *,
    weight_decay: float,
) -> tuple[TrainState, Metrics]:
    """The state after the sums over a batch's images; as it was where they are not finite."""
    loss, correct, images, gradients, statistics = totals
    share = 1 / images
    finite = _all_finite((loss, share, gradients)) & (state.step == index)
    # XLA computes a product where it is used, and a quotient apart from that: more to compile.
    gradients = jax.tree.map(lambda gradient: gradient * share, gradients)
    state = jax.tree.map(
        lambda new, old: jnp.where(finite, new, old),
        _updated(state, gradients, learning_rate, weight_decay, statistics),
        state,
    )
    return state, Metrics(loss=loss, correct=correct, images=images, finite=finite, signal=signal)


def _updated(
    state: TrainState,
    gradients: Params,
    learning_rate: jax.Array,
    weight_decay: float,
    statistics: Params,
) -> TrainState:
    updates, moments = adam().update(gradients, state.moments)
    if weight_decay:
        updates = jax.tree_util.tree_map_with_path(
            lambda path, u, p: u + weight_decay * p if path[-1].key == "kernel" else u,
            updates,
            state.trainable,
        )
    trainable = jax.tree.map(lambda p, u: p - learning_rate * u, state.trainable, updates)
    return TrainState(state.step + 1, updated(trainable, statistics), state.frozen, moments)


def _inputs(
    seed: int, index: jax.Array | int, images: jax.Array, augment: bool, first: jax.Array | int
) -> tuple[jax.Array, jax.Array]:
    augment_key, dropout_key = jax.random.split(jax.random.fold_in(jax.random.key(seed), index))
    pixels = data.augment(augment_key, images, first) if augment else images.astype(jnp.float32)
    return pixels / 255.0, dropout_key


def _first(images: jax.Array) -> jax.Array:
    """Index in the global batch of this device's first image."""
    return lax.axis_index(AXIS) * images.shape[0]


def _answers(teacher: Teacher | None, params: Params, images: jax.Array) -> jax.Array:
    """A teacher's logits (N, classes); none, of shape (0,), without one."""
    if teacher is None:
        return jnp.zeros(0)
    with ops.inference(), ops.joined():
        answers: Any = teacher.module.apply({"params": params}, images, train=False)
    return answers


def _entropies(logits: jax.Array, batch: Batch) -> jax.Array:
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])


def _loss(logits: jax.Array, batch: Batch) -> jax.Array:
    return jnp.sum(_entropies(logits, batch) * batch["weight"])


def _part_size(module: nn.Module, params: Params, batch: Batch, mesh: Mesh) -> int:
    platform = mesh.devices.flat[0].platform
    return ops.part_size(module, {"params": params}, batch["image"], platform)


def _over_all(
    totals_of: Callable[[Any, Batch], Any], batch: Batch, size: int, mesh: Mesh
) -> tuple[Any, jax.Array]:
    """Sums over all parts of all devices, and the largest of the devices' signals.

    There is one exchange, and it comes last. A device that waits for the others keeps one of the
    threads waiting that XLA's CPU backend has for all of them: what could be exchanged early, such
    as the signals, would leave the others half of the cores.
    """
    rows = {name: batch[name] for name in ("image", "label", "weight")}
    totals = ops.summed(totals_of, rows, size)
    signals = jnp.zeros(mesh.size).at[lax.axis_index(AXIS)].set(batch["signal"][0])
    totals, signals = lax.psum((totals, signals), AXIS)
    return totals, signals.max().astype(jnp.int32)


def _all_finite(tree: Any) -> jax.Array:
    """Whether all numbers are finite; small arrays are looked at as one, which compiles sooner."""
    leaves = jax.tree.leaves(tree)
    small = jnp.concatenate([leaf.ravel() for leaf in leaves if leaf.size < _SMALL])
    large = [leaf for leaf in leaves if leaf.size >= _SMALL]
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in (small, *large)]))


def _over(
    mesh: Mesh, step: Callable[..., Any], *, replicated: tuple[bool, ...], donate: int | None = None
) -> Callable[..., Any]:
    specs = tuple(PartitionSpec() if whole else PartitionSpec(AXIS) for whole in replicated)
    # Results are equal on all devices because we sum them ourselves; `check_vma` cannot see that.
    mapped = jax.shard_map(
        step, mesh=mesh, in_specs=specs, out_specs=PartitionSpec(), check_vma=False
    )
    return jax.jit(mapped, donate_argnums=() if donate is None else donate)
