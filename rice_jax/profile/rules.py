"""FLOPs of one traced operation in three conventions; one multiply-add is two.

`formula`: convolutions and dense products alone, as papers quote them.
`study`: TensorFlow's profiler, which the study used: tensorflow/python/profiler/internal/
    flops_registry.py and the registrations in tensorflow/python/ops/nn_ops.py and math_ops.py.
    What is not registered there counts nothing (ReLU, exp, maxima, casts), and that is the
    convention: a fused operation that TensorFlow leaves out (batch norm) is counted here by the
    registered ones that it is made of.
`xla`: XLA's HLO cost analysis, xla/service/hlo_cost_analysis.cc, of what JAX lowers on a CPU, by
    rules of ours: what XLA would count of the whole net with its loops written out. Transcendental
    functions are counted apart there and add no FLOPs. XLA's own figure is `Profile.xla_measured`.
"""

import dataclasses
import math

import numpy as np

from rice_jax.graph.loops import LINKS
from rice_jax.graph.origins import Origins
from rice_jax.graph.primitives import MOVES
from rice_jax.graph.trace import Equation


@dataclasses.dataclass(frozen=True)
class Flops:
    """A number of operations in each convention."""

    formula: int = 0
    study: int = 0
    xla: int = 0

    def __add__(self, other: "Flops") -> "Flops":
        return Flops(self.formula + other.formula, self.study + other.study, self.xla + other.xla)

    def __mul__(self, times: int) -> "Flops":
        return Flops(times * self.formula, times * self.study, times * self.xla)

    def to_json(self) -> dict[str, int]:
        """The three counts by name."""
        return dataclasses.asdict(self)


# For each element of the output: (study, xla).
_ELEMENTWISE = {
    **dict.fromkeys(("add", "add_any", "sub", "mul", "div", "max", "min", "neg", "square"), (1, 1)),
    **dict.fromkeys(("eq", "ne", "lt", "le", "gt", "ge"), (1, 1)),
    **dict.fromkeys(("log", "pow"), (1, 0)),
    **dict.fromkeys(
        ("relu", "abs", "sign", "floor", "ceil", "round", "is_finite", "clamp", "rem"), (0, 1)
    ),
    **dict.fromkeys(("and", "or", "xor", "not", "reduce_precision"), (0, 1)),
    **dict.fromkeys(
        ("exp", "expm1", "log1p", "sqrt", "cbrt", "tanh", "sin", "cos", "tan", "atan2", "erf"),
        (0, 0),
    ),
    "rsqrt": (2, 0),
    # XLA takes an addition an element, however many devices there are.
    **dict.fromkeys(("psum", "psum2", "psum_invariant", "pmax", "pmin"), (0, 1)),
    # JAX lowers these to several operations.
    "logistic": (0, 3),
    "exp2": (0, 1),
}

# For each element that a reduction makes vanish: (study, xla).
_REDUCTIONS = {
    "reduce_sum": (1, 1),
    **dict.fromkeys(("reduce_max", "reduce_min", "reduce_prod", "reduce_and", "reduce_or"), (0, 1)),
}


_REPEATS = ("broadcast_in_dim", "reshape")


def changes_nothing(origins: Origins, equation: Equation) -> bool:
    """Whether it adds a constant 0, multiplies by a constant 1 or the like: lowering drops that."""
    neutral = {"add": 0, "sub": 0, "mul": 1, "or": False, "and": True}.get(equation.name)
    if equation.name in ("or", "and") and equation.outputs[0].dtype != bool:
        neutral = None
    operands = equation.inputs[1:] if equation.name == "sub" else equation.inputs
    constants = (origins.origin(value, _REPEATS).value.constant for value in operands)
    return neutral is not None and any(c is not None and np.all(c == neutral) for c in constants)


def is_elementwise(equation: Equation) -> bool:
    """Whether each element of the output is made of the operands' elements at its own place."""
    return equation.name in _ELEMENTWISE or equation.name in _ELEMENTWISE_RULES


def flops(equation: Equation) -> Flops | None:
    """Operations of one equation by its shapes; None where there is no rule for it."""
    name, size = equation.name, sum(output.size for output in equation.outputs)
    if name in MOVES or name in LINKS:
        return Flops()
    if name in _ELEMENTWISE:
        study, xla = _ELEMENTWISE[name]
        return Flops(0, study * size, xla * size)
    if name in _REDUCTIONS:
        study, xla = _REDUCTIONS[name]
        vanished = equation.inputs[0].size - size
        return Flops(0, study * vanished, xla * vanished)
    rule = _RULES.get(name)
    return rule(equation) if rule else None


def measured(equation: Equation, xla: int) -> Flops | None:
    """Operations of an equation without a rule, of which XLA itself counts `xla`.

    `formula` has nothing of it, unless it is a product of ragged groups, or a product or a
    convolution of a kind unknown here: None then. Of what has no rule TensorFlow registers ArgMax
    and ArgMin, as a reduction.
    """
    if equation.name == "ragged_dot_general":
        count = _ragged_product(equation)
        return Flops(count, count, xla)
    if "dot" in equation.name or "conv" in equation.name.replace("convert", ""):
        return None
    is_place = equation.name in ("argmax", "argmin")
    vanished = equation.inputs[0].size - equation.outputs[0].size if is_place else 0
    return Flops(0, vanished, xla)


def _convolution(equation: Equation) -> Flops:
    """2 x Cin / groups x K^2 x Cout x positions, three ways.

    `formula` takes every output position. Of a transposed convolution it takes every input
    position: those are what the kernel is laid on, the zeros between them cost nothing.
    `study` is Conv2D's rule; a transposed one is Conv2DBackpropInput, the output's positions over
    the strides. `xla` takes the taps that fall inside the input (GetConvolutionFlops).
    """
    params, (image, kernel), (output,) = equation.params, equation.inputs, equation.outputs
    image_spec, kernel_spec, output_spec = params["dimension_numbers"]
    batch = output.shape[output_spec[0]]
    positions = math.prod(output.shape[axis] for axis in output_spec[2:])
    taps = math.prod(
        _valid_taps(
            image.shape[image_axis],
            kernel.shape[kernel_axis],
            output.shape[output_axis],
            params["window_strides"][i],
            params["padding"][i][0],
            params["lhs_dilation"][i],
            params["rhs_dilation"][i],
        )
        for i, (image_axis, kernel_axis, output_axis) in enumerate(
            zip(image_spec[2:], kernel_spec[2:], output_spec[2:], strict=True)
        )
    )
    channels = kernel.shape[kernel_spec[0]] * kernel.shape[kernel_spec[1]]
    upsampling = math.prod(params["lhs_dilation"])
    applied = positions
    if upsampling > 1:
        applied = math.prod(image.shape[axis] for axis in image_spec[2:])
    every = 2 * batch * kernel.size
    return Flops(every * applied, every * positions // upsampling, 2 * batch * channels * taps)


def _valid_taps(
    size: int, kernel: int, output: int, stride: int, pad: int, base: int, dilation: int
) -> int:
    """Pairs of output and kernel position along one axis that meet an element of the input."""
    starts = (place * stride - pad for place in range(output))
    places = (start + tap * dilation for start in starts for tap in range(kernel))
    return int(sum(place % base == 0 and 0 <= place // base < size for place in places))


def _product(equation: Equation) -> Flops:
    (contracted, _), _ = equation.params["dimension_numbers"]
    width = math.prod(equation.inputs[0].shape[axis] for axis in contracted)
    count = 2 * equation.outputs[0].size * width
    return Flops(count, count, count)


def _ragged_product(equation: Equation) -> int:
    """2mkn: each row meets the matrix of its own group, all rows being in some group.

    That is how it is defined and what GPU and TPU compute. XLA's own count on a CPU is that of
    its lowering there, where every row meets every group's matrix behind a mask.
    """
    numbers = equation.params["ragged_dot_dimension_numbers"]
    (_, contracted), (_, batch) = numbers.dot_dimension_numbers
    left, right = equation.inputs[:2]
    shared = {*contracted, *batch, *numbers.rhs_group_dimensions}
    return 2 * left.size * math.prod(n for axis, n in enumerate(right.shape) if axis not in shared)


def _max_pool(equation: Equation) -> Flops:
    """TensorFlow counts K^2 an output, XLA the K^2 - 1 comparisons; padding is not left out."""
    size, window = equation.outputs[0].size, math.prod(equation.params["window_dimensions"])
    return Flops(0, window * size, (window - 1) * size)


def _window_sum(equation: Equation) -> Flops:
    """K^2 - 1 an output: with its division an average pool is TensorFlow's K^2."""
    size, window = equation.outputs[0].size, math.prod(equation.params["window_dimensions"])
    return Flops(0, (window - 1) * size, (window - 1) * size)


def _integer_pow(equation: Equation) -> Flops:
    """TensorFlow: Square, Reciprocal or Pow. XLA: squarings, products, and a division if < 0."""
    size, power = equation.outputs[0].size, equation.params["y"]
    if power == 0:
        return Flops()
    multiplications = abs(power).bit_length() - 1 + abs(power).bit_count() - 1
    return Flops(0, size * (power != 1), size * (multiplications + (power < 0)))


def _convert(equation: Equation) -> Flops:
    """A conversion to the same type (JAX keeps weak types apart) does not reach XLA."""
    (x,), (y,) = equation.inputs, equation.outputs
    return Flops(0, 0, y.size if x.dtype != y.dtype else 0)


def _erfc(equation: Equation) -> Flops | None:
    """The rational approximation that XLA expands erfc to, computed in float32."""
    (output,) = equation.outputs
    if output.dtype.itemsize > 4:
        return None
    conversions = 0 if output.dtype == np.float32 else 2
    return Flops(0, 0, (62 + conversions) * output.size)


def _select(equation: Equation) -> Flops | None:
    return Flops(0, 0, equation.outputs[0].size) if len(equation.inputs) == 3 else None


def _gather(equation: Equation) -> Flops | None:
    """Moves data, unless it fills in for indices out of bounds."""
    return None if "FILL" in str(equation.params["mode"]) else Flops()


_ELEMENTWISE_RULES = {
    "convert_element_type": _convert,
    "erfc": _erfc,
    "integer_pow": _integer_pow,
    "select_n": _select,
}
_RULES = {
    **_ELEMENTWISE_RULES,
    "conv_general_dilated": _convolution,
    "dot_general": _product,
    "gather": _gather,
    "reduce_window_max": _max_pool,
    "reduce_window_min": _max_pool,
    "reduce_window_sum": _window_sum,
}
