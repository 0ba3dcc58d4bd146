"""What removed channels always said, folded into the biases of the layers that read them."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rice_jax.errors import UserError
from rice_jax.graph.arrays import Chosen
from rice_jax.graph.call import by_path, nested
from rice_jax.graph.cpu import cpu
from rice_jax.prune.dependencies import Dependencies, along, among
from rice_jax.prune.propagation import Contraction


def folds_exactly(graph: Dependencies, contraction: Contraction) -> bool:
    """Whether a constant channel can go into the bias that follows: nowhere at an edge cut off."""
    equation = contraction.equation
    kernel = equation.inputs[1 - contraction.operand]
    if equation.name == "conv_general_dilated":
        padded = any(edge > 0 for edges in equation.params["padding"] for edge in edges)
        if padded or any(step != 1 for step in equation.params["lhs_dilation"]):
            return False
    else:
        (contracted, _), (batch, _) = equation.params["dimension_numbers"]
        if len(contracted) != 1 or batch or len(kernel.shape) != 2:
            return False
    return graph.origins.is_weight(kernel) and bias_after(graph, contraction) is not None


def bias_after(graph: Dependencies, contraction: Contraction) -> tuple[str, int] | None:
    """The variable that is added right after (+1) or subtracted (-1, BatchNorm's mean), if any.

    One number a filter, which nothing else reads, under whatever name or precision.
    """
    (output,) = contraction.equation.outputs
    made = graph.origins.origin(output)
    if len(made.readers) != 1 or made.returned:
        return None
    (reader,) = made.readers
    if reader.name not in ("add", "sub") or output not in reader.inputs:
        return None
    left, right = reader.inputs
    if left is right or (reader.name == "sub" and left is not output):
        return None
    bias = graph.origins.origin(right if left is output else left)
    if bias.path is None or bias.readers != (reader,) or bias.returned:
        return None
    filters = output.shape[_features(contraction)]
    line = along(np.arange(filters), _features(contraction), len(output.shape))
    if bias.value.size != filters or not np.all(bias.places() == line):
        return None
    return bias.path, 1 if reader.name == "add" else -1


def _features(contraction: Contraction) -> int:
    """The axis of the result that has the filters."""
    if contraction.equation.name == "conv_general_dilated":
        return int(contraction.equation.params["dimension_numbers"].out_spec[1])
    rank = len(contraction.equation.outputs[0].shape)
    return rank - 1 if contraction.operand == 0 else 0


def folded(
    variables: Any, graph: Dependencies, removed: Chosen, constants: Sequence[np.ndarray]
) -> Any:
    """The variables with what the removed channels always are in the biases that follow.

    Args:
        variables: of the whole net.
        graph: its dependencies.
        removed: bool, one a channel.
        constants: for each of `graph.contractions` what the removed channels always are, one value
            an index of its axis.

    Raises:
        UserError: no bias follows a layer that reads a constant which is not zero.
    """
    arrays = by_path(variables)
    for contraction, constant in zip(graph.contractions, constants, strict=True):
        channels = graph.read(contraction)
        missed = np.where(among(channels, removed), constant, 0)
        if not missed.any():
            continue
        bias = bias_after(graph, contraction)
        if bias is None or not folds_exactly(graph, contraction):
            raise UserError(f"no bias follows {contraction.equation.layer} to fold a constant into")
        path, sign = bias
        # Not where a GPU multiplies in TF32: the bias would stay wrong in its fourth digit.
        host = cpu("constants are folded into biases")
        with jax.default_device(host):
            missing = np.asarray(_sum(graph, contraction, missed, jax.device_put(variables, host)))
        arrays[path] = arrays[path] + sign * missing.reshape(np.shape(arrays[path]))
    return nested(arrays, variables)


def _sum(
    graph: Dependencies, contraction: Contraction, missed: np.ndarray, variables: Any
) -> jax.Array:
    """What constant channels add to each filter of the layer that reads them."""
    equation, operand = contraction.equation, contraction.operand
    kernel = graph.origins.compute(equation.inputs[1 - operand], variables)
    shape = equation.inputs[operand].shape
    line = along(missed, contraction.axis, len(shape))
    operands = [kernel, kernel]
    operands[operand] = jnp.broadcast_to(jnp.asarray(line, kernel.dtype), shape)
    (result,) = equation.apply(*operands)
    features = _features(contraction)
    return jnp.moveaxis(result, features, -1).reshape(-1, result.shape[features])[0]
