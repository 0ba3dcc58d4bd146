"""A net as StableHLO, which any JAX runs: `jax.export.deserialize(content).call(images)`."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import export

from rice_jax.errors import UserError, reason
from rice_jax.export import any_size
from rice_jax.export.lacking import lacking
from rice_jax.graph.trace import trace

PLATFORMS = ("cpu", "cuda", "tpu")


def to_stablehlo(module: nn.Module, params: Any, image_size: int) -> bytes:
    """Serialise the net with its weights, for a batch of any size and every platform.

    Args:
        module: a net, called as `module.apply({'params': params}, images, train=False)`.
        params: its parameters.
        image_size: height and width of the images it will take.

    Returns:
        What `jax.export.deserialize` takes: a function of images float32 (N, image_size,
        image_size, 3) in [0, 1] that returns logits float32 (N, classes). Computed in float32.

    Raises:
        UserError: the net asks how many images there are, or StableHLO lacks an operation of the
            net, which is named with its layer.
    """
    net = module.clone(dtype=jnp.float32)

    def logits(images: jax.Array) -> Any:
        return net.apply({"params": params}, images, train=False)

    images = any_size.images_of(net, params, image_size)
    try:
        with _without_places():
            return bytes(export.export(jax.jit(logits), platforms=PLATFORMS)(images).serialize())
    except Exception as error:  # each operation that cannot be written raises its own kinds
        found = lacking(trace(net, (1, *images.shape[1:]), train=False), _converts)
        if found is None:
            raise UserError(f"the net has no StableHLO form: {reason(error)}") from error
        raise UserError(
            f"{found.layer or 'the net'}: {found.name} has no StableHLO form"
        ) from error


def _converts(function: Callable[..., Any], arguments: Sequence[jax.ShapeDtypeStruct]) -> bool:
    """Whether an operation alone can be written."""
    try:
        export.export(jax.jit(function), platforms=PLATFORMS)(*arguments).serialize()
    except Exception:
        return False
    return True


@contextlib.contextmanager
def _without_places() -> Iterator[None]:
    """Leave the names of layers in the file, but not where on this machine they were called."""
    name = "jax_traceback_in_locations_limit"
    before = jax.config.values[name]
    jax.config.update(name, 0)
    try:
        yield
    finally:
        jax.config.update(name, before)
