"""What a net's convolutions see in given images."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from rice_jax.errors import UserError
from rice_jax.graph import once
from rice_jax.graph.arrays import Images, Maps
from rice_jax.graph.fronts import takes_variables
from rice_jax.graph.input_shape import traced_for
from rice_jax.graph.maps import ConvMap, convolutions, require_pixels, require_scaled
from rice_jax.graph.trace import Trace


@takes_variables
def feature_maps(
    module: Any, variables: Any, images: Images, **call_kwargs: Any
) -> dict[str, Maps]:
    """The feature map of every convolution of a net.

    Args:
        module: any net called with one array of images: a Linen module, an NNX module, a function.
        variables: of a Linen module, {'params': ..., 'batch_stats': ...}, or params of a function;
            an NNX module is followed by none.
        images: (N, H, W, C) as the module takes them: floats, in [0, 1] for this package's nets;
            whole numbers where it scales them itself.
        **call_kwargs: what else the module's call needs, such as train=False.

    Returns:
        Arrays (N, H', W', filters) by the layer's path, after the rectifier that belongs to the
        convolution where there is one (`rice_jax.graph.maps` says which). A layer's second call has
        '@2' after its path.

    Raises:
        UserError: images that are integers, of which the module makes floats without scaling them,
            that have no batch dimension or that the net does not run on; variables that are not the
            net's; a convolution that works on other rows than one an image, as where a batch is cut
            or repeated.
    """
    images = jnp.asarray(images)
    return seer(module, images, **call_kwargs)(variables, images)[0]


def seer(
    module: Any, images: Any, **call_kwargs: Any
) -> Callable[[Any, Any], tuple[dict[str, Maps], jax.Array | None]]:
    """A compiled function of variables and images to their feature maps and logits.

    The arguments are those of `feature_maps`; of the images shape and dtype are enough. The logits
    are None where the module returns several arrays.
    """
    traced = traced_for_images(module, images, **call_kwargs)
    maps = image_maps(traced)
    logits = [] if traced.logits is None else [traced.logits]

    @once.jit  # it runs for an image or a few
    def run(variables: Any, images: jax.Array) -> tuple[list[jax.Array], list[jax.Array]]:
        wanted = [*(conv.value for conv in maps), *logits]
        values = traced.evaluate(variables, images, wanted)
        seen = [arranged(conv, value) for conv, value in zip(maps, values, strict=False)]
        return seen, values[len(maps) :]

    def see(variables: Any, images: Any) -> tuple[dict[str, jax.Array], jax.Array | None]:
        seen, answer = run(variables, images)
        by_path = dict(zip((conv.name for conv in maps), seen, strict=True))
        return by_path, answer[0] if answer else None

    return see


def traced_for_images(module: Any, images: Any, **call_kwargs: Any) -> Trace:
    """The trace of a module called with `images` (an array or its shape and dtype).

    UserError for pixels as `require_scaled` refuses them.
    """
    traced = traced_for(module, images.shape, images.dtype, **call_kwargs)
    require_scaled(traced)
    return traced


def image_maps(traced: Trace) -> list[ConvMap]:
    """The convolutions' maps; UserError where one has no pixel, or not a row for each image."""
    require_pixels(traced)
    images = traced.input.shape[0]
    maps = convolutions(traced)
    for conv in maps:
        rows = conv.value.shape[conv.batch_axis]
        if rows != images and len(conv.value.shape) != len(traced.input.shape):
            dimensions = len(conv.value.shape) - 2
            raise UserError(
                f"images are {traced.input.shape}, where the convolution {conv.name!r} works along "
                f"{dimensions} dimension{'s' * (dimensions > 1)}: give them in a batch, N first, "
                f"then {dimensions} sizes and the channels"
            )
        if rows != images:
            raise UserError(
                f"the convolution {conv.name!r} works on {rows} rows where {images} images came "
                "in: what belongs to which image cannot be told; inspect a module that does not "
                "cut or repeat its batch"
            )
    return maps


def arranged(conv: ConvMap, value: Any) -> Any:
    """A map with images first and filters last, whatever the convolution's own layout.

    NumPy's array gives NumPy's, JAX's gives JAX's.
    """
    space = [a for a in range(value.ndim) if a not in (conv.batch_axis, conv.channel_axis)]
    return value.transpose((conv.batch_axis, *space, conv.channel_axis))
