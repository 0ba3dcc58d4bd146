"""The rows of the table: what each layer or free operation costs, and what no rule counts."""

import dataclasses

from rice_jax.graph.trace import Equation, Trace, Value
from rice_jax.profile.attribution import Attribution
from rice_jax.profile.rules import Flops, changes_nothing, flops
from rice_jax.profile.softmax import softmaxes

NOT_CALLED = "not called"


@dataclasses.dataclass
class Row:
    """A line of the table."""

    path: str
    """Path of the layer ('' for a net that is one layer); of an operation its module's and name."""
    type: str
    """Class of the layer, or name of the operation."""
    output_shape: tuple[int, ...] | None = None
    """With its batch dimension; None for a layer that is never called."""
    params: int = 0
    filters: int = 0
    """Output channels of the row's convolutions."""
    flops: Flops = dataclasses.field(default_factory=Flops)

    def to_json(self) -> dict[str, object]:
        """The row as plain JSON types."""
        shape = None if self.output_shape is None else list(self.output_shape)
        return {**vars(self), "output_shape": shape, "flops": self.flops.to_json()}


@dataclasses.dataclass(frozen=True)
class Uncounted:
    """An operation that no rule counts."""

    layer: str
    """Path of the module that does it."""
    operation: str
    """JAX's name of the primitive."""
    input_shapes: tuple[tuple[int, ...], ...]
    output_shapes: tuple[tuple[int, ...], ...]

    def to_json(self) -> dict[str, object]:
        """The operation as plain JSON types."""
        return {
            "layer": self.layer,
            "operation": self.operation,
            "input_shapes": [list(shape) for shape in self.input_shapes],
            "output_shapes": [list(shape) for shape in self.output_shapes],
        }


def tabulate(traced: Trace) -> tuple[list[Row], list[Uncounted]]:
    """The rows in order of execution, layers that are never called last, and what has no rule."""
    attribution = Attribution(traced)
    softmax_ends = softmaxes(traced)
    rows: dict[str, Row] = {}
    uncounted: list[Uncounted] = []
    kernels: set[Value] = set()
    # JAX drops what no output needs before XLA sees it.
    for equation in traced.needed(traced.outputs):
        count = None if attribution.mixes_activations(equation) else flops(equation)
        path = attribution.row(equation, counted=count is not None)
        if count is None:
            uncounted.append(_uncounted(equation))
        if path is None:
            continue
        row = rows.setdefault(path, Row(path, attribution.types[path]))
        row.output_shape = equation.outputs[0].shape if equation.outputs else None
        row.filters += _new_filters(traced, equation, kernels)
        if equation in softmax_ends:
            row.flops += _softmax_step(equation, is_last=softmax_ends[equation] is equation)
        elif count is not None:
            dropped = changes_nothing(traced, equation)
            row.flops += dataclasses.replace(count, xla=0) if dropped else count
    _add_layers(traced, rows)
    return list(rows.values()), uncounted


def _uncounted(equation: Equation) -> Uncounted:
    inputs, outputs = (
        tuple(value.shape for value in values) for values in (equation.inputs, equation.outputs)
    )
    return Uncounted(equation.layer, equation.name, inputs, outputs)


def _softmax_step(equation: Equation, is_last: bool) -> Flops:
    """TensorFlow's one operation Softmax is 5 for each output, XLA's steps count as they are."""
    count = flops(equation) or Flops()
    return dataclasses.replace(count, study=5 * equation.outputs[0].size if is_last else 0)


def _new_filters(traced: Trace, equation: Equation, kernels: set[Value]) -> int:
    """Output channels of a convolution whose kernel is not among those met before."""
    if equation.name != "conv_general_dilated":
        return 0
    kernel = equation.inputs[1]
    while (producer := traced.producer(kernel)) and producer.inputs:
        kernel = producer.inputs[0]
    if kernel in kernels:
        return 0
    kernels.add(kernel)
    channels = equation.params["dimension_numbers"].out_spec[1]
    return equation.outputs[0].shape[channels]


def _add_layers(traced: Trace, rows: dict[str, Row]) -> None:
    """Fill in parameters and outputs, and add the layers that have parameters alone."""
    for name, value in traced.variables.items():
        if name.startswith("params/"):
            path = traced.owners[value]
            layer = traced.layers.get(path)
            kind = layer.module.__name__ if layer else NOT_CALLED
            rows.setdefault(path, Row(path, kind)).params += value.size
    for path, layer in traced.layers.items():
        if path in rows and layer.output is not None:
            rows[path].output_shape = layer.output.shape
