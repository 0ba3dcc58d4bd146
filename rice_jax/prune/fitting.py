"""A smaller net that takes the smaller variables: the module's own code, or a rebuilt module."""

import contextlib
import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from rice_jax.errors import UserError
from rice_jax.graph.arrays import Chosen
from rice_jax.graph.call import by_path
from rice_jax.graph.fronts import PureNet, front
from rice_jax.graph.fronts.function import FunctionNet
from rice_jax.graph.fronts.linen import LinenNet
from rice_jax.graph.narrowed import Bridged
from rice_jax.graph.trace import Trace, trace, variable_shapes
from rice_jax.prune.dependencies import Dependencies
from rice_jax.prune.narrow import narrow
from rice_jax.prune.places import unplaced


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
        return fitted(net.like(net.function, variables), variables, graph, kwargs)
    refused = []
    every = np.ones(graph.channels, bool)
    for held in (graph.by_place, graph.by_place | graph.reshaped, every):
        result = _narrowed_to(net, variables, graph, removed, held)
        try:
            return fitted(result, variables, graph, kwargs, held, trial)
        except UserError as error:
            refused.append(error)
    raise unplaced(graph, removed) or refused[0]


def is_linen(net: PureNet) -> bool:
    """Whether its layers are Linen's, and not NNX's in a Linen module."""
    return isinstance(net, LinenNet) and not isinstance(net.module, Bridged)


def _checks_itself(net: PureNet, variables: Any) -> bool:
    """Whether a call refuses variables of wrong shapes: Linen does so for parameters alone."""
    return is_linen(net) and set(variables) == {"params"}


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


def rebuilt(net: PureNet, module: Any, variables: Any) -> PureNet:
    """The net of the module that `rebuild` made; UserError where that is of another kind."""
    made = net.like(module, variables)
    if type(front(module, variables)) is not type(net):
        raise UserError(f"rebuild= gives {type(module).__name__}, which is no net as {net.name} is")
    return made


def fitted(
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
    expected = {path: leaf.shape for path, leaf in by_path(wanted).items()}
    given = {path: leaf.shape for path, leaf in by_path(variables).items()}
    for path in sorted({*expected, *given}):
        if expected.get(path) != given.get(path):
            raise UserError(
                f"the smaller module does not fit: {path} should be "
                f"{given.get(path, 'left out')}, the module asks for "
                f"{expected.get(path, 'no such variable')}; in Python pass rebuild="
            )
    return Fit(net, traced, held)
