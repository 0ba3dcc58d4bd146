"""A net cut so that, counted anew, it costs no more than it may."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import get_args

import numpy as np

from rice_jax.errors import UserError
from rice_jax.graph.arrays import Chosen
from rice_jax.prune.budget import check, to_budget
from rice_jax.prune.cost import Cost, Measure, cost
from rice_jax.prune.dependencies import Dependencies
from rice_jax.prune.surgery import Cut
from rice_jax.prune.tally import of_trace

Limits = list[tuple[Cost, int]]
"""For each budget what narrower nets cost in its measure, and the most that they may."""
_TRIES = 8
"""How often a budget is sought that the smaller net meets when it is counted."""


@dataclasses.dataclass(frozen=True)
class Budgets:
    """The most that a net may cost, and what may be taken from it for that."""

    graph: Dependencies
    asked: Mapping[Measure, int]
    limits: Limits
    """What `asked` comes to, by what narrower nets are said to cost."""
    held: np.ndarray
    """Channels that stay (bool, one each)."""
    round_to: int
    allocation: str

    def cut(
        self, scores: np.ndarray, removed: np.ndarray, remove: Callable[[Chosen], Cut]
    ) -> tuple[Cut, dict[str, int]]:
        """The net within its budgets, and its totals; as near as it came where tries fail.

        Args:
            scores: importance, one number a channel; unread without any budget.
            removed: channels that go anyway (bool, one each).
            remove: the net without channels.
        """
        limits = self.limits
        gone = self._within(limits, scores, removed)
        cut = remove(gone)
        after = of_trace(cut.trace)
        for _ in range(_TRIES):
            lower = self._lower(limits, after, self.graph.sizes(gone))
            if lower == limits:
                break
            limits = lower
            try:
                gone = self._within(limits, scores, removed)
                cut = remove(gone)
            except UserError:  # `met` says it of the budget that was asked for
                break
            after = of_trace(cut.trace)
        return cut, after

    def met(self, after: Mapping[str, int]) -> dict[str, dict[str, int]]:
        """The account of the budgets; UserError where the net, counted anew, costs more than one.

        Args:
            after: the smaller net's totals.
        """
        for measure, most in self.asked.items():
            if after[measure] > most:
                raise UserError(
                    f"the budget of {most:,} ({measure}) is not met: the smaller net counts "
                    f"{after[measure]:,}; ask for that or more, or name the filters to remove"
                )
        return {
            measure: {"asked": most, "met": after[measure], "under": most - after[measure]}
            for measure, most in self.asked.items()
        }

    def _within(self, limits: Limits, scores: np.ndarray, removed: np.ndarray) -> np.ndarray:
        """What has to go to be within all limits, one after the other."""
        for of, most in limits:
            removed = to_budget(
                self.graph,
                scores,
                of,
                most,
                removed=removed,
                held=self.held,
                round_to=self.round_to,
                allocation=self.allocation,
            )
        return removed

    def _lower(self, limits: Limits, after: Mapping[str, int], sizes: np.ndarray) -> Limits:
        """The limits, lower by what a net with groups of these sizes costs beyond its budgets.

        Where channels keep their places between layers that net costs more than `Cost` says.
        """
        return [
            (of, most if after[measure] <= asked else of(sizes) + asked - after[measure])
            for (of, most), (measure, asked) in zip(limits, self.asked.items(), strict=True)
        ]


def within(
    graph: Dependencies,
    asked: Mapping[Measure, int],
    before: Mapping[str, int],
    *,
    held: np.ndarray,
    round_to: int,
    allocation: str,
) -> Budgets:
    """Budgets of a net; UserError where one can't be met, before any image is looked at.

    Args:
        graph: the net's dependencies.
        asked: the budgets, `whole`.
        before: the whole net's totals.
        held, round_to, allocation: as `budget.to_budget` takes them.
    """
    limits = [(cost(graph, measure, before[measure]), most) for measure, most in asked.items()]
    for of, most in limits:
        check(graph, of, most, None, held, round_to)
    return Budgets(graph, asked, limits, held, round_to, allocation)


def whole(budgets: Mapping[Measure, int]) -> dict[Measure, int]:
    """Budgets as Python's whole numbers, for whole is what is counted.

    UserError for a measure that there is not, a budget that is no number, or a share of one.
    """
    if not isinstance(budgets, Mapping):
        raise UserError(f"budgets are given by what they bound, {{'formula': N}}, not {budgets!r}")
    found: dict[Measure, int] = {}
    for measure, most in budgets.items():
        if measure not in get_args(Measure):
            raise UserError(f"budgets of {measure!r}: there are {', '.join(get_args(Measure))}")
        try:
            found[measure] = math.floor(most)
        except (TypeError, ValueError, OverflowError) as error:
            raise UserError(f"a budget of {most} is no number: give a positive one") from error
        if 0 < most < 1:
            raise UserError(
                f"a budget of {most} leaves nothing: it is how many FLOPs, parameters or filters "
                "may be left, not what share of them"
            )
    return found
