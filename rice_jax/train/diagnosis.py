"""Why a net does not learn: dead maps, gradients that are zero, numbers that are not finite."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import traverse_util

from rice_jax.graph import once
from rice_jax.graph.interception import intercepted
from rice_jax.graph.maps import convolutions
from rice_jax.graph.trace import Trace, Value, trace
from rice_jax.train.state import Params, merge, partition
from rice_jax.train.step import streams

_NEAR = 0.005
"""How near to chance, relative to it, a loss is taken to rest there."""
_AT_A_TIME = 8
"""Images whose gradients are looked at together: most nets are told by so few."""


@dataclasses.dataclass(frozen=True)
class Collapse:
    """A net whose loss rests where a guess by the classes' shares alone would be."""

    loss: float
    chance: float
    dead: str
    """The first layer whose maps are zero for every image; '' where there is none."""
    silent: tuple[str, ...]
    """The layers none of whose parameters has a gradient."""
    alike: bool = False
    """Whether the images that were looked at are all the same."""

    def __str__(self) -> str:
        text = f"the loss rests at {self.loss:.4f}, which is chance ({self.chance:.4f})"
        if self.alike:
            return (
                text + "; all images that were looked at are the same: no net can learn from them"
            )
        if self.dead:
            text += f"; {self.dead} is the first layer whose maps are all dead"
        if self.silent:
            text += f"; no gradient reaches {', '.join(self.silent)}: this net cannot learn, "
            return text + "one of another seed may"
        return text + "; all layers have gradients, so it may still begin to learn"


def chance(confusion: np.ndarray) -> float:
    """Loss of a guess by the classes' shares, in nats: ln(classes) where all are as frequent."""
    shares = confusion.sum(axis=1) / confusion.sum()
    return -sum(share * math.log(share) for share in shares if share > 0)


def rests_at(chance: float, *losses: float) -> bool:
    """Whether all the losses lie at chance.

    Of images of one class alone chance is 0, which no net rests at but one that has learned.
    """
    return chance > 0 and all(abs(loss - chance) <= _NEAR * chance for loss in losses)


def collapse(
    module: nn.Module,
    params: Params,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    loss: float,
    chance: float,
    frozen: tuple[str, ...] = (),
) -> Collapse:
    """Look for dead layers and missing gradients on images (N, H, W, C) in [0, 1] of one batch.

    In a net whose last maps are all zero the head sees zeros: its output is its bias, its kernel
    has no gradient, none reaches the layers below, and only biases learn. A few images are looked
    at at a time, until each layer was seen to live.
    """
    size = min(_AT_A_TIME, len(images))
    traced = trace(module, (size, *images.shape[1:]), train=False)
    found = _rectified(traced)  # nothing where a net has neither convolutions nor rectifiers
    names, values = [name for name, _ in found], [value for _, value in found]

    @once.jit
    def peaks(params: Params, images: jax.Array) -> list[jax.Array]:
        maps = traced.evaluate({"params": params}, images, values)
        return [jnp.max(jnp.abs(value)) for value in maps]

    gradients = _gradients(module, frozen)
    dead, silent = set(names), _asked(traced) & _by_layer(partition(params, frozen)[0]).keys()
    for start in range(0, len(images), size):
        first = min(start, len(images) - size)  # each part has as many
        part = slice(first, first + size)
        heights = jax.device_get(peaks(params, images[part]))
        dead -= {name for name, peak in zip(names, heights, strict=True) if peak != 0}
        heard = _by_layer(gradients(params, images[part], labels[part]))
        silent -= {layer for layer, arrays in heard.items() if any(map(np.any, arrays))}
        if not dead and not silent:
            break
    return Collapse(
        loss,
        chance,
        dead=next((name for name in names if name in dead), ""),
        silent=tuple(layer for layer in traced.layers if layer in silent),
        alike=len(images) > 1 and not np.any(np.ptp(images, 0)),
    )


def first_not_finite(
    module: nn.Module,
    params: Params,
    images: np.ndarray,
    labels: np.ndarray,
    dropout_key: jax.Array,
) -> str:
    """Where NaN or infinity first shows in a step on images (N, H, W, C) in [0, 1].

    Returns:
        'the parameters of conv2', 'conv2' for its output, 'the gradient of conv2', or 'the loss'.
    """
    for layer, arrays in _by_layer(params).items():
        if not _finite(arrays):
            return f"the parameters of {layer}"
    calls: list[str] = []

    @once.jit
    def sound(params: Params, images: Any, dropout_key: jax.Array) -> list[jax.Array]:
        """Whether each layer's outputs are finite, in the order of `calls`."""

        def note(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
            output = call(*args, **kwargs)
            if context.method_name == "__call__":
                calls.append("/".join(context.module.path))
            return output

        # Flax brings the outputs out of what it traces by itself, as a block that is recomputed.
        with intercepted(note):
            _, left = module.apply(
                {"params": params},
                images,
                train=True,
                rngs=streams(dropout_key),
                capture_intermediates=True,
                mutable=["intermediates"],
            )
        outputs = _outputs(left["intermediates"])
        calls[:] = [path for path in dict.fromkeys(calls) if path in outputs]
        return [_all_finite(outputs[path]) for path in calls]

    for finite, layer in zip(sound(params, images, dropout_key), calls, strict=True):
        if not finite:
            return layer or "the logits"
    given = _gradients(module, dropout_key=dropout_key)(params, images, labels)
    gradients = _by_layer(given)
    for layer in reversed([name for name in calls if name in gradients]):
        if not _finite(gradients[layer]):
            return f"the gradient of {layer}"
    return "the loss"


def _rectified(traced: Trace) -> list[tuple[str, Value]]:
    """The map of each convolution and the rectified output of each dense layer, as computed."""
    found = [(conv.name, conv.value) for conv in convolutions(traced)]
    for path, layer in traced.layers.items():
        readers = traced.consumers(layer.output) if layer.output else []
        if issubclass(layer.module, nn.Dense) and len(readers) == 1 and readers[0].name == "relu":
            found.append((path, readers[0].outputs[0]))
    place = {
        value: index
        for index, equation in enumerate(traced.needed(traced.outputs))
        for value in equation.outputs
    }
    return sorted((item for item in found if item[1] in place), key=lambda item: place[item[1]])


def _asked(traced: Trace) -> set[str]:
    """The layers that the logits depend on: another head's parameters have no gradient anyhow."""
    read = (value for equation in traced.needed(traced.outputs) for value in equation.inputs)
    return {traced.owners[value] for value in read if value in traced.owners}


def _gradients(
    module: nn.Module,
    frozen: tuple[str, ...] = (),
    dropout_key: jax.Array | None = None,
) -> Callable[[Params, np.ndarray, np.ndarray], Params]:
    """What gives the gradients of params by images and labels, without the frozen layers'."""

    @once.jit
    def gradients(params: Params, images: jax.Array, labels: jax.Array) -> Params:
        trainable, still = partition(params, frozen)

        def loss(trainable: Params) -> jax.Array:
            variables = {"params": merge(trainable, still)}
            rngs = {} if dropout_key is None else streams(dropout_key)
            logits = module.apply(variables, images, train=dropout_key is not None, rngs=rngs)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        return jax.grad(loss)(trainable)

    return lambda *given: jax.device_get(gradients(*given))


def _by_layer(params: Params) -> dict[str, list[np.ndarray]]:
    layers: dict[str, list[np.ndarray]] = {}
    for name, array in traverse_util.flatten_dict(params, sep="/").items():
        layers.setdefault(name.rpartition("/")[0], []).append(np.asarray(array))
    return layers


def _outputs(intermediates: Any) -> dict[str, Any]:
    """What each layer gave, by its path: an array, or whatever it returns."""
    flat = traverse_util.flatten_dict(dict(intermediates), sep="/")
    ours = "__call__"
    return {
        name.removesuffix(ours).rstrip("/"): output
        for name, output in flat.items()
        if name.rpartition("/")[2] == ours
    }


def _all_finite(output: Any) -> jax.Array:
    floats = [leaf for leaf in jax.tree.leaves(output) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return jnp.all(jnp.array([jnp.all(jnp.isfinite(leaf)) for leaf in floats], bool))


def _finite(arrays: list[Any]) -> bool:
    return all(bool(jnp.all(jnp.isfinite(array))) for array in arrays)
