"""A narrowed module's trace held against the whole one's: what came from a shape must not change.

A module may read its sizes from its input: 1 / sqrt(channels), channels // 4. Narrowed it reads
other ones, and computes something else than the whole module does without those channels.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rice_jax.graph.trace import Equation, Trace, Value
from rice_jax.inspection.bounds import HASTY
from rice_jax.prune.dependencies import BROADCAST, Dependencies, among

_SIZES = frozenset({"shape", "new_sizes", "sizes", "slice_sizes", "feature_group_count"})
"""Parameters that follow from the shapes of what goes in and comes out."""
_CLOSE = 1e-5
"""Of the largest logit: how far equal nets may be apart."""


def departure(graph: Dependencies, removed: np.ndarray, smaller: Trace) -> str | None:
    """The first place where the smaller module differs by more than the sizes of what was cut.

    Args:
        graph: the whole module's dependencies.
        removed: bool, one a channel.
        smaller: the smaller module's trace, for the same input.

    Returns:
        The layer with what stood there and what stands there now; None where all is as it was.
    """
    first, second = graph.trace.equations, smaller.equations
    twins = {graph.trace.input: smaller.input}
    twins |= {
        v: smaller.variables[p] for p, v in graph.trace.variables.items() if p in smaller.variables
    }
    for one, other in zip(first, second, strict=False):
        if one.name != other.name or len(one.inputs) != len(other.inputs):
            return f"{_named(one)} becomes {_named(other)}"
        found = (
            _other_operands(one, other, twins)
            or _other_params(graph, removed, one, other)
            or _other_shapes(graph, removed, one, other)
        )
        if found:
            return found
        twins.update(zip(one.outputs, other.outputs, strict=True))
    if len(first) != len(second):
        longer = max(first, second, key=len)
        return f"{_named(longer[min(len(first), len(second))])} is in one of the two nets alone"
    return None


def agree(
    graph: Dependencies,
    removed: np.ndarray,
    constants: Sequence[np.ndarray],
    variables: Any,
    smaller: Trace,
    fewer: Any,
) -> bool:
    """Whether the smaller net gives on random images what the whole one does without `removed`.

    Args:
        graph: the whole net's dependencies.
        removed: bool, one a channel.
        constants: for each of `graph.contractions` what the removed channels are; none for 0.
        variables: the whole net's.
        smaller: the smaller net's trace.
        fewer: its variables.
    """
    edits: dict[Value, Any] = {}
    for number, contraction in enumerate(graph.contractions):
        value = contraction.equation.inputs[contraction.operand]
        gone = among(graph.read(contraction), removed)
        shape = [-1 if axis == contraction.axis else 1 for axis in range(len(value.shape))]
        always = np.asarray(constants[number] if constants else np.zeros(len(gone)))
        edits[value] = _struck(gone.reshape(shape), always.reshape(shape), edits.get(value))
    traced = graph.trace
    whole = _compiled(lambda v, x: traced.evaluate(v, x, traced.outputs, edits))
    narrowed = _compiled(lambda v, x: smaller.evaluate(v, x, smaller.outputs))
    rng = np.random.default_rng(0)
    for draw in (rng.random, rng.normal):
        x = jnp.asarray(draw(size=traced.input.shape), traced.input.dtype)
        for one, other in zip(whole(variables, x), narrowed(fewer, x), strict=True):
            size = float(jnp.max(jnp.abs(one), initial=0))
            if not float(jnp.max(jnp.abs(one - other), initial=0)) <= _CLOSE * size:
                return False
    return True


def _compiled(function: Any) -> Any:
    return jax.jit(function, compiler_options=HASTY)


def _struck(gone: np.ndarray, always: np.ndarray, before: Any) -> Any:
    def strike(array: Any) -> Any:
        array = array if before is None else before(array)
        return jnp.where(gone, jnp.asarray(always, array.dtype), array)

    return strike


def _other_operands(one: Equation, other: Equation, twins: dict[Value, Value]) -> str | None:
    for a, b in zip(one.inputs, other.inputs, strict=True):
        if a.constant is None or b.constant is None:
            if (a.constant is None) != (b.constant is None) or twins.setdefault(a, b) is not b:
                return f"{_named(one)} reads something else"
        elif (a.shape, a.constant.tobytes()) != (b.shape, b.constant.tobytes()):
            return f"{_named(one)} takes {_told(a.constant)} in the whole module, " + (
                f"{_told(b.constant)} in the smaller one"
            )
    return None


def _other_params(
    graph: Dependencies, removed: np.ndarray, one: Equation, other: Equation
) -> str | None:
    wanted = {name: one.params[name] for name in one.params if name not in _SIZES}
    if one.name == "slice":
        axes = graph.axes[one.inputs[0]]
        for name in ("start_indices", "limit_indices"):
            wanted[name] = tuple(
                int(np.sum(~among(line[:end], removed))) if np.any(line >= 0) else end
                for line, end in zip(axes, one.params[name], strict=True)
            )
    for name, value in wanted.items():
        if not _same(value, other.params.get(name)):
            return (
                f"{_named(one)} has {name}={one.params[name]} in the whole module, "
                f"{name}={other.params.get(name)} in the smaller one"
            )
    return None


def _same(value: Any, other: Any) -> bool:
    """Whether two parameters are equal; what holds a computation is compared as it is written."""
    try:
        return bool(np.all(value == other)) or str(value) == str(other)
    except (TypeError, ValueError):
        return str(value) == str(other)


def _other_shapes(
    graph: Dependencies, removed: np.ndarray, one: Equation, other: Equation
) -> str | None:
    for value, twin in zip(one.outputs, other.outputs, strict=True):
        wanted = [int(np.sum(~among(line, removed))) for line in graph.axes[value]]
        sizes = zip(graph.axes[value], wanted, twin.shape, strict=False)
        if len(wanted) != len(twin.shape) or any(
            size != left and not np.all(line == BROADCAST) for line, left, size in sizes
        ):
            return (
                f"{_named(one)} gives {value.shape} in the whole module and would give "
                f"{tuple(wanted)}, but gives {twin.shape} in the smaller one"
            )
    return None


def _named(equation: Equation) -> str:
    return f"{equation.name} in {equation.layer or 'the outermost module'}"


def _told(constant: np.ndarray) -> str:
    if constant.size == 1:
        return f"{constant.item():.6g}"
    return f"an array {constant.shape}"
