"""Which channels to remove so that a net costs no more than a budget."""

import numpy as np

from rice_jax.errors import UserError
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
) -> np.ndarray:
    """Remove channels, those of least importance for what they cost first, down to a budget.

    Each step takes the channel with the least score for what its removal saves at that moment.
    Each group keeps one, and at least half as many as it would if all were narrowed alike, but not
    fewer than four where it would keep four: else single filters remain of the layers that cost
    most, and training cannot revive those (layer collapse, Tanaka et al. 2020, arXiv:2006.05467).
    At the end what the overshoot leaves room for comes back, the worthiest first, so that the
    budget is undershot by less than the cost of any removed channel.

    Args:
        graph: the net's dependencies.
        scores: importance, one number a channel.
        cost: what a net with groups of given sizes costs.
        budget: the most that it may cost.
        removed: channels that are gone already (bool, one each).

    Returns:
        bool, one a channel.

    Raises:
        UserError: for a budget that is not positive, or that one channel a group exceeds.
    """
    check(graph, cost, budget, removed)
    gone = np.zeros(graph.channels, bool) if removed is None else removed.copy()
    sizes = graph.sizes(gone)
    least = _least_sizes(sizes, cost, budget)
    queues = _queues(graph, scores, gone)
    taken: list[list[int]] = [[] for _ in queues]
    while cost(sizes) > budget:
        saves = np.where(sizes > least, cost.of_one(sizes), 0)
        worth = [
            scores[queue[-1]] / saved if saved > 0 else np.inf
            for queue, saved in zip(queues, saves, strict=True)
        ]
        group = int(np.argmin(worth))
        taken[group].append(queues[group].pop())
        sizes[group] -= 1
    _give_back(scores, cost, budget, sizes, taken)
    gone[[channel for channels in taken for channel in channels]] = True
    return gone


def check(graph: Dependencies, cost: Cost, budget: int, removed: np.ndarray | None = None) -> None:
    """UserError for a budget that `to_budget` would refuse."""
    if budget <= 0:
        raise UserError(f"a budget of {budget} leaves nothing: give a positive number")
    least = cost(np.minimum(graph.sizes(removed), 1))
    if least > budget:
        raise UserError(
            f"a budget of {budget:,} cannot be met: with one filter in each layer the net still "
            f"costs {least:,}"
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
    scores: np.ndarray, cost: Cost, budget: int, sizes: np.ndarray, taken: list[list[int]]
) -> None:
    """Put back channels, the worthiest first, for as long as the budget has room for one."""
    one = np.eye(len(sizes), dtype=int)
    while True:
        fitting = [
            group
            for group, channels in enumerate(taken)
            if channels and cost(sizes + one[group]) <= budget
        ]
        if not fitting:
            return
        best = max(fitting, key=lambda group: scores[taken[group][-1]])
        taken[best].pop()
        sizes += one[best]
