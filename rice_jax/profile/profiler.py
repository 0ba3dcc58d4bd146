"""Counts what a net costs, by layer, without weights, data or compilation."""

import dataclasses
import functools
import operator
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax.numpy as jnp

from rice_jax.errors import UserError
from rice_jax.graph.call import Output
from rice_jax.graph.fronts import takes_net
from rice_jax.graph.input_shape import check_reading, traced_for, whole_shape
from rice_jax.graph.loops import opened
from rice_jax.graph.scopes import is_under
from rice_jax.graph.trace import Trace, Value
from rice_jax.profile import study
from rice_jax.profile.bits import PRECISIONS, Precision, bit_operations
from rice_jax.profile.memory import Memory, memory
from rice_jax.profile.roofline import Device
from rice_jax.profile.rows import NOT_CALLED, Row, Rule, Uncounted, cost, tabulate
from rice_jax.profile.rules import Flops
from rice_jax.profile.softmax import ends_in_softmax
from rice_jax.profile.traffic import Traffic, traffic
from rice_jax.profile.training_step import training_flops
from rice_jax.profile.xla import lowered_flops


@dataclasses.dataclass(frozen=True)
class Profile:
    """What a net costs for one input shape; every total is the sum of its rows."""

    input_shape: tuple[int, ...]
    """With the batch dimension."""
    rows: tuple[Row, ...]
    uncounted: tuple[Uncounted, ...]
    """Operations that are in no count; with any of them the totals are too low."""
    trainable_params: int
    study_filters: int
    """Filters as the study counts them: a convolution under the root by its own, a block that
    holds convolutions by the channels that leave it."""
    param_bytes: int
    vector_params: int
    """Parameters of one axis or none, as biases: quantised nets have them in 32 bits."""
    single: bool
    """Whether all that it computes are numbers of 32 bits."""
    xla_loops_once: int
    """What `flops.xla` would be with each loop's body once, as XLA's own count has it."""
    memory: Memory
    """What inference needs at its peak."""
    xla_measured: int | None = None
    """XLA's own count of the lowered module, without the study's softmax; None where `count` was
    not asked for it. It has a loop's body once, and is a sum of float32."""

    @property
    def params(self) -> int:
        """Number of parameters (collection 'params' alone)."""
        return sum(row.params for row in self.rows)

    @property
    def filters(self) -> int:
        """Output channels of all convolutions."""
        return sum(row.filters for row in self.rows)

    @property
    def flops(self) -> Flops:
        """FLOPs for the input shape."""
        return functools.reduce(operator.add, (row.flops for row in self.rows), Flops())

    @property
    def training_flops(self) -> int:
        """FLOPs of a forward and a backward pass, in the `formula` convention."""
        return sum(row.training_flops for row in self.rows)

    @property
    def traffic(self) -> Traffic:
        """Bytes that the rows read and write."""
        return functools.reduce(operator.add, (row.traffic for row in self.rows), Traffic())

    def at(self, precision: Precision) -> dict[str, int]:
        """What the net costs with weights and activations of so many bits.

        Returns:
            bit_operations: in the convention of `rice_jax.profile.bits`; param_bytes: of weights,
            with biases in 32 bits; bytes: what the rows read and write, all at the activations'
            bits, where the net computes in float32.
        """
        weights = (self.params - self.vector_params) * precision.weights // 8
        costs = {
            "bit_operations": bit_operations(self.flops.formula, precision),
            "param_bytes": weights + 4 * self.vector_params,
        }
        moved = self.traffic.total * precision.activations // 32
        return costs | {"bytes": moved} if self.single else costs

    @property
    def complete(self) -> bool:
        """Whether all that the net does is in the totals."""
        return not self.uncounted

    @property
    def not_called(self) -> tuple[str, ...]:
        """Paths of the layers that have parameters and take no part in the call."""
        return tuple(row.path for row in self.rows if row.type == NOT_CALLED)

    def to_json(self, name: str | None = None, device: Device | None = None) -> dict[str, Any]:
        """The profile as plain JSON types, the study's figures beside it.

        Args:
            name: the net's name. If it is one of the study's and the net has the study's widths,
                input and FLOPs, 'reported' holds the study's figures and 'errata' what is wrong in
                them; else they are None and empty.
            device: whose roofline it is; each row then has 'bound' and 'seconds', and 'roofline'
                the device's peaks and the seconds of all rows.
        """
        reported = study.reported(name, self.params, self.flops.study, self.input_shape)
        layers = [row.to_json() for row in self.rows]
        roofline = None
        if device is not None:
            for layer, row in zip(layers, self.rows, strict=True):
                layer |= {"bound": device.bound(row), "seconds": device.seconds(row)}
            seconds = sum(map(device.seconds, self.rows))
            roofline = dataclasses.asdict(device) | {"seconds": seconds}
        return {
            "input_shape": list(self.input_shape),
            "layers": layers,
            "totals": {
                "params": self.params,
                "trainable_params": self.trainable_params,
                "param_bytes": self.param_bytes,
                "filters": self.filters,
                "study_filters": self.study_filters,
                "flops": self.flops.to_json(),
                "training_flops": self.training_flops,
                "bytes": dataclasses.asdict(self.traffic),
                "precisions": {name: self.at(each) for name, each in PRECISIONS.items()},
                "memory": self.memory.to_json(),
                "complete": self.complete,
                "xla_loops_once": self.xla_loops_once,
                "xla_measured": self.xla_measured,
            },
            "roofline": roofline,
            "uncounted": [operation.to_json() for operation in self.uncounted],
            "not_called": list(self.not_called),
            "reported": reported,
            "errata": study.errata(name) if name and reported else [],
        }


@takes_net
def count(
    module: Any,
    input_shape: Sequence[int],
    *,
    batched: bool | None = None,
    dtype: Any = jnp.float32,
    output: Output = None,
    frozen: Sequence[str] = (),
    softmax: bool = True,
    measure_xla: bool = False,
    rules: Mapping[str, Rule] = MappingProxyType({}),
    **call_kwargs: Any,
) -> Profile:
    """Count parameters, filters and FLOPs of any net, layer by layer.

    No weights are needed. The FLOPs are counted in the three conventions of
    `rice_jax.profile.rules`, a loop's body as often as it runs, of a branch the dearest choice.
    What can't be known is named in `uncounted` and is in no count, and the profile is not
    `complete` then: a loop whose trips depend on the input, calls of foreign code.

    Args:
        module: a net called with one array: a Linen module, an NNX module, or a function of params
            and an array, which its params come after.
        input_shape: three numbers are one image (H, W, C), counted as a batch of one; any other
            number of them is the whole shape with its batch dimension.
        batched: whether `input_shape` has its batch dimension, where that is otherwise: True for
            the whole shape (N, L, C) of a 1-D net.
        dtype: of the input.
        output: which of several outputs are the logits: a key, attribute or index, or a function.
        frozen: paths of layers or arrays that do not learn; one stands for all that is under it.
        softmax: whether logits (N, classes) get the softmax that ends the study's graphs: a row
            in `study` alone, unless the module ends in a softmax itself.
        measure_xla: whether to ask XLA for its own count too, which takes as long as lowering.
        rules: more rules, or others, by JAX's name of a primitive: `rule(equation)` gives the
            `Flops` of one operation by its shapes and parameters, None where they can't be told.
        **call_kwargs: what else the module's call takes, such as train=False, arrays, or `rngs`;
            streams without a key in `rngs` get a fixed one.

    Returns:
        The profile.

    Raises:
        UserError: a size that is not positive, a shape that the net does not run on or that
            convolutions show to be read wrongly (say `batched`), an output that is none, a frozen
            path of nothing; with `measure_xla` a module that XLA has no count for; no CPU backend
            in JAX, where XLA is asked, of the net or of an operation without a rule.
    """
    shape = whole_shape(input_shape, batched)
    traced = traced_for(module, shape, dtype, output=output, any_key=True, **call_kwargs)
    check_reading(traced, input_shape, batched)
    profile = of_trace(traced, frozen=frozen, softmax=softmax, rules=rules)
    if not measure_xla:
        return profile
    measured = lowered_flops(module, traced.variable_shapes, shape, dtype, call_kwargs)
    return dataclasses.replace(profile, xla_measured=measured)


def of_trace(
    traced: Trace,
    *,
    frozen: Sequence[str] = (),
    softmax: bool = True,
    rules: Mapping[str, Rule] = MappingProxyType({}),
) -> Profile:
    """The same of a module that was traced already; the arguments are those of `count`."""
    opening = opened(traced, cost)
    table = tabulate(opening, rules)
    rows = list(table.rows.values())
    _check_frozen(frozen, traced)
    learned = _learned(traced, frozen)
    for path, moved in traffic(opening, table.members).items():
        table.rows[path].traffic = moved
    for path, flops in training_flops(opening, table.members, learned).items():
        table.rows[path].training_flops = flops
    study_filters = _study_filters(opening.trace, rows)
    logits = traced.logits
    if softmax and logits and len(logits.shape) == 2 and not ends_in_softmax(opening.trace):
        path = "softmax" if "softmax" not in table.rows else "softmax (study)"
        rows.append(Row(path, "softmax", logits.shape, flops=Flops(study=5 * logits.size)))
    params = [value for _, value in _params(traced)]
    return Profile(
        input_shape=traced.input.shape,
        rows=tuple(rows),
        uncounted=tuple(table.uncounted),
        trainable_params=sum(value.size for value in learned),
        study_filters=study_filters,
        param_bytes=sum(value.size * value.dtype.itemsize for value in params),
        vector_params=sum(value.size for value in params if len(value.shape) < 2),
        single=_in_single(traced),
        xla_loops_once=table.xla_once,
        memory=memory(opening),
        xla_measured=None,
    )


def _in_single(traced: Trace) -> bool:
    """Whether all that is computed has 32 bits, where it is no whole number."""
    made = [value.dtype for equation in traced.equations for value in equation.outputs]
    return all(each.itemsize == 4 for each in made if jnp.issubdtype(each, jnp.floating))


def _check_frozen(frozen: Sequence[str], traced: Trace) -> None:
    arrays = [path for path, _ in _params(traced)]
    for path in frozen:
        if not any(is_under(array, [path]) for array in arrays):
            layers = dict.fromkeys(array.rpartition("/")[0] or array for array in arrays)
            raise UserError(
                f"frozen names {path!r}, where the net has no parameters; layers that have are "
                f"{', '.join(layers)}"
            )


def _learned(traced: Trace, frozen: Sequence[str]) -> list[Value]:
    """The parameters that are trained."""
    return [value for path, value in _params(traced) if not is_under(path, frozen)]


def _params(traced: Trace) -> list[tuple[str, Value]]:
    """Each parameter's layer and own name, as 'conv1/kernel', and its value."""
    return [
        (f"{traced.owners[value]}/{path.rpartition('/')[2]}".lstrip("/"), value)
        for path, value in traced.variables.items()
        if path.startswith("params/")
    ]


def _study_filters(traced: Trace, rows: Sequence[Row]) -> int:
    """A convolution under the root by its filters, a block of them by its output's channels."""
    by_block: dict[str, int] = {}
    for row in rows:
        if row.filters:
            block, *inside = row.path.split("/")
            layer = traced.layers.get(block)
            if inside and layer and layer.output is not None:
                by_block[block] = layer.output.shape[-1]
            else:
                by_block[block] = by_block.get(block, 0) + row.filters
    return sum(by_block.values())
