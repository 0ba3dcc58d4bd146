"""Bounds of every value of a traced net, for all images in a box at once."""

import functools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rice_jax.errors import UserError, reason
from rice_jax.graph import once
from rice_jax.graph.arrays import Ends, InputShape
from rice_jax.graph.cpu import cpu
from rice_jax.graph.fronts import takes_variables
from rice_jax.graph.input_shape import check_reading, traced_for, whole_shape
from rice_jax.graph.trace import Equation, Trace, Value
from rice_jax.inspection.features import arranged, image_maps
from rice_jax.inspection.interval import Interval, Rule, known_for, point, unknown, widened
from rice_jax.inspection.linear import product
from rice_jax.inspection.rules import RULES, bounding
from rice_jax.inspection.softmaxes import softmaxes
from rice_jax.inspection.summands import PRODUCTS


@takes_variables
def map_bounds(
    module: Any,
    variables: Any,
    input_shape: InputShape,
    low: Any = 0.0,
    high: Any = 1.0,
    *,
    operand_roundoff: float | None = None,
    batched: bool | None = None,
    rules: Mapping[str, Rule] = MappingProxyType({}),
    **call_kwargs: Any,
) -> tuple[dict[str, Ends], tuple[str, ...]]:
    """Bounds of each convolution's feature map, pixel by pixel, for every image in [low, high].

    What the net computes in float32 (or bfloat16 activations) lies within them too, whatever the
    order of its sums: rounding is added, that of the net and that of the bounds. They are
    computed on the CPU, where float32 is float32. An operation without a rule, and NaN or
    infinity, bounds nothing, nor do values that follow from it. Where a library makes something
    else of a convolution than a sum of products, as cuDNN may (Winograd's algorithm), rounding is
    another.

    Args:
        module: any net called with one array of images: a Linen module, an NNX module, a function.
        variables: of a Linen module, {'params': ..., 'batch_stats': ...}, or params of a function;
            an NNX module is followed by none.
        input_shape: (H, W, C) of an image, or (N, H, W, C).
        low: least pixel value, a number or an array that broadcasts to `input_shape`.
        high: largest pixel value, likewise.
        operand_roundoff: relative rounding of what convolutions and dot products multiply. By
            default that of JAX's backend in use: 0 on CPU, 2^-10 on GPU (TF32), but 0 at the
            highest precision (jax_default_matmul_precision), 2^-8 on TPU. Where the net asks for
            an algorithm (`jax.lax.DotAlgorithm`) nothing is bounded without this number.
        batched: whether `input_shape` has its batch dimension, where three numbers are not an
            image or others not a whole shape.
        rules: more rules, or others, by JAX's name of a primitive: `rule(equation, *operands)`
            takes an `Interval` for each operand and gives one for each output (one alone needs no
            list), rounding included (`interval.widened`).
        **call_kwargs: what else the module's call needs, such as train=False.

    Returns:
        The bounds by the map's name, arrays (N, H', W', filters) each, -inf and inf where nothing
        is known; and the operations that maps depend on and that bound nothing, as 'sort in layer
        conv1': those without a rule, and those whose rule tells nothing of these operands, as a
        division by what may be 0.

    Raises:
        UserError: where low is above high, or either is no number nor an array that broadcasts; a
            shape that the net does not run on, or that was read wrongly (say `batched`); variables
            that are not the net's; images whose rows a convolution mixes; no CPU backend in JAX.
    """
    _, bounds, unbounded = traced_map_bounds(
        module,
        variables,
        input_shape,
        low,
        high,
        operand_roundoff=operand_roundoff,
        batched=batched,
        rules=rules,
        **call_kwargs,
    )
    return bounds, unbounded


def traced_map_bounds(
    module: Any,
    variables: Any,
    input_shape: InputShape,
    low: Any,
    high: Any,
    *,
    operand_roundoff: float | None = None,
    batched: bool | None = None,
    rules: Mapping[str, Rule] = MappingProxyType({}),
    **call_kwargs: Any,
) -> tuple[Trace, dict[str, Ends], tuple[str, ...]]:
    """The trace, and what `map_bounds` gives of it."""
    traced = traced_for(module, whole_shape(input_shape, batched), **call_kwargs)
    check_reading(traced, input_shape, batched)
    maps = image_maps(traced)
    bounds, unbounded = value_bounds(
        traced, variables, [conv.value for conv in maps], low, high, operand_roundoff, rules
    )
    by_name = {
        conv.name: (arranged(conv, lo), arranged(conv, hi))
        for conv, (lo, hi) in zip(maps, bounds, strict=True)
    }
    return traced, by_name, unbounded


def value_bounds(
    traced: Trace,
    variables: Any,
    wanted: Sequence[Value],
    low: Any = 0.0,
    high: Any = 1.0,
    operand_roundoff: float | None = None,
    rules: Mapping[str, Rule] = MappingProxyType({}),
) -> tuple[list[Ends], tuple[str, ...]]:
    """Bounds of the `wanted` values of a trace, element by element, as `map_bounds` has them.

    With them the operations that bound nothing, of those that an infinite one follows from: those
    without a rule, and those that make an infinite bound of operands whose bounds are finite.
    """
    box = _box(low, high, traced.input.shape)
    all_rules: Mapping[str, Rule] = {
        **RULES,
        **dict.fromkeys(PRODUCTS, functools.partial(product, operand_roundoff)),
        **rules,
    }
    needed = traced.needed(wanted)
    made = [value for equation in needed for value in equation.outputs]
    arrays = traced.arrays(variables)

    with jax.default_device(cpu("bounds are computed")):
        known = {value: point(np.asarray(array)) for value, array in arrays.items()}
        places = _places(traced, needed, all_rules)

        def propagated(ends: Sequence[Any], darkest: Any, brightest: Any) -> dict[Value, Interval]:
            intervals = {
                value: Interval(lo, lo if known[value].exact else hi)
                for value, (lo, hi) in zip(known, ends, strict=True)
            }
            intervals |= places | {traced.input: widened(darkest, brightest, 0.0)}
            _propagate(needed, intervals, all_rules)
            return intervals

        def ends_of_wanted(*given: Any) -> list[tuple[jax.Array, jax.Array]]:
            return _ends(wanted, propagated(*given))

        def whether_bounded(*given: Any) -> list[jax.Array]:
            intervals = propagated(*given)
            return [_is_bounded(intervals[value]) for value in made]

        given = [(interval.lo, interval.hi) for interval in known.values()], *box
        bounds = _as_one_program(ends_of_wanted, *given)
        if all(np.isfinite(end).all() for ends in bounds for end in ends):
            return bounds, ()
        found = zip(made, _as_one_program(whether_bounded, *given), strict=True)
    unbounded = {value for value, bounded in found if not bounded}
    return bounds, _bounding_nothing(needed, wanted, unbounded, all_rules)


def _as_one_program(function: Callable[..., Any], *given: Any) -> Any:
    """What a function of arrays gives. Compiled one by one its operations would take seconds."""
    return jax.device_get(jax.jit(function, compiler_options=once.HASTY)(*given))


def _ends(
    values: Iterable[Value], intervals: Mapping[Value, Interval]
) -> list[tuple[jax.Array, jax.Array]]:
    bounds = [_of(value, intervals) for value in values]
    return [(bound.lo, bound.hi) for bound in bounds]


def _box(low: Any, high: Any, shape: tuple[int, ...]) -> list[np.ndarray]:
    """The least and the largest images; UserError where they are none of this shape."""
    try:
        ends = [np.broadcast_to(np.asarray(end, np.float64), shape) for end in (low, high)]
    except (TypeError, ValueError) as error:
        raise UserError(
            f"low and high are numbers, or arrays as images {shape} are: {reason(error)}"
        ) from error
    if not np.all(ends[0] <= ends[1]):
        raise UserError(f"images from low={low} to high={high}: low must not be above high")
    return [end.astype(np.float32) for end in ends]


def _propagate(
    equations: Sequence[Equation], intervals: dict[Value, Interval], rules: Mapping[str, Rule]
) -> None:
    """Add the bounds of all outputs to `intervals`."""
    of_softmax = softmaxes(equations)
    for equation in equations:
        if intervals.keys() >= {*equation.outputs}:
            continue
        operands = [_of(value, intervals) for value in equation.inputs]
        if _is_known(equation, operands):
            results = [Interval(x, x) for x in equation.apply(*(x.lo for x in operands))]
        elif equation.name in rules and all(map(_has_bounds, equation.outputs)):
            bounded = rules[equation.name](equation, *operands)
            results = bounded if isinstance(bounded, list) else [bounded]
            if equation in of_softmax:
                softmax = of_softmax[equation]
                results = [softmax.within(_of(softmax.x, intervals), each) for each in results]
        else:
            results = [_anything(value) for value in equation.outputs]
        for value, result in zip(equation.outputs, results, strict=True):
            assert result.lo.shape == value.shape, equation
            intervals[value] = result


def _told(equation: Equation) -> str:
    place = f"layer {equation.layer}" if equation.layer else "the module itself"
    return f"{equation.name} in {place}"


def _bounding_nothing(
    equations: Sequence[Equation],
    wanted: Iterable[Value],
    unbounded: Collection[Value],
    rules: Collection[str],
) -> tuple[str, ...]:
    """The operations that begin, or begin anew, what the wanted values without bounds follow from.

    Args:
        equations: in order.
        wanted: values of theirs.
        unbounded: the values that have no bounds.
        rules: operations that bound something, where their operands have bounds.
    """
    followed = {value for value in wanted if value in unbounded}
    found = []
    for equation in reversed(equations):
        if followed.isdisjoint(equation.outputs):
            continue
        before = [value for value in bounding(equation) if value in unbounded]
        followed.update(before)
        if not before or equation.name not in rules:
            found.append(_told(equation))
    return tuple(dict.fromkeys(reversed(found)))


def _is_bounded(interval: Interval) -> jax.Array:
    """Whether something is known of a value; what is known for certain may be infinite."""
    finite = jnp.isfinite(interval.lo).all() & jnp.isfinite(interval.hi).all()
    return finite | interval.exact


def _places(
    traced: Trace, equations: Sequence[Equation], rules: Mapping[str, Rule]
) -> dict[Value, Interval]:
    """Whole numbers made of fractions that the net's code has written in, however these round.

    So a resize computes which pixels it takes. They are known where the fraction's bounds are cut
    to the same number.
    """
    given = {traced.input, *traced.variables.values()}
    fractions: dict[Value, Value] = {}
    for equation in equations:
        if equation.name != "convert_element_type" or not _cuts(equation):
            continue
        (fraction,), (whole,) = equation.inputs, equation.outputs
        read = {value for each in traced.needed([fraction]) for value in each.inputs}
        if given.isdisjoint(read | {fraction}):
            fractions[whole] = fraction
    if not fractions:
        return {}

    def run() -> list[tuple[jax.Array, jax.Array]]:
        intervals: dict[Value, Interval] = {}
        _propagate(traced.needed(list(fractions.values())), intervals, rules)
        return _ends(fractions.values(), intervals)

    found = {}
    for whole, ends in zip(fractions, _as_one_program(run), strict=True):
        (least, most), kind = map(np.trunc, ends), jnp.iinfo(whole.dtype)
        if np.all((least == most) & (kind.min <= least) & (most < kind.max)):
            found[whole] = point(least.astype(whole.dtype))
    return found


def _cuts(equation: Equation) -> bool:
    """Whether a cast leaves of a fraction the whole number towards 0."""
    (source,), (target,) = equation.inputs, equation.outputs
    of_fractions = jnp.issubdtype(source.dtype, jnp.floating)
    return bool(of_fractions and jnp.issubdtype(target.dtype, jnp.integer))


def _of(value: Value, intervals: Mapping[Value, Interval]) -> Interval:
    """What is known of a value; of one that the net's code has written in, all."""
    return intervals[value] if value.constant is None else point(value.constant)


def _is_known(equation: Equation, operands: Sequence[Interval]) -> bool:
    """Whether the results are whole numbers or truth values that follow exactly from known ones."""
    whole = all(
        _is_truth(value) or jnp.issubdtype(value.dtype, jnp.integer) for value in equation.outputs
    )
    return equation.name == "iota" or (whole and all(operand.exact for operand in operands))


def _is_truth(value: Value) -> bool:
    return jnp.issubdtype(value.dtype, jnp.bool_)


def _has_bounds(value: Value) -> bool:
    """Whether rounding to a value's type is accounted for; a truth value is 0 or 1."""
    return _is_truth(value) or known_for(value.dtype)


def _anything(value: Value) -> Interval:
    if not _is_truth(value):
        return unknown(value.shape)
    no, yes = (jnp.full(value.shape, end, jnp.float32) for end in (0, 1))
    return Interval(no, yes)
