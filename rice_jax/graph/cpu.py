"""JAX's CPU, for what an accelerator would round or not count."""

import jax

from rice_jax.errors import UserError


def cpu(task: str) -> jax.Device:
    """The CPU of this process, on whatever machine; it multiplies float32 as it is.

    Args:
        task: what is done there, to begin the error's line: "XLA counts FLOPs".

    Raises:
        UserError: JAX_PLATFORMS leaves the CPU out.
    """
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError as error:
        raise UserError(
            f"{task} on the CPU and JAX has none here: add cpu to JAX_PLATFORMS"
        ) from error
