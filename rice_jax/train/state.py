"""What training changes: parameters split into trainable and frozen, and Adam's moments."""

import collections
import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct, traverse_util
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rice_jax import data, nets
from rice_jax.errors import UserError
from rice_jax.graph import once
from rice_jax.graph.remembered import remembered
from rice_jax.graph.scopes import is_under

Params = dict[str, Any]
"""Nested dictionaries of arrays, by layer: {'conv1': {'kernel': ..., 'bias': ...}, ...}."""


class TrainState(struct.PyTreeNode):
    """All arrays of a training. Nothing random is among them: keys follow from (seed, step)."""

    step: jax.Array
    """Number of updates made, int32."""
    trainable: Params
    frozen: Params
    moments: optax.OptState
    """Adam's, of the trainable parameters alone."""

    @property
    def params(self) -> Params:
        """The net's parameters, trainable and frozen ones together."""
        return merge(self.trainable, self.frozen)


def adam(b1: float = 0.9, b2: float = 0.999, eps: float = 1e-7) -> optax.GradientTransformation:
    """Adam's direction as Keras has it; the caller scales it by minus the learning rate.

    The form at the end of section 2 of Kingma and Ba 2015 (arXiv:1412.6980), in which epsilon is
    added to the uncorrected root: in the first steps that is up to 32 times the epsilon of
    `optax.scale_by_adam`, which shows where gradients are small.
    """

    def init(params: Params) -> optax.ScaleByAdamState:
        mu, nu = (jax.tree.map(jnp.zeros_like, params) for _ in range(2))  # no shared buffers
        return optax.ScaleByAdamState(count=jnp.zeros((), jnp.int32), mu=mu, nu=nu)

    def update(
        gradients: Params, moments: optax.ScaleByAdamState, params: Params | None = None
    ) -> tuple[Params, optax.ScaleByAdamState]:
        del params
        count = moments.count + 1
        mu = jax.tree.map(lambda g, m: b1 * m + (1 - b1) * g, gradients, moments.mu)
        nu = jax.tree.map(lambda g, v: b2 * v + (1 - b2) * g * g, gradients, moments.nu)
        scale = jnp.sqrt(1 - b2**count) / (1 - b1**count)
        direction = jax.tree.map(lambda m, v: scale * m / (jnp.sqrt(v) + eps), mu, nu)
        return direction, optax.ScaleByAdamState(count, mu, nu)

    return optax.GradientTransformation(init, update)


def create(params: Params, frozen: Sequence[str]) -> TrainState:
    """The state before the first step; the layers whose paths are in `frozen` do not learn."""
    trainable, still = partition(params, frozen)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        trainable=trainable,
        frozen=still,
        moments=adam().init(trainable),
    )


def fresh(params: Params, frozen: Sequence[str]) -> TrainState:
    """What `create` gives, as NumPy's arrays: one program, not one for each shape of moments."""
    created = once.jit(lambda params: create(params, frozen))(params)
    return jax.tree.map(np.asarray, created)


def shapes(module: nn.Module, input_shape: Sequence[int], frozen: Sequence[str]) -> TrainState:
    """A state of `jax.ShapeDtypeStruct`s for images (N, H, W, C), at no compute."""
    known = _shapes(module, tuple(input_shape), tuple(frozen))
    return jax.tree.map(lambda leaf: leaf, known)  # dictionaries of the caller's own


@remembered(4)  # a run asks for those of its net at each of its checkpoints
def _shapes(module: nn.Module, input_shape: tuple[int, ...], frozen: tuple[str, ...]) -> TrainState:
    return jax.eval_shape(lambda: create(random_params(module, input_shape, 0), frozen))


def require_memory(shapes: TrainState) -> None:
    """UserError for a net that this machine's memory cannot hold, before the system ends us."""
    needed = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))
    there = data.memory()
    if needed > there:
        take, has = data.compared(needed, there)
        raise UserError(
            f"the net's parameters and their moments take {take}, and this machine has {has}: give "
            "config.model fewer filters or units, or smaller images"
        )


def random_params(
    module: nn.Module,
    input_shape: Sequence[int],
    seed: int,
    initializer: str = nets.AS_THE_NET_SAYS,
) -> Params:
    """The module's own random parameters for images of `input_shape` (N, H, W, C).

    With `initializer` 'he' its kernels are drawn anew, uniformly with a variance of 2 / inputs
    (He et al. 2015, arXiv:1502.01852): maps then neither fade nor grow from layer to layer of
    ReLUs, where Glorot's halve their mean square in each layer that keeps its number of channels.

    UserError for a net with variables of other kinds or types, or without any.
    """
    variables = module.init(jax.random.key(seed), jnp.zeros(input_shape, jnp.float32))
    others = sorted(variables.keys() - {"params"})
    if others:
        raise UserError(
            f"the net has variables that training does not carry, {', '.join(others)}: it carries "
            "parameters, and the statistics of nn.BatchNorm"
        )
    params = variables.get("params", {})
    for path, leaf in traverse_util.flatten_dict(params, sep="/").items():
        if leaf.dtype != jnp.float32:
            raise UserError(
                f"the net's {path} is {leaf.dtype}: parameters learn in float32 (leave param_dtype "
                "as it is; --config.train.dtype=bfloat16 is of activations)"
            )
    if not params:
        raise UserError("the net has no parameters: there is nothing to train")
    return _of_he(params, seed) if initializer == nets.HE else params


def _of_he(params: Params, seed: int) -> Params:
    flat = traverse_util.flatten_dict(params)
    kernels = {path: leaf for path, leaf in flat.items() if path[-1] == "kernel" and leaf.ndim > 1}
    keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), 1), len(kernels))
    numbers = _uniform(keys, [leaf.size for leaf in kernels.values()])
    drawn = {
        path: row.reshape(leaf.shape) * np.sqrt(np.float32(3) * np.float32(2 / _inputs(leaf)))
        for (path, leaf), row in zip(kernels.items(), numbers, strict=True)
    }
    return traverse_util.unflatten_dict({**flat, **drawn})


def _inputs(kernel: jax.Array) -> int:
    return math.prod(kernel.shape[:-1])


def _uniform(keys: jax.Array, sizes: Sequence[int]) -> list[jax.Array]:
    """Numbers from -1 to 1, as many as are told for each key.

    A number depends on its key and its place alone. So what is drawn for kernels of a size within
    four times each other is drawn as one: XLA would take a tenth of a second for each shape.
    """
    rows: list[jax.Array] = [jnp.zeros(0)] * len(sizes)
    alike = collections.defaultdict(list)
    for place, size in enumerate(sizes):
        alike[size.bit_length() // 2].append(place)
    for places in alike.values():
        most = max(sizes[place] for place in places)
        draw = jax.vmap(lambda key, most=most: jax.random.uniform(key, (most,), minval=-1))
        for place, row in zip(places, draw(keys[np.array(places)]), strict=True):
            rows[place] = row[: sizes[place]]
    return rows


def partition(params: Params, frozen: Sequence[str]) -> tuple[Params, Params]:
    """Split into (trainable, frozen); a path in `frozen` stands for all that is below it.

    Raises:
        UserError: a path that the net does not have, or nothing left to train.
    """
    flat = traverse_util.flatten_dict(params)  # a name may have '/' in it (`nn.WeightNorm`)
    names = {place: "/".join(place) for place in flat}
    for path in frozen:
        if not any(is_under(name, [path]) for name in names.values()):
            layers = ", ".join(dict.fromkeys("/".join(place[:-1]) for place in flat))
            raise UserError(f"config.train.frozen: no layer is called {path!r}; there are {layers}")
    still = {place for place, name in names.items() if is_under(name, frozen)}
    if len(still) == len(flat):
        raise UserError("config.train.frozen freezes every layer: nothing is left to train")
    return (
        traverse_util.unflatten_dict({n: v for n, v in flat.items() if n not in still}),
        traverse_util.unflatten_dict({n: v for n, v in flat.items() if n in still}),
    )


def digest(params: Params) -> str:
    """SHA-256 over the parameters: with others it is another net."""
    flat = traverse_util.flatten_dict(params, sep="/")
    found = hashlib.sha256()
    for path in sorted(flat):  # one by one: together they would be in memory twice
        found.update(np.asarray(flat[path]).tobytes())
    return found.hexdigest()


def merge(trainable: Mapping[str, Any], frozen: Mapping[str, Any]) -> Params:
    """Undo `partition`."""
    flat = traverse_util.flatten_dict(frozen) | traverse_util.flatten_dict(trainable)
    return traverse_util.unflatten_dict(flat)


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Put a copy of every array on every device of the mesh.

    UserError on every process of a job where they do not hold the same.
    """
    try:
        return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))
    except AssertionError as error:  # JAX's own, which compares the processes' arrays
        raise UserError(
            "the processes of the job do not have the same weights: give each the same file or run "
            "(--config.model.weights, --config.train.teacher) and the same version of JAX"
        ) from error


def replicated(tree: Any, mesh: Mesh) -> Any:
    """The same `jax.ShapeDtypeStruct`s, each said to have a copy on every device."""
    sharding = NamedSharding(mesh, PartitionSpec())
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree
    )
