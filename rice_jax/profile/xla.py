"""XLA's own count of a module, to hold beside ours."""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from rice_jax.errors import UserError


def lowered_flops(
    module: nn.Module,
    variables: Any,
    input_shape: Sequence[int],
    call_kwargs: Mapping[str, Any],
) -> int:
    """FLOPs by XLA's HLO cost analysis of the lowered, not compiled, `module.apply`.

    It is asked of the CPU, on whatever machine: JAX's GPU and TPU clients have no analysis of
    lowered modules. What XLA compiles is fused and rewritten and counts differently from machine
    to machine, so that is not asked.

    Args:
        module: a Linen module called with one array.
        variables: its variables, or their shapes.
        input_shape: of the array, with its batch dimension; it is float32.
        call_kwargs: what else its call takes.

    Raises:
        UserError: JAX has no CPU here, or XLA gives no count, or one that is not positive.
    """
    try:
        cpu = jax.local_devices(backend="cpu")[0]
    except RuntimeError as error:
        raise UserError(
            "XLA counts FLOPs on the CPU and JAX has none here: add cpu to JAX_PLATFORMS"
        ) from error
    x = jax.ShapeDtypeStruct(tuple(input_shape), jnp.float32)
    with jax.default_device(cpu):
        lowered = jax.jit(lambda v, x: module.apply(v, x, **call_kwargs)).lower(variables, x)
    flops = (lowered.cost_analysis() or {}).get("flops")
    if flops is None or not flops > 0:
        raise UserError(
            f"XLA counts {flops} FLOPs in {type(module).__name__}: it has no count of its "
            "operations (a custom call, or nothing but moved data)"
        )
    return int(flops)
