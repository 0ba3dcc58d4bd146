"""How a budget is shared out among groups of channels: all together, or each with its like."""

from collections.abc import Collection

import numpy as np

from rice_jax.errors import UserError
from rice_jax.graph.scopes import is_under
from rice_jax.prune.cost import Cost
from rice_jax.prune.dependencies import Dependencies

ALLOCATIONS = ("global", "uniform", "isomorphic")
"""All channels ranked together by importance for what they cost (`budget.to_budget`); the same
share of each group; the same share of all groups of one shape, ranked together."""

_HALVINGS = 40


def classes(graph: Dependencies, allocation: str) -> np.ndarray:
    """For each group the number of the class whose channels are ranked together.

    'uniform' has a class for each group. 'isomorphic' has one for all groups whose channels touch
    variables of the same shapes, widths left out, at the same axes (Fang et al. 2024,
    arXiv:2407.04616, who compare whole sub-graphs): importances of unlike layers need no common
    scale then.
    """
    if allocation == "uniform":
        return np.arange(graph.groups)
    shapes: list[list[tuple]] = [[] for _ in range(graph.groups)]
    for path, axis, line in graph.variables():
        shape = graph.trace.variables[path].shape
        leaf, behind = path.rpartition("/")[2], axis - len(shape)
        for group in np.unique(graph.group[line[line >= 0]]):
            entries = int(np.sum(graph.group[line[line >= 0]] == group))
            each = entries // max(int(np.sum(graph.group == group)), 1)
            shapes[group].append((leaf, len(shape), shape[:-2], behind, each))
    numbers: dict[tuple, int] = {}
    return np.array([numbers.setdefault(tuple(sorted(s)), len(numbers)) for s in shapes], int)


def by_share(
    graph: Dependencies,
    scores: np.ndarray,
    cost: Cost,
    budget: int,
    of_group: np.ndarray,
    least: np.ndarray,
    *,
    gone: np.ndarray,
    held: np.ndarray,
    round_to: int = 1,
) -> list[list[list[int]]]:
    """Take the same share of each class, those of least importance first, down to a budget.

    Args:
        graph: the net's dependencies.
        scores: importance, one number a channel.
        cost: what a net with groups of given sizes costs.
        budget: the most that it may cost.
        of_group: each group's class, as `classes` gives it.
        least: channels that each group keeps at least, reachable by `round_to`.
        gone: channels that are gone already (bool, one each).
        held: channels that stay (bool, one each).
        round_to: groups that lose any keep a multiple of so many.

    Returns:
        For each group what is taken, the least important first, in portions of which each leaves a
        size that is allowed.
    """
    free = ~(gone | held)
    order = np.argsort(scores, kind="stable")
    ranked = [
        [int(channel) for channel in order if free[channel] and of_group[graph.group[channel]] == c]
        for c in range(int(of_group.max(initial=-1)) + 1)
    ]
    sizes = graph.sizes(gone)

    def taken(share: float) -> list[list[int]]:
        found: list[list[int]] = [[] for _ in range(graph.groups)]
        for channels in ranked:
            for channel in channels[: round(share * len(channels))]:
                found[graph.group[channel]].append(channel)
        groups = zip(found, sizes.tolist(), least.tolist(), strict=True)
        return [_allowed(channels, size, low, round_to) for channels, size, low in groups]

    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        left = sizes - np.array([len(channels) for channels in taken(middle)], int)
        low, high = (low, middle) if cost(left) <= budget else (middle, high)
    groups = zip(taken(high), sizes.tolist(), strict=True)
    return [portions(channels, size, round_to) for channels, size in groups]


def _allowed(channels: list[int], size: int, least: int, round_to: int) -> list[int]:
    """As many of the first as leave a size that is allowed."""
    left = max(size - len(channels), least)
    left = min(-(-left // round_to) * round_to, size)
    return channels[: size - left]


def portion(size: int, round_to: int) -> int:
    """How many channels go at once from a group of `size`, so that a multiple is left."""
    return (size - 1) % round_to + 1


def portions(channels: list[int], size: int, round_to: int) -> list[list[int]]:
    """Channels that go, in portions that each leave a multiple of `round_to`."""
    found = []
    while channels:
        count = portion(size, round_to)
        found.append(channels[:count])
        channels, size = channels[count:], size - count
    return found


def reachable(sizes: np.ndarray, wanted: np.ndarray, round_to: int) -> np.ndarray:
    """The least sizes from `wanted` on that groups can come to in multiples of `round_to`."""
    return np.minimum(-(-wanted // round_to) * round_to, sizes)


def held(graph: Dependencies, only: Collection[str], skip: Collection[str]) -> np.ndarray:
    """The channels (bool, one each) that stay: those of a layer in `skip`, or of none in `only`.

    A path stands for all layers below it. A channel that several layers make together stays where
    one of them keeps it.

    Raises:
        UserError: a path under which there is no layer with filters; one that is in no list.
    """
    kept = np.zeros(graph.channels, bool)
    for name, paths in (("only", only), ("skip", skip)):
        if isinstance(paths, str):  # its letters would be taken for paths
            raise UserError(f"{name}={paths!r}: give a list of layers' paths, [{paths!r}]")
        for path in paths:
            if not any(is_under(layer, [path]) for layer in graph.filters):
                known = ", ".join(graph.filters)
                raise UserError(f"{name}={path}: there is no such layer with filters; are {known}")
    for layer, filters in graph.filters.items():
        if is_under(layer, skip) or (only and not is_under(layer, only)):
            kept[filters.channels[filters.channels >= 0]] = True
    return kept
