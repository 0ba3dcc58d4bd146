"""Which value of a traced computation is the feature map of each of its convolutions."""

import dataclasses

import jax.numpy as jnp

from rice_jax.errors import UserError
from rice_jax.graph.equations import within
from rice_jax.graph.origins import Origins
from rice_jax.graph.primitives import ARRANGES, CASTS, RENAMES
from rice_jax.graph.trace import Equation, Trace, Value

# Steps that act on each element alone: bias, BatchNorm's affine, a scale, a change of precision.
_AFFINE = frozenset({"add", "sub", "mul", "div", "neg"}) | CASTS | RENAMES


@dataclasses.dataclass(frozen=True)
class ConvMap:
    """The feature map of one call of a convolution."""

    path: str
    """Path of the layer. A layer's second kernel (a hand-written module) has '#2' after it."""
    call: int
    """0 for the layer's first call; a layer called again has the same filters again."""
    filters: int
    value: Value
    """What the convolution gives after the rectifier that belongs to it, or without one."""
    rectified: bool
    """Whether `value` is a rectifier's output."""
    batch_axis: int
    channel_axis: int

    @property
    def name(self) -> str:
        """The path, and '@2' after it for a second call."""
        return self.path if self.call == 0 else f"{self.path}@{self.call + 1}"


def convolutions(trace: Trace) -> list[ConvMap]:
    """The feature map of each convolution, in the order in which they are computed.

    From the convolution's output the map follows, as long as nothing else reads it, steps that act
    on each element alone with operands that no image changes (bias, BatchNorm's affine, a scale)
    to the first rectifier: ReLU, ReLU6, a clip from 0. Where none is met, as before a residual
    addition or another activation, the map is the convolution layer's own output.

    A layer called more than once gives an entry for each call, all with one path: a filter does
    nothing only where none of its calls does anything. Convolutions whose kernel depends on no
    variable (patch extraction, a fixed blur) have no filters to speak of and are left out; those
    inside a loop, whose values a flat trace does not have, are named by `unseen`.
    """
    origins = Origins(trace)
    kernels: dict[str, list[frozenset[Value]]] = {}
    calls: dict[str, int] = {}
    found = []
    for equation in trace.equations:
        if equation.name != "conv_general_dilated" or not origins.paths(equation.inputs[1]):
            continue
        known = kernels.setdefault(equation.layer, [])
        kernel = origins.identity(equation.inputs[1])
        if kernel not in known:
            known.append(kernel)
        number = known.index(kernel) + 1
        path = equation.layer if number == 1 else f"{equation.layer}#{number}"
        calls[path] = calls.get(path, -1) + 1
        value, rectified = _follow(trace, equation, origins)
        batch_axis, channel_axis, *_ = equation.params["dimension_numbers"].out_spec
        filters = value.shape[channel_axis]
        found.append(
            ConvMap(path, calls[path], filters, value, rectified, batch_axis, channel_axis)
        )
    return found


@dataclasses.dataclass(frozen=True)
class UnitMap:
    """What one call of a dense layer gives."""

    path: str
    value: Value
    """After the rectifier that belongs to it, or without one."""
    channel_axis: int


def dense_layers(trace: Trace) -> list[UnitMap]:
    """The map of each dense layer, followed from its product as that of a convolution is.

    Kernels with several axes of outputs are left out.
    """
    origins = Origins(trace)
    found = []
    for equation in trace.equations:
        if equation.name != "dot_general":
            continue
        axis = _axis_of_units(equation, origins)
        if axis is not None:
            value, _ = _follow(trace, equation, origins)
            found.append(UnitMap(equation.layer, value, axis))
    return found


def _axis_of_units(product: Equation, origins: Origins) -> int | None:
    """The axis of a product along which a kernel's outputs lie; None without such a kernel."""
    contracted, batch = product.params["dimension_numbers"]
    weights = [origins.is_weight(operand) for operand in product.inputs]
    if weights.count(True) != 1:
        return None
    side = weights.index(True)
    outputs = len(product.inputs[side].shape) - len(contracted[side]) - len(batch[side])
    if outputs != 1:
        return None
    return len(product.outputs[0].shape) - 1 if side else len(batch[0])


def require_pixels(trace: Trace) -> None:
    """UserError where a convolution's map has no pixel: the image is too small for its window."""
    for equation in trace.equations:
        if equation.name == "conv_general_dilated" and 0 in equation.outputs[0].shape:
            raise UserError(
                f"the convolution {equation.layer!r} gives maps without a pixel of images "
                f"{trace.input.shape}: they are too small for this net"
            )


def require_scaled(trace: Trace) -> None:
    """UserError for pixels that are whole numbers: a net trained on [0, 1] would see them 255 times
    as bright.

    Not where the net itself multiplies or divides them first. Whole numbers that are places in a
    table (`nn.Embed`) are no pixels.
    """
    if jnp.issubdtype(trace.input.dtype, jnp.floating):
        return
    origins, moves = Origins(trace), RENAMES | ARRANGES
    for reader in origins.origin(trace.input, moves).readers:
        made = reader.outputs[0]
        if reader.name != "convert_element_type" or not jnp.issubdtype(made.dtype, jnp.floating):
            continue
        if not any(each.name in ("div", "mul") for each in origins.origin(made, moves).readers):
            raise UserError(
                f"images are {trace.input.dtype}, a net takes floats: divide pixels by 255, in a "
                "census with transform=lambda images, first: images / 255"
            )


def unseen(trace: Trace) -> list[str]:
    """Paths of the convolution layers whose maps cannot be had: they run inside `nn.scan` or so."""
    seen = {conv.path for conv in convolutions(trace)}
    hidden = {
        inner.layer
        for equation in trace.equations
        for inner in within(equation)
        if inner.name == "conv_general_dilated"
    }
    return [path for path in trace.layers if path in hidden - seen]


def _follow(trace: Trace, weighed: Equation, origins: Origins) -> tuple[Value, bool]:
    """The map of a convolution or a dense product and whether it is rectified."""
    own = value = weighed.outputs[0]
    while (step := _only_reader(trace, value)) is not None:
        if _rectifies(origins, step, value):
            return _clipped(trace, step.outputs[0], origins), True
        others = [operand for operand in step.inputs if operand is not value]
        if (
            step.name not in _AFFINE
            or len(step.outputs) != 1
            or step.inputs.count(value) != 1
            or step.outputs[0].shape != value.shape
            or any(trace.input in origins.roots(operand) for operand in others)
        ):
            break
        value = step.outputs[0]
        if step.layer == weighed.layer:
            own = value
    return own, False


def _only_reader(trace: Trace, value: Value) -> Equation | None:
    readers = trace.consumers(value)
    return readers[0] if len(readers) == 1 and value not in trace.outputs else None


def _rectifies(origins: Origins, step: Equation, value: Value) -> bool:
    if step.name == "relu":
        return True
    if step.name == "max":
        return any(_is_zero(origins, operand) for operand in step.inputs)
    return step.name == "clamp" and step.inputs[1] is value and _is_zero(origins, step.inputs[0])


def _is_zero(origins: Origins, value: Value) -> bool:
    constant = origins.origin(value).value.constant
    return constant is not None and not constant.any()


def _clipped(trace: Trace, value: Value, origins: Origins) -> Value:
    """The value after the upper clip that makes a ReLU6 of a ReLU, or `value` itself."""
    step = _only_reader(trace, value)
    if step is None or step.name != "min":
        return value
    constant = all(operand is value or origins.is_constant(operand) for operand in step.inputs)
    return step.outputs[0] if constant else value
