"""Operations that jax2onnx lacks or gets wrong, written by others."""

import itertools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from rice_jax.errors import UserError
from rice_jax.export import halves, spreading
from rice_jax.graph.origins import Origins
from rice_jax.graph.trace import Equation


def stand_in(equation: Equation, origins: Origins) -> Any:
    """The primitive, or what jax2onnx knows instead."""
    if all(0 in each.shape for each in equation.outputs):
        return _Nothing(equation)
    if equation.name == "concatenate":
        return _Joined(equation)
    if equation.name == "rem":
        return _Remainder()
    if halves.go_away(equation):
        return halves.Away()
    if equation.name == "cumprod":
        return _Products()
    if equation.name == "reshape" and equation.params["dimensions"] is not None:
        return _InOrder(equation)
    if equation.name == "pad" and all(
        before >= 0 and after >= 0 and not between
        for before, after, between in equation.params["padding_config"]
    ):
        filling = origins.constant(equation.inputs[1])
        return equation.primitive if filling is None else _Pad(filling.item())
    if _is_max_pool(equation):
        return _MaxPool(equation)
    if spreading.is_transposed(equation):
        return spreading.ZerosBetween(equation)
    if equation.name == "relu":
        return _stand_in_of_relu(equation)
    return equation.primitive


def _stand_in_of_relu(equation: Equation) -> Any:
    """ONNX's Relu of the operand that is not 0; the primitive where shapes do not tell which."""
    whole = [
        place
        for place, value in enumerate(equation.inputs)
        if value.constant is None and value.shape == equation.outputs[0].shape
    ]
    return _Relu(whole[0]) if len(whole) == 1 else equation.primitive


def _is_max_pool(equation: Equation) -> bool:
    return equation.name == "reduce_window_max" and len(equation.inputs[0].shape) > 2


class _Relu:
    """Stands in for the maximum with 0, so that it becomes ONNX's Relu, which runtimes fuse."""

    multiple_results = False

    def __init__(self, place: int) -> None:
        self._place = place

    def bind(self, *operands: Any, **_: Any) -> jax.Array:
        return nn.relu(operands[self._place])


class _Nothing:
    """Stands in for what makes arrays without numbers, as pads of no width do, which `_Joined`
    leaves out: jax2onnx does not know their shapes."""

    def __init__(self, equation: Equation) -> None:
        self.multiple_results = equation.primitive.multiple_results
        self._types = [each.dtype for each in equation.outputs]

    def bind(self, *_: Any, **__: Any) -> Any:
        made = [jnp.zeros(0, each) for each in self._types]
        return made if self.multiple_results else made[0]


class _Joined:
    """Stands in for a concatenation, of which operands without numbers are no part."""

    multiple_results = False

    def __init__(self, equation: Equation) -> None:
        self._primitive = equation.primitive
        self._whole = [0 not in each.shape for each in equation.inputs]

    def bind(self, *operands: jax.Array, **params: Any) -> jax.Array:
        return self._primitive.bind(*itertools.compress(operands, self._whole), **params)


class _Remainder:
    """Stands in for `rem`, of which jax2onnx asks for a batch of known size."""

    multiple_results = False

    def bind(self, x: jax.Array, y: jax.Array, **_: Any) -> jax.Array:
        return jnp.fmod(x, y)


class _Products:
    """Stands in for `cumprod`, which no runtime's ONNX has yet: each time over twice as many."""

    multiple_results = False

    def bind(self, x: jax.Array, *, axis: int, reverse: bool) -> jax.Array:
        size, step = x.shape[axis], 1
        while step < size:
            first = step if reverse else 0
            others = lax.slice_in_dim(x, first, first + size - step, axis=axis)
            pads = [(0, 0)] * x.ndim
            pads[axis] = (0, step) if reverse else (step, 0)
            x, step = x * jnp.pad(others, pads, constant_values=1), 2 * step
        return x


class _InOrder:
    """Stands in for a reshape that takes the axes in another order, which jax2onnx does not see."""

    multiple_results = False

    def __init__(self, equation: Equation) -> None:
        self._primitive = equation.primitive

    def bind(self, x: jax.Array, *, dimensions: Sequence[int], **params: Any) -> jax.Array:
        return self._primitive.bind(_transposed(x, dimensions), dimensions=None, **params)


class _Pad:
    """Stands in for a pad: of XLA's jax2onnx compares the shape with a batch of unknown size."""

    multiple_results = False

    def __init__(self, filling: Any) -> None:
        self._filling = filling

    def bind(self, x: jax.Array, _: jax.Array, *, padding_config: Sequence[Any]) -> jax.Array:
        pads = [(int(before), int(after)) for before, after, _ in padding_config]
        return jnp.pad(x, pads, constant_values=self._filling)


class _MaxPool:
    """Stands in for XLA's windowed maximum, which jax2onnx would turn into a pool of all axes that
    onnxruntime refuses; of `nn.max_pool` it makes the usual one, of all but the first and last."""

    multiple_results = False

    def __init__(self, equation: Equation) -> None:
        params = equation.params
        if {*params["base_dilation"], *params["window_dilation"]} != {1}:
            raise UserError(f"{equation.layer or 'the net'}: a dilated max pool has no ONNX form")
        windows = zip(
            params["window_dimensions"], params["window_strides"], params["padding"], strict=True
        )
        pooled = [axis for axis, each in enumerate(windows) if each != (1, 1, (0, 0))]
        rank = len(equation.inputs[0].shape)
        if 0 in pooled or len(pooled) > rank - 2:
            along = "the images of a batch" if pooled == [0] else pooled
            raise UserError(
                f"{equation.layer or 'the net'}: a max pool along {along} has no ONNX form"
            )
        rest = [axis for axis in range(1, rank) if axis not in pooled]
        in_order = [*pooled, *rest]
        self._axes = sorted(in_order[:-1])
        self._order = [0, *self._axes, in_order[-1]]
        self._padding = _padding_name(equation, self._axes)
        self._pads = tuple(params["padding"])

    def bind(
        self,
        x: jax.Array,
        *,
        window_dimensions: Sequence[int],
        window_strides: Sequence[int],
        **_: Any,
    ) -> jax.Array:
        if self._padding is None:
            x = _repeated(x, self._pads)
        pooled = nn.max_pool(
            _transposed(x, self._order),
            window_shape=tuple(window_dimensions[axis] for axis in self._axes),
            strides=tuple(window_strides[axis] for axis in self._axes),
            padding=self._padding or "VALID",
        )
        return _transposed(pooled, [self._order.index(axis) for axis in range(x.ndim)])


def _transposed(x: jax.Array, order: Sequence[int]) -> jax.Array:
    return x if [*order] == [*range(x.ndim)] else x.transpose(order)


def _repeated(x: jax.Array, pads: Sequence[tuple[int, int]]) -> jax.Array:
    """The maps with their edges repeated: each window that reaches out has those in it anyway."""
    for axis, (before, after) in enumerate(pads):
        if before or after:
            first = lax.slice_in_dim(x, 0, 1, axis=axis)
            last = lax.slice_in_dim(x, x.shape[axis] - 1, x.shape[axis], axis=axis)
            x = jnp.concatenate([first] * before + [x] + [last] * after, axis)
    return x


def _padding_name(equation: Equation, axes: Sequence[int]) -> str | None:
    """'VALID' or 'SAME', whichever the paddings of a max pool are; None for any other."""
    windows, strides, pads = (
        [equation.params[name][axis] for axis in axes]
        for name in ("window_dimensions", "window_strides", "padding")
    )
    shape = [equation.inputs[0].shape[axis] for axis in axes]
    for name in ("VALID", "SAME"):
        if pads == [tuple(pad) for pad in lax.padtype_to_pads(shape, windows, strides, name)]:
            return name
    if any(not 0 <= each < size for pad, size in zip(pads, windows, strict=True) for each in pad):
        raise UserError(
            f"{equation.layer or 'the net'}: a max pool padded by {pads} has no ONNX form"
        )
    return None
