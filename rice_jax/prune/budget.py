"""Which channels to remove so that a net costs no more than a budget."""

import numpy as np

from rice_jax.errors import UserError
from rice_jax.prune.allocation import by_share, classes, portion, reachable
from rice_jax.prune.cost import Cost
from rice_jax.prune.dependencies import Dependencies

_FEW = 4
"""Channels that a layer keeps at least, where an even narrowing would keep as many."""


def to_budget(
    graph: Dependencies,
    scores: np.ndarray,
    cost: Cost,
    budget: int,
    *,
    removed: np.ndarray | None = None,
    held: np.ndarray | None = None,
    round_to: int = 1,
    allocation: str = "global",
) -> np.ndarray:
    """Remove channels, those of least importance for what they cost first, down to a budget.

    Each step takes the channel with the least score for what its removal saves at that moment.
    Each group keeps one, and at least half as many as it would if all were narrowed alike, but not
    fewer than four where it would keep four: else single filters remain of the layers that cost
    most, and training cannot revive those (layer collapse, Tanaka et al. 2020, arXiv:2006.05467).
    At the end what the overshoot leaves room for comes back, the worthiest first, so that the
    budget is undershot by less than what any channel that was taken, or portion, would add.

    Args:
        graph: the net's dependencies.
        scores: importance, one number a channel.
        cost: what a net with groups of given sizes costs.
        budget: the most that it may cost.
        removed: channels that are gone already (bool, one each).
        held: channels that stay (bool, one each).
        round_to: groups that lose any keep a multiple of so many; channels go and come back in
            such portions then. A group of fewer stays whole.
        allocation: of `allocation.ALLOCATIONS`; all but 'global' take the same share of each
            class of groups.

    Returns:
        bool, one a channel.

    Raises:
        UserError: for a budget that is not positive, or that cannot be met.
    """
    check(graph, cost, budget, removed, held, round_to)
    gone = np.zeros(graph.channels, bool) if removed is None else removed.copy()
    stay = np.zeros(graph.channels, bool) if held is None else held & ~gone
    sizes = graph.sizes(gone)
    least = reachable(sizes, np.maximum(graph.sizes(~stay), np.minimum(sizes, 1)), round_to)
    if allocation == "global":
        floor = reachable(sizes, np.maximum(_least_sizes(sizes, cost, budget), least), round_to)
        least = floor if cost(floor) <= budget else least
        queues = _queues(graph, scores, gone | stay)
        taken = _by_worth(queues, scores, cost, budget, sizes, least, round_to)
    else:
        taken = by_share(
            graph,
            scores,
            cost,
            budget,
            classes(graph, allocation),
            least,
            gone=gone,
            held=stay,
            round_to=round_to,
        )
    sizes = sizes - np.array([sum(map(len, portions)) for portions in taken], int)
    _give_back(scores, cost, budget, sizes, taken)
    gone[[channel for each in taken for portion_ in each for channel in portion_]] = True
    return gone


def _by_worth(
    queues: list[list[int]],
    scores: np.ndarray,
    cost: Cost,
    budget: int,
    sizes: np.ndarray,
    least: np.ndarray,
    round_to: int,
) -> list[list[list[int]]]:
    """What is taken from each group, in portions, the least worth for what it saves first."""
    sizes = sizes.copy()
    taken: list[list[list[int]]] = [[] for _ in queues]
    while cost(sizes) > budget:
        counts = np.array([portion(size, round_to) for size in sizes], int)
        saves = np.where(sizes - counts >= least, _saved(cost, sizes, counts), 0)
        worth = [
            scores[queue[-count:]].sum() / saved if saved > 0 else np.inf
            for queue, count, saved in zip(queues, counts, saves, strict=True)
        ]
        group = int(np.argmin(worth))
        count = counts[group]
        taken[group].append(queues[group][-count:][::-1])
        del queues[group][-count:]
        sizes[group] -= count
    return taken


def _saved(cost: Cost, sizes: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """For each group what so many channels less save."""
    if np.all(counts == 1):
        return cost.of_one(sizes)
    return np.array([cost(sizes) - cost(sizes - less) for less in np.diag(counts)])


def _whole(graph: Dependencies) -> str:
    """How many layers can't be cut, and why the first of them cannot."""
    number = len({each.split(":")[0] for each in graph.kept_whole})
    stay = "1 layer stays whole" if number == 1 else f"{number} layers stay whole"
    return f"; {stay} ({graph.kept_whole[0]})" if number else ""


def check(
    graph: Dependencies,
    cost: Cost,
    budget: int,
    removed: np.ndarray | None = None,
    held: np.ndarray | None = None,
    round_to: int = 1,
) -> None:
    """UserError for a budget that `to_budget` would refuse."""
    if budget <= 0:
        raise UserError(f"a budget of {budget} leaves nothing: give a positive number")
    sizes = graph.sizes(removed)
    least = np.minimum(sizes, 1)
    if cost(least) > budget:
        cut = "each layer that can be cut" if graph.kept_whole else "each layer"
        raise UserError(
            f"a budget of {budget:,} cannot be met: with one filter in {cut} the net still "
            f"costs {cost(least):,}{_whole(graph)}"
        )
    if held is not None:
        left = held if removed is None else held & ~removed
        least = np.maximum(least, graph.sizes(~left))
    least = reachable(sizes, least, round_to)
    if cost(least) > budget:
        raise UserError(
            f"a budget of {budget:,} cannot be met: with the filters that may go gone the net "
            f"still costs {cost(least):,}; allow more layers, or a smaller round_to"
        )


def _least_sizes(sizes: np.ndarray, cost: Cost, budget: int) -> np.ndarray:
    """Half of what groups keep where the same share of each meets the budget, or `_FEW` of that."""

    def narrowed(share: float) -> np.ndarray:
        return np.minimum(sizes, np.maximum((sizes * share).astype(int), 1))

    low, high = 0.0, 1.0
    while high - low > 1 / (2 * sizes.max(initial=1)):
        middle = (low + high) / 2
        low, high = (middle, high) if cost(narrowed(middle)) <= budget else (low, middle)
    return np.maximum(narrowed(low / 2), np.minimum(narrowed(low), _FEW))


def _queues(graph: Dependencies, scores: np.ndarray, gone: np.ndarray) -> list[list[int]]:
    """The channels of each group, the least important last."""
    order = np.argsort(-scores, kind="stable")
    return [
        [int(channel) for channel in order if graph.group[channel] == group and not gone[channel]]
        for group in range(graph.groups)
    ]


def _give_back(
    scores: np.ndarray, cost: Cost, budget: int, sizes: np.ndarray, taken: list[list[list[int]]]
) -> None:
    """Put back portions, the worthiest first, for as long as the budget has room for one."""
    one = np.eye(len(sizes), dtype=int)
    while True:
        fitting = [
            group
            for group, portions in enumerate(taken)
            if portions and cost(sizes + len(portions[-1]) * one[group]) <= budget
        ]
        if not fitting:
            return
        best = max(fitting, key=lambda group: scores[taken[group][-1]].mean())
        sizes += len(taken[best].pop()) * one[best]
