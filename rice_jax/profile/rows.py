"""The rows of the table: what each layer or free operation costs, and what no rule counts."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType

from rice_jax.graph.equations import within
from rice_jax.graph.loops import LINKS, Opened
from rice_jax.graph.origins import Origins
from rice_jax.graph.trace import Equation, Trace, Value
from rice_jax.profile.attribution import Attribution
from rice_jax.profile.rules import Flops, changes_nothing, flops, measured
from rice_jax.profile.softmax import softmaxes
from rice_jax.profile.traffic import Traffic
from rice_jax.profile.xla import operation_flops

NOT_CALLED = "not called"
_PARAMETERS = "parameters"
"""What others read, of a module that is not called itself."""


@dataclasses.dataclass
class Row:
    """A line of the table."""

    path: str
    """Path of the layer ('' for a net that is one layer); of an operation its module's and name."""
    type: str
    """Class of the layer, or name of the operation."""
    output_shape: tuple[int, ...] | None = None
    """With its batch dimension, of one iteration in a loop; None for a layer never called."""
    params: int = 0
    filters: int = 0
    """Output channels of the row's convolutions."""
    flops: Flops = dataclasses.field(default_factory=Flops)
    """All iterations of a loop together."""
    times: int = 1
    """How often a loop runs the row; XLA's own count has it once."""
    branches: int = 1
    """Of how many branches the row is in the dearest; the others are in no count."""
    complete: bool = True
    """Whether all that the row does is in its count."""
    skipped: bool = False
    """Whether the row is in a branch that is not the dearest, and so in no count."""
    training_flops: int = 0
    """Of a forward and a backward pass, in the `formula` convention."""
    traffic: Traffic = dataclasses.field(default_factory=Traffic)

    @property
    def intensity(self) -> float | None:
        """FLOPs in the `xla` convention for each byte read or written; None without a byte."""
        return self.flops.xla / self.traffic.total if self.traffic.total else None

    def to_json(self) -> dict[str, object]:
        """The row as plain JSON types."""
        content = {**vars(self), "flops": self.flops.to_json(), "intensity": self.intensity}
        content["output_shape"] = None if self.output_shape is None else list(self.output_shape)
        content["bytes"] = dataclasses.asdict(content.pop("traffic"))
        return content


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


@dataclasses.dataclass
class Table:
    """The rows of a net, and what they are made of."""

    rows: dict[str, Row]
    """By path, in order of execution; layers that are never called last."""
    uncounted: list[Uncounted]
    members: dict[str, dict[Equation, Flops]]
    """The equations of each row, and what each costs once; nothing where no rule counts it."""
    xla_once: int
    """The FLOPs in XLA's convention with each loop's body once."""


Rule = Callable[[Equation], Flops | None]
"""From one operation to its FLOPs; None where they can't be told."""


def tabulate(opening: Opened, rules: Mapping[str, Rule] = MappingProxyType({})) -> Table:
    """Gather the equations of an opened trace in rows, and count them; `rules` before our own."""
    traced = opening.trace
    attribution = Attribution(traced)
    softmax_ends = softmaxes(traced)
    table = Table({}, [], {}, 0)
    origins = Origins(traced)
    kernels: set[frozenset[Value]] = set()
    for equation in traced.equations:
        count = _count(equation, rules)
        path = attribution.row(equation, counted=count is not None)
        if count is None:
            table.uncounted.append(_uncounted(equation))
        elif equation in softmax_ends:
            count = _softmax_step(count, equation, is_last=softmax_ends[equation] is equation)
        elif changes_nothing(origins, equation):
            count = dataclasses.replace(count, xla=0)
        if path is not None:
            row = table.rows.setdefault(path, Row(path, attribution.types[path]))
            table.members.setdefault(path, {})[equation] = count or Flops()
            row.output_shape = equation.outputs[0].shape if equation.outputs else None
            row.filters += _new_filters(origins, traced, equation, kernels)
            row.times = max(row.times, opening.times[equation])
            row.branches = max(row.branches, opening.choices.get(equation, 1))
            row.complete &= count is not None
            row.flops += (count or Flops()) * opening.times[equation]
            table.xla_once += count.xla if count else 0
    idle = [p for p, row in table.rows.items() if row.type == "constants" and row.flops == Flops()]
    for path in idle:
        del table.rows[path], table.members[path]
    passed_over = [e for e in opening.passed_over if _count(e, rules) is None]
    table.uncounted += map(_uncounted, passed_over)
    _add_layers(traced, table.rows)
    _mark(table.rows, opening, passed_over)
    return table


def cost(equations: Iterable[tuple[Equation, int]]) -> tuple[int, int, int]:
    """What equations cost that run so often, to find the dearest of several lists of them.

    By `formula` first, then `xla`, then `study`; what has no rule costs nothing here.
    """
    counts = [(flops(equation) or Flops()) * times for equation, times in equations]
    total = sum(counts, Flops())
    return total.formula, total.xla, total.study


def _count(equation: Equation, rules: Mapping[str, Rule]) -> Flops | None:
    """By a rule, or as XLA counts the operation alone; None where neither is to be had."""
    if equation.name in rules:
        return rules[equation.name](equation)
    count = flops(equation)
    if count is None:
        asked = operation_flops(equation)
        count = None if asked is None else measured(equation, asked)
    return count


def _uncounted(equation: Equation) -> Uncounted:
    inputs, outputs = (
        tuple(value.shape for value in values) for values in (equation.inputs, equation.outputs)
    )
    return Uncounted(equation.layer, equation.name, inputs, outputs)


def _softmax_step(count: Flops, equation: Equation, is_last: bool) -> Flops:
    """TensorFlow's one operation Softmax is 5 for each output, XLA's steps count as they are."""
    return dataclasses.replace(count, study=5 * equation.outputs[0].size if is_last else 0)


def _new_filters(
    origins: Origins, traced: Trace, equation: Equation, kernels: set[frozenset[Value]]
) -> int:
    """Output channels of a convolution whose kernel is not among those met before.

    A loop that takes a slice of stacked kernels in each iteration has as many times the channels,
    devices that share the channels of one have them all.
    """
    if equation.name != "conv_general_dilated":
        return 0
    kernel = equation.inputs[1]
    identity = origins.identity(kernel)
    if identity in kernels:
        return 0
    kernels.add(identity)
    channels = equation.params["dimension_numbers"].out_spec[1]
    return _stacked(origins, traced, equation, kernel) * equation.outputs[0].shape[channels]


def _stacked(origins: Origins, traced: Trace, equation: Equation, value: Value) -> int:
    """How many slices of what a convolution's kernel is made of its loops go through."""
    made = traced.producer(value)
    if made is None or not made.inputs:
        return 1
    if made.name not in LINKS:
        weights = filter(origins.is_weight, made.inputs)
        return max((_stacked(origins, traced, equation, each) for each in weights), default=1)
    source, axis = made.inputs[0], equation.params["dimension_numbers"].rhs_spec[0]
    slices = 1
    if len(source.shape) > len(value.shape):
        slices = source.shape[0]
    elif len(value.shape) == len(equation.inputs[1].shape):
        slices = source.shape[axis] // value.shape[axis]
    return slices * _stacked(origins, traced, equation, source)


def _add_layers(traced: Trace, rows: dict[str, Row]) -> None:
    """Fill in parameters and outputs, and add the layers that have parameters alone."""
    read = {traced.owners[v] for v in traced.variables.values() if traced.consumers(v)}
    for name, value in traced.variables.items():
        if name.startswith("params/"):
            path = traced.owners[value]
            layer = traced.layers.get(path)
            kind = _PARAMETERS if path in read else NOT_CALLED
            kind = layer.module.__name__ if layer else kind
            rows.setdefault(path, Row(path, kind)).params += value.size
    for path, layer in traced.layers.items():
        if path in rows and layer.output is not None:
            rows[path].output_shape = layer.output.shape


def _mark(rows: dict[str, Row], opening: Opened, passed_over: Sequence[Equation]) -> None:
    """Say of which layers the count lacks something, and which are in a branch not taken."""
    unknown = [e for e in opening.trace.equations if e.bodies] + list(passed_over)
    for path in {inner.layer for equation in unknown for inner in within(equation)}:
        if path in rows:
            rows[path].complete = False
    counted = {equation.layer for equation in opening.trace.equations}
    for path in {e.layer for e in opening.passed_over} - counted:
        if path in rows:
            rows[path].skipped = True
