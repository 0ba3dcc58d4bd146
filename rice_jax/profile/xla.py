"""XLA's own count: of a module, and of an operation that we have no rule for."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax

from rice_jax.errors import UserError
from rice_jax.graph.cpu import cpu
from rice_jax.graph.fronts import PureNet
from rice_jax.graph.primitives import COLLECTIVES
from rice_jax.graph.trace import Equation


def lowered_flops(
    net: PureNet,
    variables: Any,
    input_shape: Sequence[int],
    dtype: Any,
    call_kwargs: Mapping[str, Any],
) -> int:
    """FLOPs by XLA's HLO cost analysis of the lowered, not compiled, net.

    It is asked of the CPU, on whatever machine: JAX's GPU and TPU clients have no analysis of
    lowered modules. What XLA compiles is fused and rewritten and counts differently from machine
    to machine, so that is not asked.

    Args:
        net: called with one array.
        variables: its variables, or their shapes.
        input_shape: of the array, with its batch dimension.
        dtype: of the array.
        call_kwargs: what else its call takes.

    Raises:
        UserError: JAX has no CPU here, or XLA gives no count, or one that is not positive.
    """
    x = jax.ShapeDtypeStruct(tuple(input_shape), dtype)
    options = net.options(any_key=True, **call_kwargs)
    with jax.default_device(cpu("XLA counts FLOPs")):
        lowered = jax.jit(lambda v, x: net.apply(v, x, **options)).lower(variables, x)
    flops = (lowered.cost_analysis() or {}).get("flops")
    if flops is None or not flops > 0:
        raise UserError(
            f"XLA counts {flops} FLOPs in {net.name}: it has no count of its "
            "operations (a custom call, or nothing but moved data)"
        )
    return int(flops)


def operation_flops(equation: Equation) -> int | None:
    """FLOPs by XLA's cost analysis of one operation, as JAX lowers it on a CPU.

    None where XLA can't know them: foreign code, or a lowering that holds a loop or a branch.
    """
    foreign = "callback" in equation.name or "pallas" in equation.name
    if equation.bodies or foreign or equation.name in COLLECTIVES:
        return None
    shapes = [jax.ShapeDtypeStruct(value.shape, value.dtype) for value in equation.inputs]
    with jax.default_device(cpu("XLA counts FLOPs")):
        lowered = jax.jit(equation.apply).lower(*shapes)
    if any(
        name in lowered.as_text() for name in ("custom_call", "stablehlo.while", "stablehlo.case")
    ):
        return None
    flops = (lowered.cost_analysis() or {}).get("flops", 0)
    return None if flops < 0 else int(flops)
