"""What a net comes to: FLOPs, parameters and filters."""

from typing import Any

from rice_jax import profile
from rice_jax.graph.arrays import InputShape
from rice_jax.graph.fronts import takes_net
from rice_jax.graph.input_shape import traced_alone
from rice_jax.graph.trace import Trace


@takes_net
def totals(
    module: Any, input_shape: InputShape, *, batched: bool | None = None, **kwargs: Any
) -> dict[str, int]:
    """What `Pruned.before` and `Pruned.after` have, of any net.

    Args:
        module: any net called with one array, as `dependencies` takes it.
        input_shape: (N, H, W, C) or, of an image, (H, W, C). N is of no matter.
        batched: whether `input_shape` has its batch dimension, as in `dependencies`.
        **kwargs: what else the module's call needs, as in `dependencies`.

    Returns:
        FLOPs for one image in the three conventions, parameters, filters, operations uncounted.

    Raises:
        UserError: for a shape that the net does not run on, or that was read wrongly.
    """
    return of_trace(traced_alone(module, input_shape, batched, any_key=True, **kwargs))


def of_trace(traced: Trace) -> dict[str, int]:
    """`totals` of a net that is traced already."""
    return of_profile(profile.of_trace(traced))


def of_profile(counted: profile.Profile) -> dict[str, int]:
    """`totals` of a net that is counted already."""
    return counted.flops.to_json() | {
        "params": counted.params,
        "filters": counted.filters,
        "uncounted": len(counted.uncounted),
    }
