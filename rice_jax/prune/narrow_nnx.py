"""NNX modules with fewer filters than their class makes: alone, or in a Linen module."""

from collections.abc import Mapping
from typing import Any

from flax import nnx
from flax.core import FrozenDict

from rice_jax.graph.arrays import Chosen
from rice_jax.graph.call import by_path
from rice_jax.graph.fronts import PureNet
from rice_jax.graph.fronts.nnx import NNXNet, modules
from rice_jax.graph.narrowed import Bridged
from rice_jax.graph.narrowed_nnx import fit
from rice_jax.prune.dependencies import Dependencies
from rice_jax.prune.narrow import groupings
from rice_jax.prune.places import reads_and_writes


def narrow(
    net: PureNet, variables: Any, graph: Dependencies, removed: Chosen, held: Chosen
) -> NNXNet:
    """The module without the `removed` channels (bool, one each); the given one is left as it is.

    Args:
        net: the net, or one that was narrowed before.
        variables: the smaller net's.
        graph: the net's dependencies.
        removed: bool, one a channel.
        held: channels (bool, one each) that keep their places between layers.
    """
    module, _ = net.given(variables)
    layers = dict(modules(module))
    before = tuple(
        {path: places for path, layer in layers.items() if (places := getattr(layer, name, None))}
        for name in ("_reads", "_writes")
    )
    reads, writes = reads_and_writes(graph, removed, held, (before[0], before[1]))
    fit(module, groupings(graph, removed, nnx.GroupNorm), reads, writes)
    return NNXNet(module)


def narrow_bridged(
    module: Bridged, variables: Any, graph: Dependencies, removed: Chosen, held: Chosen
) -> Bridged:
    """The same of an NNX class in a Linen module, which is told what its layers' sizes are."""
    reads, writes = reads_and_writes(graph, removed, held, (module.reads, module.writes))
    widths: dict[str, dict[str, Any]] = {path: dict(at) for path, at in module.widths.items()}
    whole = by_path(graph.trace.variable_shapes["params"])
    for path, array in by_path(variables["params"]).items():
        layer, _, name = path.rpartition("/")
        if array.shape != whole[path].shape:
            widths.setdefault(layer, {})[name] = tuple(array.shape)
    for layer, counts in groupings(graph, removed, nnx.GroupNorm).items():
        widths.setdefault(layer, {}).update(counts)
    frozen: Mapping[str, Any] = FrozenDict({path: FrozenDict(at) for path, at in widths.items()})
    return module.clone(widths=frozen, reads=FrozenDict(reads), writes=FrozenDict(writes))
