"""Finds softmaxes in a trace: JAX writes one out as a maximum, exponentials, a sum, a division."""

from rice_jax.graph.primitives import MOVES
from rice_jax.graph.trace import Equation, Trace, Value

_SAME_VALUES = MOVES | {"convert_element_type"}


def softmaxes(traced: Trace) -> dict[Equation, Equation]:
    """From each step of a softmax to its last one, the division."""
    steps: dict[Equation, Equation] = {}
    for equation in traced.equations:
        if equation.name == "div":
            steps.update(dict.fromkeys(_softmax(traced, equation), equation))
    return steps


def ends_in_softmax(traced: Trace) -> bool:
    """Whether what the module returns are probabilities already."""
    divisions = set(softmaxes(traced).values())
    return any(maker(traced, value) in divisions for value in traced.outputs)


def _softmax(traced: Trace, division: Equation) -> set[Equation]:
    """The steps of exp(x - max(x)) / sum(exp(x - max(x))) that `division` ends, if it does."""
    exponential, total = (maker(traced, value) for value in division.inputs)
    if exponential is None or exponential.name != "exp":
        return set()
    if total is None or total.name != "reduce_sum":
        return set()
    if maker(traced, total.inputs[0]) is not exponential:
        return set()
    steps = {exponential, total, division}
    shift = maker(traced, exponential.inputs[0])
    if shift is not None and shift.name == "sub":
        steps.add(shift)
        steps.update(_maximum(traced, shift.inputs[1]))
    return steps


def _maximum(traced: Trace, value: Value) -> set[Equation]:
    """The steps of a maximum along an axis: JAX joins -inf to the reduction."""
    steps = set()
    step = maker(traced, value)
    while step is not None and step.name in ("max", "reduce_max"):
        steps.add(step)
        operand = next(v for v in reversed(step.inputs) if v.constant is None)
        step = maker(traced, operand) if step.name == "max" else None
    return steps


def maker(traced: Trace, value: Value) -> Equation | None:
    """The equation that computes `value`, looking through those that only move it."""
    equation = traced.producer(value)
    while equation is not None and equation.name in _SAME_VALUES and equation.inputs:
        equation = traced.producer(equation.inputs[0])
    return equation
