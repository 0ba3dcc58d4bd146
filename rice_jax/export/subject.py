"""What is exported: a net with its numbers, called in one way, for images of one size."""

import dataclasses
import functools
import inspect
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from rice_jax.errors import UserError
from rice_jax.graph.arrays import InputShape
from rice_jax.graph.call import Output, chosen
from rice_jax.graph.fronts import PureNet
from rice_jax.graph.input_shape import dimensions_of, traced_for, whole_shape
from rice_jax.graph.keys import carried
from rice_jax.graph.trace import Trace, trace
from rice_jax.graph.unrolled import unrolled
from rice_jax.nets import told


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
    """A net that is to be written into a file."""

    net: PureNet
    variables: Any
    image: tuple[int, ...]
    """Shape of one image, (H, W, C)."""
    output: Output
    called: Mapping[str, Any]
    """What its call takes beside images."""

    def logits(self, images: jax.Array) -> jax.Array:
        """What the net itself makes of images (N, H, W, C)."""
        options = carried(self.net.options(**self.called))
        return chosen(self.net.apply(self.variables, images, **options()), self.output)

    @functools.cached_property
    def alone(self) -> Trace:
        """Its computation for one image; UserError where it does not run on such."""
        return self.traced(1)

    def traced(self, batch: int) -> Trace:
        """Its computation for so many images; UserError where it does not run on such."""
        shape = (batch, *self.image)
        return _of_the_logits(traced_for(self.net, shape, output=self.output, **self.called))

    def traced_for_any(self, images: jax.ShapeDtypeStruct) -> Trace:
        """Its computation for images whose number is a symbol."""
        return _of_the_logits(trace(self.net, images.shape, output=self.output, **self.called))


def _of_the_logits(traced: Trace) -> Trace:
    """What they need, without branches and loops of known length.

    What is made for another output, or for nothing, is in no file: a format may lack it.
    """
    without = unrolled(traced)
    logits = without.the_logits()
    needed = without.needed([logits])
    return dataclasses.replace(without, equations=needed, outputs=[logits], choices={})


def subject(
    net: PureNet, variables: Any, input_shape: InputShape | int, output: Output, **kwargs: Any
) -> Subject:
    """The net as `to_onnx` and its like are asked for it.

    Raises:
        UserError: sizes that are none, a net that does not run on them, numbers that are missing,
            of other shapes or NaN, several outputs of which none is named, a batch's shape for an
            image's.
    """
    image = image_shape(input_shape)
    module, _ = net.given(variables)
    if isinstance(module, nn.Module):
        if "params" not in variables:
            variables = {"params": variables}
        if "dtype" in type(module).__dataclass_fields__:
            net = net.like(module.clone(dtype=jnp.float32), variables)
    takes = {} if net.scoped else inspect.signature(type(module).__call__).parameters
    found = Subject(net, variables, image, output, told(takes, train=False) | kwargs)
    _refuse_nan(found.alone, variables)
    _refuse_batch_of_one(found.alone, image)
    return found


def _refuse_nan(traced: Trace, variables: Any) -> None:
    """UserError for weights that no file should carry: those of a training that diverged."""
    arrays = traced.arrays(variables)
    for path, value in traced.variables.items():
        if jnp.issubdtype(value.dtype, jnp.inexact) and np.isnan(arrays[value]).any():
            raise UserError(f"variables: {path} holds NaN, so that the file would give no answers")


def _refuse_batch_of_one(traced: Trace, image: tuple[int, ...]) -> None:
    """UserError for (1, H, W, C): the file would take images of one axis more than they have."""
    dimensions, layer = dimensions_of(traced)
    if dimensions and image[0] == 1 and len(image) == dimensions + 2:
        raise UserError(
            f"input shape {image} is a batch's, for convolution {layer!r} works along {dimensions} "
            f"dimension{'s' * (dimensions > 1)}: give one image's, {image[1:]}"
        )


def image_shape(input_shape: InputShape | int) -> tuple[int, ...]:
    """(H, W, C) of one image, of a whole number n (n, n, 3); UserError for sizes that are none."""
    if isinstance(input_shape, int | np.integer):
        input_shape = (int(input_shape),) * 2 + (3,)
    return tuple(whole_shape(input_shape, batched=False))[1:]
