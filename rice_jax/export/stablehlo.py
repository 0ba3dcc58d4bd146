"""A net as StableHLO, which any JAX runs: `jax.export.deserialize(content).call(images)`."""

import contextlib
from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import export

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
    """
    net = module.clone(dtype=jnp.float32)

    def logits(images: jax.Array) -> Any:
        return net.apply({"params": params}, images, train=False)

    shape = (*export.symbolic_shape("batch"), image_size, image_size, 3)
    images = jax.ShapeDtypeStruct(shape, jnp.float32)
    with _without_places():
        return bytes(export.export(jax.jit(logits), platforms=PLATFORMS)(images).serialize())


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
