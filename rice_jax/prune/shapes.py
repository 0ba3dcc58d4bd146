"""Channels without which a module would read another number from its shapes."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rice_jax.errors import UserError
from rice_jax.graph.arrays import Chosen
from rice_jax.graph.fronts import PureNet, takes_net, takes_variables
from rice_jax.prune.agreement import agree
from rice_jax.prune.departure import departure
from rice_jax.prune.dependencies import Dependencies, layer_told
from rice_jax.prune.fitting import is_linen, narrowed
from rice_jax.prune.narrow import has_width
from rice_jax.prune.surgery import cut, cut_shapes


@takes_variables
def hold_shapes(module: Any, variables: Any, graph: Dependencies, **kwargs: Any) -> Dependencies:
    """Leave whole what can't go without a change to a constant or scale that came from a shape.

    Each group loses one channel for a try, and all but one: 1 / sqrt(channels), channels // 4 or
    whether there are more than seven then is another number at one of the ends. Where none is, as
    in most nets, two narrower traces tell so.

    Args:
        module: the net, narrowed by its own code.
        variables: its variables; an NNX module is followed by none.
        graph: its `dependencies`.
        **kwargs: what else the module's call needs.

    Returns:
        The dependencies without those channels, which `kept_whole` names.
    """
    groups = [group for group in range(graph.groups) if _can_be_tried(module, graph, group)]
    found: dict[int, str] = {}
    for removed in (_first_of, _others_of):
        left = [group for group in groups if group not in found]
        if _other(module, variables, graph, removed(graph, left), kwargs) is None:
            continue
        for group in left:
            differs = _other(module, variables, graph, removed(graph, [group]), kwargs)
            if differs is not None:
                found[group] = differs
    if not found:
        return graph
    reasons = [f"{path}: {found[group]}" for group in found for path in graph.layers(group)]
    return graph.without(np.isin(graph.group, list(found)), reasons)


@takes_net
def hold_widths(module: Any, graph: Dependencies) -> Dependencies:
    """Leave whole the layers whose width their own code says: `kept_whole` names them.

    Args:
        module: the net, narrowed by its own code.
        graph: its `dependencies`.
    """
    stuck = [group for group in range(graph.groups) if not _has_widths(module, graph, group)]
    if not stuck:
        return graph
    layers = [path for group in stuck for path in graph.layers(group)]
    reasons = [
        f"{layer_told(path)}: its width cannot be set"
        for path in layers
        if not has_width(graph, path)
    ]
    return graph.without(np.isin(graph.group, stuck), list(dict.fromkeys(reasons)))


def _lively(variables: Any) -> Any:
    """Other variables, of which no filter is dead: what a constant does shows in all of them."""
    rng = np.random.default_rng(0)

    def drawn(array: Any) -> Any:
        array = np.asarray(array)
        if not jnp.issubdtype(array.dtype, jnp.floating):
            return array
        inputs = array.size // array.shape[-1] if array.ndim > 1 and array.size else 1
        return (np.abs(rng.normal(size=array.shape)) / max(inputs, 1)).astype(array.dtype)

    return jax.tree.map(drawn, variables)


def _first_of(graph: Dependencies, groups: Sequence[int]) -> Chosen:
    """The first channel of each of these groups."""
    _, firsts = np.unique(graph.group, return_index=True)
    return np.isin(np.arange(graph.channels), firsts[list(groups)])


def _others_of(graph: Dependencies, groups: Sequence[int]) -> Chosen:
    """All but the first channel of each of these groups."""
    return np.isin(graph.group, groups) & ~_first_of(graph, groups)


def _can_be_tried(net: PureNet, graph: Dependencies, group: int) -> bool:
    """Whether one channel of a group can go: a Linen layer without a field for its width can't be
    narrowed, which is told when it is known what is to go."""
    return _has_widths(net, graph, group) and bool(np.sum(graph.group == group) > 1)


def _has_widths(net: PureNet, graph: Dependencies, group: int) -> bool:
    """Whether the layers of a group have what tells their width, which is a matter of Linen."""
    return not is_linen(net) or all(has_width(graph, path) for path in graph.layers(group))


def _other(
    module: PureNet, variables: Any, graph: Dependencies, removed: Chosen, kwargs: Any
) -> str | None:
    """What becomes another number without these channels, if anything does.

    Of several groups it may be another one without some of them, where all fit in a wider way.
    """
    groups = len(np.unique(graph.group[removed]))
    fewer = cut_shapes(graph, removed)
    try:
        fit = narrowed(module, fewer, graph, removed, trial=True, **kwargs)
    except UserError as error:
        return str(error)
    if groups > 1 and fit.held.all() and not graph.by_place.all():
        return "all of them together fit with every channel at its place alone"
    found = departure(graph, removed, fit.trace, fit.held)
    if found is None:
        return None
    lively = _lively(variables)
    same = agree(graph, removed, (), lively, fit.trace, cut(lively, graph, removed))
    return None if same else found
