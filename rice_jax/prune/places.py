"""Where channels stand along axes that keep their size between the layers of a narrower net."""

from collections.abc import Mapping

import numpy as np

from rice_jax.errors import UserError
from rice_jax.graph.arrays import Chosen
from rice_jax.graph.narrowed import Places
from rice_jax.graph.trace import Value
from rice_jax.prune.dependencies import Dependencies, among, layer_told, wide_layers


def reads_and_writes(
    graph: Dependencies,
    removed: Chosen,
    held: Chosen,
    before: tuple[Mapping[str, Places], Mapping[str, Places]],
) -> tuple[dict[str, Places], dict[str, Places]]:
    """What the layers with variables of held channels take of their inputs, and what they give.

    Args:
        graph: the net's dependencies.
        removed: bool, one a channel.
        held: channels (bool, one each) whose places between layers are kept.
        before: what the layers take and give already, in a net that was narrowed before.

    Returns:
        Places by layer path, of inputs and of outputs.
    """
    reads: dict[str, Places] = {}
    writes: dict[str, Places] = {}
    wide = wide_layers(graph.trace, graph.axes)
    for path, layer in graph.trace.layers.items():
        for value, known, found in zip(
            (layer.input, layer.output), before, (reads, writes), strict=True
        ):
            if value is not None and (path in wide or path in known):
                places = _along_axis(graph, value, removed, held, known.get(path))
                if places is not None:
                    found[path] = places
    return reads, writes


def unplaced(graph: Dependencies, removed: Chosen) -> UserError | None:
    """What to say where a layer does not take or give held channels in the one place where they can
    be picked and put: the first argument of its `__call__`, the array that this returns."""
    held = np.flatnonzero(removed & graph.by_place)
    for path, layer in graph.trace.layers.items():
        called = "__call__" in layer.methods
        taken = [graph.read(each) for each in graph.contractions if each.equation.layer == path]
        given = [graph.filters[path].channels] if path in graph.filters else []
        for lines, value, told in (
            (taken, layer.input, "takes them by keyword, as another array than its first"),
            (given, layer.output, "gives them with other arrays"),
        ):
            seen = () if value is None or not called else graph.axes.get(value, ())
            meant = np.intersect1d(np.concatenate([[], *lines]), held)
            if np.setdiff1d(meant, np.concatenate([[], *seen])).size:
                return UserError(
                    f"channels are picked by their place, and {layer_told(path)} "
                    f"{told}, or in a loop, or by another method than __call__; "
                    "in Python pass rebuild="
                )
    return None


def _along_axis(
    graph: Dependencies,
    value: Value,
    removed: Chosen,
    held: Chosen,
    known: Places | None,
) -> Places | None:
    """Where channels of a value stand, of which some are removed and held; None if none are."""
    for axis, line in enumerate(graph.axes.get(value, ())):
        from_end = axis - len(value.shape)
        gone = among(line, removed & held)
        if not gone.any() and (known is None or known.axis != from_end):
            continue
        stays = ~among(line, removed & ~held)
        places = np.cumsum(stays) - 1
        filled = range(len(line)) if known is None else known.kept
        kept = tuple(int(places[at]) for at in filled if stays[at] and not gone[at])
        return Places(from_end, int(stays.sum()), kept)
    return None
