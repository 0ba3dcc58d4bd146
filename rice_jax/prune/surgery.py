"""Filters taken out of a net's weights, and what they always said folded into the next bias."""

import contextlib
import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from rice_jax.errors import UserError
from rice_jax.graph.arrays import Chosen
from rice_jax.graph.cpu import cpu
from rice_jax.graph.fronts import PureNet, front
from rice_jax.graph.fronts.function import FunctionNet
from rice_jax.graph.fronts.linen import LinenNet
from rice_jax.graph.narrowed import Bridged
from rice_jax.graph.trace import Trace, trace, variable_shapes
from rice_jax.prune.agreement import agree
from rice_jax.prune.departure import departure
from rice_jax.prune.dependencies import Dependencies, among
from rice_jax.prune.narrow import narrow
from rice_jax.prune.places import unplaced
from rice_jax.prune.propagation import Contraction

Rebuild = Callable[[Mapping[str, int]], Any]
"""From the filters left by layer path to a module of the same kind that is as wide."""


@dataclasses.dataclass(frozen=True)
class Cut:
    """A smaller net, and which filters of the whole one it has."""

    net: PureNet
    variables: Any
    """As the net takes them: plain nested dictionaries."""
    removed: Mapping[str, Sequence[int]]
    """By layer path: the removed filters' indices in the net as it was."""
    kept: Mapping[str, Sequence[int]]
    """By layer path: the remaining filters' indices in the net as it was."""
    trace: Trace
    """The smaller net's, for the input shape of the whole one's."""
    departure: str | None
    """Where the smaller net's trace differs from the whole one's by more than sizes, though no
    logit did on random images; None where it does not, and so no logit can on any."""

    @property
    def module(self) -> Any:
        """The smaller module; an NNX module holds the variables."""
        return self.net.given(self.variables)[0]


def remove(
    module: Any,
    variables: Any,
    graph: Dependencies,
    removed: Chosen,
    *,
    constants: Sequence[np.ndarray] = (),
    rebuild: Rebuild | None = None,
    optional: Collection[str] = (),
    **kwargs: Any,
) -> Cut:
    """Take channels out of a net: it computes what the whole one would with those at zero.

    Args:
        module: the net, of any kind.
        variables: its variables, plain nested dictionaries: {'params': ...} and more.
        graph: its `dependencies`.
        removed: bool, one a channel.
        constants: for each of `graph.contractions` what the removed channels always are, one
            value an index of its axis; folded into the bias that follows. Empty for zero.
        rebuild: makes the smaller module out of the filters left by layer path; without it the
            module's own code runs with narrower layers (`Narrowed`).
        optional: layers that the rebuilt module leaves out where no filter remains.
        **kwargs: what else the module's call needs.

    Raises:
        UserError: for a layer with no filter left, or a smaller module that doesn't fit or, for a
            number that it reads from its shapes, computes something else.
    """
    net = front(module)
    idle = unread(graph, removed)
    removed = removed | idle
    _refuse_empty(graph, removed, idle, optional)
    folded = _fold(variables, graph, removed, constants) if constants else variables
    smaller = _without_empty(cut(folded, graph, removed))
    gone, kept = graph.by_layer(removed), graph.by_layer(~removed)
    for path, filters in graph.filters.items():
        fixed = np.flatnonzero(filters.channels < 0).tolist()
        kept[path] = sorted([*kept.get(path, []), *fixed])
    kept = {path: kept[path] for path in graph.filters}
    widths = {path: len(indices) for path, indices in kept.items()}
    if rebuild is None:
        fit = narrowed(net, smaller, graph, removed, **kwargs)
    else:
        fit = _fit(_rebuilt(net, rebuild(widths), smaller), smaller, graph, kwargs)
    traced, found = fit.trace, departure(graph, removed, fit.trace, fit.held)
    if found and not agree(graph, removed, constants, variables, traced, smaller):
        raise UserError(
            f"the smaller module computes something else than the whole one without those filters: "
            f"{found}; remove other filters, or in Python pass rebuild= with a module that keeps "
            "that number"
        )
    return Cut(fit.net, smaller, gone, kept, traced, found)


@dataclasses.dataclass(frozen=True)
class Fit:
    """A smaller net that takes the smaller variables."""

    net: PureNet
    trace: Trace
    held: Chosen
    """Channels (bool, one each) whose places stay between layers."""


def narrowed(
    module: Any,
    variables: Any,
    graph: Dependencies,
    removed: Chosen,
    *,
    trial: bool = False,
    **kwargs: Any,
) -> Fit:
    """The module with narrower layers, its channels at their old places where they are picked by
    them, and where the module does not run otherwise.

    Sizes that are written in its code, as in `reshape(-1, 512)`, show when it is run.

    Args:
        module: the net, of any kind.
        variables: the smaller net's, which the module has to fit.
        graph: the net's dependencies.
        removed: bool, one a channel.
        trial: let the layers' own checks of their parameters do, in half of the time: a parameter
            that the narrower module has no use for is not missed.
        **kwargs: what else the module's call needs.

    Raises:
        UserError: where it does not run or fit.
    """
    net = front(module)
    if isinstance(net, FunctionNet):  # reads its widths from its params
        return _fit(net.like(net.function, variables), variables, graph, kwargs)
    refused = []
    every = np.ones(graph.channels, bool)
    for held in (graph.by_place, graph.by_place | graph.reshaped, every):
        result = _narrowed_to(net, variables, graph, removed, held)
        try:
            return _fit(result, variables, graph, kwargs, held, trial)
        except UserError as error:
            refused.append(error)
    raise unplaced(graph, removed) or refused[0]


def _checks_itself(net: PureNet, variables: Any) -> bool:
    """Whether a call refuses variables of wrong shapes: Linen does so for parameters alone."""
    linen = isinstance(net, LinenNet) and not isinstance(net.module, Bridged)
    return linen and set(variables) == {"params"}


def _narrowed_to(
    net: PureNet, variables: Any, graph: Dependencies, removed: Chosen, held: Chosen
) -> PureNet:
    bridged = net.module if isinstance(net, LinenNet) else None
    if isinstance(net, LinenNet) and not isinstance(bridged, Bridged):
        return net.like(narrow(net.module, graph, removed, held), variables)
    from rice_jax.prune import narrow_nnx  # importing flax.nnx takes seconds

    if isinstance(bridged, Bridged):
        smaller = narrow_nnx.narrow_bridged(bridged, variables, graph, removed, held)
        return net.like(smaller, variables)
    return narrow_nnx.narrow(net, variables, graph, removed, held)


def cut(variables: Any, graph: Dependencies, removed: Chosen) -> Any:
    """The variables without the entries of the `removed` channels."""

    def without(array: Any, axis: int, stays: np.ndarray) -> jax.Array:
        # On the host: on a device each shape would be a program to compile.
        return jax.device_put(np.take(np.asarray(array), stays, axis=axis))

    return _cut(variables, graph, removed, without)


def cut_shapes(graph: Dependencies, removed: Chosen) -> Any:
    """The shapes (`jax.ShapeDtypeStruct`) of what `cut` gives."""

    def without(array: Any, axis: int, stays: np.ndarray) -> jax.ShapeDtypeStruct:
        left = [len(stays) if other == axis else size for other, size in enumerate(array.shape)]
        return jax.ShapeDtypeStruct(left, array.dtype)

    return _cut(graph.trace.variable_shapes, graph, removed, without)


def _cut(
    variables: Any,
    graph: Dependencies,
    removed: Chosen,
    without: Callable[[Any, int, np.ndarray], Any],
) -> Any:
    flat: dict[str, Any] = dict(_flat(variables))
    for path, axis, channels in graph.variables():
        flat[path] = without(flat[path], axis, np.flatnonzero(~among(channels, removed)))
    return _nested(flat, variables)


def unread(graph: Dependencies, removed: Chosen) -> np.ndarray:
    """The channels (bool, one each) that only layers without a filter left read."""
    by_nothing, by_something = np.zeros((2, graph.channels), bool)
    for contraction in graph.contractions:
        (output,) = contraction.equation.outputs
        empty = any(len(line) and among(line, removed).all() for line in graph.axes[output])
        channels = graph.read(contraction)
        (by_nothing if empty else by_something)[channels[channels >= 0]] = True
    found = by_nothing & ~by_something
    return found if not np.any(found & ~removed) else unread(graph, removed | found)


def folds_exactly(graph: Dependencies, contraction: Contraction) -> bool:
    """Whether a constant channel can go into the bias that follows: nowhere at an edge cut off."""
    equation = contraction.equation
    kernel = equation.inputs[1 - contraction.operand]
    if equation.name == "conv_general_dilated":
        padded = any(edge > 0 for edges in equation.params["padding"] for edge in edges)
        if padded or any(step != 1 for step in equation.params["lhs_dilation"]):
            return False
    else:
        (contracted, _), (batch, _) = equation.params["dimension_numbers"]
        if len(contracted) != 1 or batch or len(kernel.shape) != 2:
            return False
    return graph.origins.is_weight(kernel) and bias_after(graph, contraction) is not None


def bias_after(graph: Dependencies, contraction: Contraction) -> tuple[str, int] | None:
    """The variable that is added right after (+1) or subtracted (-1, BatchNorm's mean), if any.

    One number a filter, which nothing else reads, under whatever name or precision.
    """
    (output,) = contraction.equation.outputs
    made = graph.origins.origin(output)
    if len(made.readers) != 1 or made.returned:
        return None
    (reader,) = made.readers
    if reader.name not in ("add", "sub") or output not in reader.inputs:
        return None
    left, right = reader.inputs
    if left is right or (reader.name == "sub" and left is not output):
        return None
    bias = graph.origins.origin(right if left is output else left)
    if bias.path is None or bias.readers != (reader,) or bias.returned:
        return None
    filters = output.shape[_features(contraction)]
    line = _along(np.arange(filters), _features(contraction), len(output.shape))
    if bias.value.size != filters or not np.all(bias.places() == line):
        return None
    return bias.path, 1 if reader.name == "add" else -1


def _features(contraction: Contraction) -> int:
    """The axis of the result that has the filters."""
    if contraction.equation.name == "conv_general_dilated":
        return int(contraction.equation.params["dimension_numbers"].out_spec[1])
    rank = len(contraction.equation.outputs[0].shape)
    return rank - 1 if contraction.operand == 0 else 0


def _fold(
    variables: Any, graph: Dependencies, removed: Chosen, constants: Sequence[np.ndarray]
) -> Any:
    flat = dict(_flat(variables))
    for contraction, constant in zip(graph.contractions, constants, strict=True):
        channels = graph.read(contraction)
        missed = np.where(among(channels, removed), constant, 0)
        if not missed.any():
            continue
        bias = bias_after(graph, contraction)
        if bias is None or not folds_exactly(graph, contraction):
            raise UserError(f"no bias follows {contraction.equation.layer} to fold a constant into")
        path, sign = bias
        # Not where a GPU multiplies in TF32: the bias would stay wrong in its fourth digit.
        host = cpu("constants are folded into biases")
        with jax.default_device(host):
            missing = np.asarray(_sum(graph, contraction, missed, jax.device_put(variables, host)))
        flat[path] = flat[path] + sign * missing.reshape(np.shape(flat[path]))
    return _nested(flat, variables)


def _sum(
    graph: Dependencies, contraction: Contraction, missed: np.ndarray, variables: Any
) -> jax.Array:
    """What constant channels add to each filter of the layer that reads them."""
    equation, operand = contraction.equation, contraction.operand
    kernel = graph.origins.compute(equation.inputs[1 - operand], variables)
    shape = equation.inputs[operand].shape
    line = _along(missed, contraction.axis, len(shape))
    operands = [kernel, kernel]
    operands[operand] = jnp.broadcast_to(jnp.asarray(line, kernel.dtype), shape)
    (result,) = equation.apply(*operands)
    features = _features(contraction)
    return jnp.moveaxis(result, features, -1).reshape(-1, result.shape[features])[0]


def _along(line: np.ndarray, axis: int, rank: int) -> np.ndarray:
    """A line laid along one axis of an array of `rank` axes."""
    return line.reshape([-1 if other == axis else 1 for other in range(rank)])


def _refuse_empty(
    graph: Dependencies, removed: Chosen, idle: np.ndarray, optional: Collection[str]
) -> None:
    for group in np.flatnonzero(graph.sizes(removed) == 0):
        layers = [path for path in graph.layers(int(group)) if path not in optional]
        if layers and not idle[graph.group == group].all():
            raise UserError(
                f"{layers[0]} would be left without a filter: keep at least one of its "
                f"{graph.sizes()[group]}"
            )


def _without_empty(variables: Any) -> Any:
    """The variables without the layers that have no filter."""
    flat: dict[Any, Any] = dict(traverse_util.flatten_dict(variables))
    empty = {path[:-1] for path, array in flat.items() if array.size == 0}
    return traverse_util.unflatten_dict(
        {path: array for path, array in flat.items() if path[:-1] not in empty}
    )


def _rebuilt(net: PureNet, module: Any, variables: Any) -> PureNet:
    """The net of the module that `rebuild` made; UserError where that is of another kind."""
    made = net.like(module, variables)
    if type(front(module, variables)) is not type(net):
        raise UserError(f"rebuild= gives {type(module).__name__}, which is no net as {net.name} is")
    return made


def _fit(
    net: PureNet,
    variables: Any,
    graph: Dependencies,
    kwargs: Mapping[str, Any],
    held: Chosen | None = None,
    trial: bool = False,
) -> Fit:
    """The net with its trace; UserError where it does not run or asks for other variables."""
    shape = graph.trace.input.shape
    held = np.zeros(graph.channels, bool) if held is None else held
    if trial and _checks_itself(net, variables):
        with contextlib.suppress(Exception):  # which is told below
            return Fit(net, trace(net, shape, any_key=True, shapes=variables, **kwargs), held)
    try:
        wanted = variable_shapes(net, shape, **kwargs)
        traced = trace(net, shape, any_key=True, shapes=wanted, **kwargs)
    except UserError:
        raise
    except Exception as error:
        text = " ".join(str(error).split())
        raise UserError(f"the smaller module does not run: {text}") from error
    expected = {path: leaf.shape for path, leaf in _flat(wanted).items()}
    given = {path: leaf.shape for path, leaf in _flat(variables).items()}
    for path in sorted({*expected, *given}):
        if expected.get(path) != given.get(path):
            raise UserError(
                f"the smaller module does not fit: {path} should be "
                f"{given.get(path, 'left out')}, the module asks for "
                f"{expected.get(path, 'no such variable')}; in Python pass rebuild="
            )
    return Fit(net, traced, held)


def _flat(variables: Any) -> dict[str, Any]:
    return traverse_util.flatten_dict(variables, sep="/")


def _nested(flat: Mapping[str, Any], like: Any) -> Any:
    """The arrays by path, nested as `like` is: a name may have '/' in it (`nn.WeightNorm`)."""

    def leaf(keys: Any, _: Any) -> Any:
        return flat["/".join(str(key.key) for key in keys)]

    return jax.tree_util.tree_map_with_path(leaf, like)
