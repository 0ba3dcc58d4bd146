"""A net as ONNX, by jax2onnx.

jax2onnx swaps Flax's layers for its own while it traces, and knows neither custom derivatives nor
operations that differ by platform. So it is not given the module but the module's computation as
a flat list of XLA's operations (`rice_jax.graph.trace`), played back one by one.
"""

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import export, lax

from rice_jax.errors import UserError, reason
from rice_jax.export import any_size, spreading
from rice_jax.export.lacking import lacking
from rice_jax.graph.origins import Origins
from rice_jax.graph.trace import Equation, Trace, trace


@contextlib.contextmanager
def _cumsum_kept() -> Iterator[None]:
    """jax2onnx leaves a cumsum of its own in jax.numpy, which takes the axis by its name alone."""
    kept = jnp.cumsum
    try:
        yield
    finally:
        jnp.cumsum = kept


@_cumsum_kept()
def to_onnx(module: nn.Module, params: Any, image_size: int) -> bytes:
    """Serialise the net with its weights as an ONNX model, for a batch of any size.

    Args:
        module: a net, called as `module.apply({'params': params}, images, train=False)`.
        params: its parameters.
        image_size: height and width of the images it will take.

    Returns:
        The model: input 'images' float32 (batch, image_size, image_size, 3) in [0, 1], output
        'logits' float32 (batch, classes). Computed in float32.

    Raises:
        UserError: the packages of the extra 'onnx' are not installed, or ONNX lacks an operation
            of the net, which is named with its layer, or the net asks how many images there are.
    """
    for name in ("jax2onnx", "onnx_ir"):  # they warn of layers and types that no net here has
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        import jax2onnx
    except ImportError as error:
        raise UserError(
            f"ONNX needs packages that are not installed ({error}): pip install 'rice_jax[onnx]'"
        ) from error
    shape, net = (image_size, image_size, 3), module.clone(dtype=jnp.float32)
    traced = trace(net, any_size.images_of(net, params, image_size).shape, train=False)

    def logits(images: jax.Array) -> jax.Array:
        return _for_batch(traced, images).evaluate({"params": params}, images, traced.outputs)[0]

    try:
        model = jax2onnx.to_onnx(
            logits,
            [("batch", *shape)],
            model_name=type(module).__name__,
            input_names=["images"],
            output_names=["logits"],
        )
    except UserError:
        raise
    except Exception as error:  # each converter of an operation raises its own kinds
        one = jnp.zeros((1, *shape))
        alone = trace(net, one.shape, train=False)
        found = lacking(_for_batch(alone, one), _converts)
        if found is None:
            raise UserError(f"the net has no ONNX form: {reason(error)}") from error
        raise UserError(
            f"{found.layer or 'the net'}: {found.name} has no ONNX form; a .stablehlo takes more"
        ) from error
    _drop_null_biases(model.graph)
    return model.SerializeToString()


def _converts(function: Callable[..., Any], arguments: Sequence[jax.ShapeDtypeStruct]) -> bool:
    """Whether an operation alone can be converted."""
    import jax2onnx

    try:
        jax2onnx.to_onnx(function, list(arguments))
    except Exception:
        return False
    return True


def with_note(content: bytes, name: str, text: str) -> bytes:
    """The model with `text` as its metadata `name`."""
    import onnx

    model = onnx.load_from_string(content)
    onnx.helper.set_model_props(model, {name: text})
    return model.SerializeToString()


def operators(content: bytes) -> list[str]:
    """The kinds of operators that the model needs, as ONNX calls them: 'Conv', by name."""
    import onnx

    return sorted({node.op_type for node in onnx.load_from_string(content).graph.node})


def _drop_null_biases(graph: Any) -> None:
    """Make a MatMul of each Gemm that adds a lone 0, as which jax2onnx writes a matrix product.

    Of a MatMul and the bias after it onnxruntime makes one Gemm; its quantiser refuses the 0.
    """
    from onnx import numpy_helper

    nulls = {
        each.name: each
        for each in graph.initializer
        if not each.dims and not numpy_helper.to_array(each)
    }
    for node in graph.node:
        if node.op_type == "Gemm" and node.input[2:] and node.input[2] in nulls:
            node.op_type = "MatMul"
            del node.input[2], node.attribute[:]
    read = {name for node in graph.node for name in node.input}
    for name in nulls.keys() - read:
        graph.initializer.remove(nulls[name])


def _for_batch(traced: Trace, images: jax.Array) -> Trace:
    """The computation for the converter's own unknown batch size in place of ours."""
    origins = Origins(traced)
    equations = [
        dataclasses.replace(
            equation,
            params=_with_batch(equation.params, images.shape[0]),
            primitive=_stand_in(equation, origins),
        )
        for equation in traced.equations
    ]
    return dataclasses.replace(traced, equations=equations)


def _with_batch(value: Any, batch: Any) -> Any:
    if type(value) is dict:
        return {key: _with_batch(item, batch) for key, item in value.items()}
    if type(value) is tuple:  # not the named ones, such as dimension numbers
        return tuple(_with_batch(item, batch) for item in value)
    return batch if export.is_symbolic_dim(value) else value


def _stand_in(equation: Equation, origins: Origins) -> Any:
    """The primitive, or what jax2onnx knows instead."""
    if equation.name in ("stack", "unstack"):
        return _OfOnes(equation)
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


class _OfOnes:
    """Stands in for `stack` and `unstack`, which jax2onnx lacks: axes of one number each."""

    def __init__(self, equation: Equation) -> None:
        self.multiple_results = equation.name == "unstack"

    def bind(self, *operands: jax.Array, axis: int, **_: Any) -> Any:
        if not self.multiple_results:
            return jnp.concatenate([jnp.expand_dims(each, axis) for each in operands], axis)
        (whole,) = operands
        size = whole.shape[axis]
        return [lax.index_in_dim(whole, place, axis, keepdims=False) for place in range(size)]


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
            raise UserError(f"{equation.layer}: a dilated max pool has no ONNX form")
        windows = zip(
            params["window_dimensions"], params["window_strides"], params["padding"], strict=True
        )
        pooled = [axis for axis, each in enumerate(windows) if each != (1, 1, (0, 0))]
        rank = len(equation.inputs[0].shape)
        if 0 in pooled or len(pooled) > rank - 2:
            raise UserError(f"{equation.layer}: a max pool along {pooled} has no ONNX form")
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
        raise UserError(f"{equation.layer}: a max pool padded by {pads} has no ONNX form")
    return None
