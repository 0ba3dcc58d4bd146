"""Budgets that were given as shares of the whole net, in numbers."""

from collections.abc import Mapping
from decimal import Decimal

import ml_collections

from rice_jax import train
from rice_jax.lighten import child
from rice_jax.prune.tally import totals
from rice_jax.run import Run


def in_numbers(
    budgets: Mapping[str, int | Decimal], config: ml_collections.ConfigDict, parent: Run
) -> dict[str, int]:
    """The budgets of a pruning of the run in `parent`: a share is the most that it comes to.

    Raises:
        UserError: a configuration that is of another net than the run.
    """
    if not any(isinstance(budget, Decimal) for budget in budgets.values()):
        return {measure: int(budget) for measure, budget in budgets.items()}
    its_own = child.for_the_net_of(parent, config)
    whole = totals(train.build(its_own), train.input_shape(its_own))
    return {measure: _number(budget, whole[measure]) for measure, budget in budgets.items()}


def _number(budget: int | Decimal, whole: int) -> int:
    return max(1, int(budget * whole)) if isinstance(budget, Decimal) else budget
