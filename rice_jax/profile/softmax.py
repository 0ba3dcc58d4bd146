"""Finds softmaxes in a trace: JAX writes one out as a maximum, exponentials, a sum, a division."""

from rice_jax.graph.origins import Origins
from rice_jax.graph.primitives import MOVES
from rice_jax.graph.trace import Equation, Trace, Value

_SAME_VALUES = MOVES | {"convert_element_type"}


def softmaxes(traced: Trace) -> dict[Equation, Equation]:
    """From each step of a softmax to its last one, the division."""
    steps: dict[Equation, Equation] = {}
    origins = Origins(traced)
    for equation in traced.equations:
        if equation.name == "div":
            steps.update(dict.fromkeys(_softmax(origins, equation), equation))
    return steps


def ends_in_softmax(traced: Trace) -> bool:
    """Whether what the module returns are probabilities already."""
    divisions, origins = set(softmaxes(traced).values()), Origins(traced)
    return any(origins.maker(value, _SAME_VALUES) in divisions for value in traced.outputs)


def _softmax(origins: Origins, division: Equation) -> set[Equation]:
    """The steps of exp(x - max(x)) / sum(exp(x - max(x))) that `division` ends, if it does."""
    exponential, total = (origins.maker(value, _SAME_VALUES) for value in division.inputs)
    if exponential is None or exponential.name != "exp":
        return set()
    if total is None or total.name != "reduce_sum":
        return set()
    if origins.maker(total.inputs[0], _SAME_VALUES) is not exponential:
        return set()
    steps = {exponential, total, division}
    shift = origins.maker(exponential.inputs[0], _SAME_VALUES)
    if shift is not None and shift.name == "sub":
        steps.add(shift)
        steps.update(_maximum(origins, shift.inputs[1]))
    return steps


def _maximum(origins: Origins, value: Value) -> set[Equation]:
    """The steps of a maximum along an axis: JAX joins -inf to the reduction."""
    steps = set()
    step = origins.maker(value, _SAME_VALUES)
    while step is not None and step.name in ("max", "reduce_max"):
        steps.add(step)
        changing = [v for v in step.inputs if v.constant is None]
        joined = step.name == "max" and changing
        step = origins.maker(changing[-1], _SAME_VALUES) if joined else None
    return steps
