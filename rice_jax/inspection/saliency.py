"""Where in an image a net finds what speaks for a class: Grad-CAM."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from rice_jax.errors import UserError
from rice_jax.graph.arrays import Images
from rice_jax.graph.fronts import takes_variables
from rice_jax.graph.maps import ConvMap
from rice_jax.graph.trace import Trace, Value
from rice_jax.inspection.features import arranged, image_maps, traced_for_images


@takes_variables
def saliency(
    module: Any, variables: Any, images: Images, classes: Any, **call_kwargs: Any
) -> jax.Array:
    """How much each place of the last feature maps speaks for a class.

    Grad-CAM (Selvaraju et al. 2017, arXiv:1610.02391): the maps of the last convolution, or what
    joins the last branches, weighted by the mean over a map of the logit's gradient by it, added
    up, negative sums taken for 0.

    Args:
        module: any net called with one array of images that returns logits (N, classes): a Linen
            module, an NNX module, a function.
        variables: of a Linen module, or params of a function; an NNX module is followed by none.
        images: (N, H, W, C) as the module takes them.
        classes: (N,) the class that is asked about of each image.
        **call_kwargs: what else the module's call needs, such as train=False.

    Returns:
        float32 (N, h, w), at least 0, in units of the logit: what a place's share of it is where
        the maps are averaged and weighed, as in nets that end so.

    Raises:
        UserError: the net has no convolution, the last one's maps have no height and width, or no
            map is one that all of the image goes through; its logits are not (N, classes), or
            `classes` are not N numbers of theirs; and as `feature_maps`.
    """
    images, classes = jnp.asarray(images), np.asarray(classes)
    traced = traced_for_images(module, images, **call_kwargs)
    conv, value = _last_maps(traced)
    logits = traced.the_logits()
    _check_classes(classes, logits.shape)

    @jax.jit
    def run(variables: Any, images: jax.Array) -> jax.Array:
        def spoken(change: jax.Array) -> tuple[jax.Array, jax.Array]:
            edits = {value: lambda maps: maps + change}
            answer, maps = traced.evaluate(variables, images, [logits, value], edits)
            return jnp.take_along_axis(answer, classes[:, None], axis=1).sum(), maps

        nothing = jnp.zeros(value.shape, value.dtype)
        gradient, maps = jax.grad(spoken, has_aux=True)(nothing)
        gradient, maps = arranged(conv, gradient), arranged(conv, maps)
        weights = gradient.mean(axis=(1, 2), keepdims=True)
        return nn.relu((weights * maps).sum(axis=-1)).astype(jnp.float32)

    return run(variables, images)


def _check_classes(classes: np.ndarray, logits: tuple[int, ...]) -> None:
    if len(logits) != 2:
        raise UserError(f"the net gives logits {logits}, where an image has one for each class")
    numbers = np.issubdtype(classes.dtype, np.integer) and classes.shape == logits[:1]
    if not numbers or np.any((classes < 0) | (classes >= logits[1])):
        raise UserError(
            f"classes are {logits[0]} numbers from 0 to {logits[1] - 1}, one an image, not "
            f"{classes.tolist()}"
        )


def _last_maps(traced: Trace) -> tuple[ConvMap, Value]:
    """The last convolution, and the last value of its maps' size that all of the image passes."""
    convolutions = image_maps(traced)
    if not convolutions:
        raise UserError("the net has no convolution: there are no maps to weigh by a class")
    last = convolutions[-1]
    sizes = [axis for axis in range(4) if axis not in (last.batch_axis, last.channel_axis)]
    if len(last.value.shape) != 4:
        raise UserError("the last convolution's maps have no height and width to show")

    def size(value: Value) -> tuple[int, ...]:
        return tuple(value.shape[axis] for axis in sizes)

    found = [
        value
        for value in _passed_by_all(traced)
        if len(value.shape) == 4
        and value.shape[last.batch_axis] == last.value.shape[last.batch_axis]
        and size(value) == size(last.value)
    ]
    if not found:
        raise UserError(
            f"not all that the net knows of an image passes {last.path!r}, its last convolution: "
            "there are no maps to weigh by a class"
        )
    return last, found[-1]


def _passed_by_all(traced: Trace) -> list[Value]:
    """The values without which no later one knows of the image, in the order of computation."""
    needed = traced.needed([traced.the_logits()])
    depends = {traced.input}
    last_read: dict[Value, int] = {traced.the_logits(): len(needed)}
    for place, equation in enumerate(needed):
        for value in equation.inputs:
            last_read[value] = place
        if any(value in depends for value in equation.inputs):
            depends.update(equation.outputs)
    alone, alive = [], {traced.input}
    for place, equation in enumerate(needed):
        alive |= {value for value in equation.outputs if value in depends and value in last_read}
        alive = {value for value in alive if last_read.get(value, -1) > place}
        if len(alive) == 1:
            alone += [value for value in equation.outputs if value in alive]
    return alone
