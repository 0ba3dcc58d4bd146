"""Which value of a traced computation is the feature map of each of its convolutions."""

import dataclasses

import flax.linen as nn

from rice_jax.graph.trace import Equation, Trace, Value

# Steps that act on each element alone: bias, BatchNorm's affine, a scale, a change of precision.
_ELEMENTWISE = frozenset(
    {
        *("add", "sub", "mul", "div", "neg", "convert_element_type", "reduce_precision"),
        *("copy", "copy_p", "name", "sharding_constraint", "optimization_barrier"),
    }
)


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
    roots = _roots(trace)
    variables = set(trace.variables.values())
    kernels: dict[str, list[frozenset[Value]]] = {}
    calls: dict[str, int] = {}
    found = []
    for equation in trace.equations:
        if equation.name != "conv_general_dilated" or not roots[equation.inputs[1]] & variables:
            continue
        known = kernels.setdefault(equation.layer, [])
        kernel = roots[equation.inputs[1]]
        if kernel not in known:
            known.append(kernel)
        number = known.index(kernel) + 1
        path = equation.layer if number == 1 else f"{equation.layer}#{number}"
        calls[path] = calls.get(path, -1) + 1
        value, rectified = _follow(trace, equation, roots)
        batch_axis, channel_axis, *_ = equation.params["dimension_numbers"].out_spec
        filters = value.shape[channel_axis]
        found.append(
            ConvMap(path, calls[path], filters, value, rectified, batch_axis, channel_axis)
        )
    return found


def unseen(trace: Trace) -> list[str]:
    """Paths of the convolution layers whose maps cannot be had: they run inside `nn.scan` or so."""
    seen = {conv.path for conv in convolutions(trace)}
    return [
        path
        for path, layer in trace.layers.items()
        if issubclass(layer.module, nn.Conv | nn.ConvTranspose) and path not in seen
    ]


def _roots(trace: Trace) -> dict[Value, frozenset[Value]]:
    """For each value, the variables and the input that it depends on."""
    roots = {value: frozenset([value]) for value in (trace.input, *trace.variables.values())}
    for equation in trace.equations:
        for value in equation.inputs:
            roots.setdefault(value, frozenset())
        reached = frozenset().union(*(roots[value] for value in equation.inputs))
        roots.update(dict.fromkeys(equation.outputs, reached))
    return roots


def _follow(
    trace: Trace, convolution: Equation, roots: dict[Value, frozenset[Value]]
) -> tuple[Value, bool]:
    """The feature map of `convolution` and whether it is rectified."""
    own = value = convolution.outputs[0]
    while (step := _only_reader(trace, value)) is not None:
        if _rectifies(trace, step, value):
            return _clipped(trace, step.outputs[0], roots), True
        others = [operand for operand in step.inputs if operand is not value]
        if (
            step.name not in _ELEMENTWISE
            or step.inputs.count(value) != 1
            or step.outputs[0].shape != value.shape
            or any(trace.input in roots[operand] for operand in others)
        ):
            break
        value = step.outputs[0]
        if step.layer == convolution.layer:
            own = value
    return own, False


def _only_reader(trace: Trace, value: Value) -> Equation | None:
    readers = trace.consumers(value)
    return readers[0] if len(readers) == 1 and value not in trace.outputs else None


def _rectifies(trace: Trace, step: Equation, value: Value) -> bool:
    if step.name == "relu":
        return True
    if step.name == "max":
        return any(_is_zero(trace, operand) for operand in step.inputs)
    return step.name == "clamp" and step.inputs[1] is value and _is_zero(trace, step.inputs[0])


def _is_zero(trace: Trace, value: Value) -> bool:
    """Whether a value is a constant 0, maybe broadcast or converted."""
    if value.constant is not None:
        return not value.constant.any()
    made = trace.producer(value)
    return (
        made is not None
        and made.name in ("broadcast_in_dim", "convert_element_type")
        and _is_zero(trace, made.inputs[0])
    )


def _clipped(trace: Trace, value: Value, roots: dict[Value, frozenset[Value]]) -> Value:
    """The value after the upper clip that makes a ReLU6 of a ReLU, or `value` itself."""
    step = _only_reader(trace, value)
    if step is None or step.name != "min":
        return value
    constant = all(operand is value or not roots[operand] for operand in step.inputs)
    return step.outputs[0] if constant else value
