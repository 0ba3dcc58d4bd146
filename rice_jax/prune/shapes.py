"""Channels without which a module would read another number from its shapes."""

from typing import Any

import numpy as np

from rice_jax.errors import UserError
from rice_jax.graph.fronts import PureNet, takes_variables
from rice_jax.graph.fronts.linen import LinenNet
from rice_jax.graph.narrowed import Bridged
from rice_jax.prune.agreement import agree
from rice_jax.prune.departure import departure
from rice_jax.prune.dependencies import Dependencies
from rice_jax.prune.narrow import has_width
from rice_jax.prune.surgery import cut, narrowed


@takes_variables
def hold_shapes(module: Any, variables: Any, graph: Dependencies, **kwargs: Any) -> Dependencies:
    """Leave whole what can't go without a change to a constant or scale that came from a shape.

    Each group loses one channel for a try: 1 / sqrt(channels), or channels // 4, then is another
    number. Where none is, as in most nets, one narrower trace tells so.

    Args:
        module: the net, narrowed by its own code.
        variables: its variables; an NNX module is followed by none.
        graph: its `dependencies`.
        **kwargs: what else the module's call needs.

    Returns:
        The dependencies without those channels, which `kept_whole` names.
    """
    firsts = [np.flatnonzero(graph.group == group)[0] for group in range(graph.groups)]
    tried = [first for first in firsts if _can_be_tried(module, graph, int(graph.group[first]))]
    if _other(module, variables, graph, tried, kwargs) is None:
        return graph
    kept = np.zeros(graph.channels, bool)
    reasons = []
    for first in tried:
        found = _other(module, variables, graph, [first], kwargs)
        if found is not None:
            group = int(graph.group[first])
            kept |= graph.group == group
            reasons += [f"{path}: {found}" for path in graph.layers(group)]
    return graph.without(kept, reasons)


def _can_be_tried(net: PureNet, graph: Dependencies, group: int) -> bool:
    """Whether one channel of a group can go: a Linen layer without a field for its width can't be
    narrowed, which is told when it is known what is to go."""
    linen = isinstance(net, LinenNet) and not isinstance(net.module, Bridged)
    wide = not linen or all(has_width(graph, path) for path in graph.layers(group))
    return wide and bool(np.sum(graph.group == group) > 1)


def _other(
    module: PureNet, variables: Any, graph: Dependencies, channels: list[int], kwargs: Any
) -> str | None:
    """What becomes another number without these channels, if anything does."""
    removed = np.zeros(graph.channels, bool)
    removed[channels] = True
    fewer = cut(variables, graph, removed)
    try:
        fit = narrowed(module, fewer, graph, removed, **kwargs)
    except UserError as error:
        return str(error)
    found = departure(graph, removed, fit.trace, fit.held)
    if found is None or agree(graph, removed, (), variables, fit.trace, fewer):
        return None
    return found
