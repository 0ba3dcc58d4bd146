"""The softmaxes among a net's operations: what they give lies from 0 to 1, whatever they are of.

Bounds of x - max(x) alone do not say that it is never above 0, and of wide ones the exponentials
have no bounds.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np

from rice_jax.graph.trace import Equation, Value
from rice_jax.inspection.interval import FUNCTION, Interval, roundoff

Makers = Mapping[Value, Equation]
"""By each value the operation that gives it."""


@dataclasses.dataclass(frozen=True)
class Softmax:
    """exp(x - max(x)) / sum(exp(x - max(x))) along axes of x."""

    x: Value
    axes: tuple[int, ...]

    def within(self, x: Interval, quotient: Interval) -> Interval:
        """What is known of the last step's result by its operands, and by what it is of.

        One of the exponentials is 1, and a sum of such as are not below 0 is none of them, however
        it rounds; where x may be no number nothing is known.
        """
        finite = jnp.isfinite(x.lo) & jnp.isfinite(x.hi)
        known = jnp.all(finite, axis=self.axes, keepdims=True)
        # The exponential may be computed twice, once for the sum.
        most = 1 + 4 * (FUNCTION + roundoff(self.x.dtype))
        lo = jnp.where(known, jnp.maximum(quotient.lo, 0.0), quotient.lo)
        hi = jnp.where(known, jnp.minimum(quotient.hi, most), quotient.hi)
        return Interval(lo, hi)


def softmaxes(equations: Sequence[Equation]) -> dict[Equation, Softmax]:
    """By its last step, the division, each softmax."""
    makers = {value: equation for equation in equations for value in equation.outputs}
    found = {
        equation: _softmax(equation, makers) for equation in equations if equation.name == "div"
    }
    return {equation: softmax for equation, softmax in found.items() if softmax is not None}


def _softmax(division: Equation, makers: Makers) -> Softmax | None:
    exponentials, total = division.inputs
    exponential, summed = makers.get(exponentials), _reduced(total, "reduce_sum", makers)
    if exponential is None or exponential.name != "exp" or summed is None:
        return None
    shift = makers.get(exponential.inputs[0])
    if summed[0] is not exponentials or shift is None or shift.name != "sub":
        return None
    x, greatest = shift.inputs
    if _reduced(greatest, "reduce_max", makers) != (x, summed[1]):
        return None
    return Softmax(x, summed[1])


def _reduced(value: Value, by: str, makers: Makers) -> tuple[Value, tuple[int, ...]] | None:
    """What was reduced, and along which axes, where `value` has what is left in its old places."""
    places = tuple(range(len(value.shape)))
    while (made := makers.get(value)) is not None:
        if made.name == by:
            (operand,), axes = made.inputs, tuple(made.params["axes"])
            left = tuple(axis for axis in range(len(operand.shape)) if axis not in axes)
            return (operand, axes) if places == left else None
        if made.name == "broadcast_in_dim":
            places = tuple(places[axis] for axis in made.params["broadcast_dimensions"])
        elif made.name not in ("max", "stop_gradient"):
            return None
        joined = [each for each in made.inputs if not _is_least(each)]
        if len(joined) != 1:
            return None
        (value,) = joined
    return None


def _is_least(value: Value) -> bool:
    """Whether it is the -inf that JAX joins to a maximum."""
    return value.constant is not None and bool(np.all(np.asarray(value.constant) == -np.inf))
