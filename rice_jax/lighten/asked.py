"""What a request may ask for, held against it before anything is read, trained or written."""

from collections.abc import Mapping
from typing import get_args

from rice_jax.bounds import MOST_EPOCHS, Bounds, FilterNumbers, Real, Several, Whole, Word, checked
from rice_jax.data.split import SPLITS
from rice_jax.errors import UserError
from rice_jax.lighten.candidate import MEASURES
from rice_jax.prune import ALLOCATIONS, CRITERIA
from rice_jax.prune.cost import Measure
from rice_jax.records import STEPS, PruneRequest, SearchRequest

_MANY = Whole(1, 10**18)
_PORTIONS = Whole(1, 65_536)
_PRUNE: Mapping[str, Bounds] = {
    "criterion": Word(tuple(CRITERIA)),
    "allocation": Word(tuple(ALLOCATIONS)),
    "round_to": _PORTIONS,
    "tail_margin": Real(0, 1),
    "split": Word(SPLITS),
    "kinds": Several(Word(("clean", "augmented")), 1),
    "judge_images": _MANY,
    "on_unknown": Word(("error", "keep")),
}
_SEARCH: Mapping[str, Bounds] = {
    "within": Real(-1, 1),
    "measure": Word(MEASURES),
    "steps": Several(Word(STEPS), 1),
    "share": Real(0, 1, above=True, below=True),
    "round_to": _PORTIONS,
    "rounds": Whole(1, 100),
    "beam": Whole(1, 100),
    "slack": Real(0, 1),
    "epochs": Whole(1, MOST_EPOCHS),
    "final_epochs": Whole(0, MOST_EPOCHS),
    "criterion": Word(tuple(CRITERIA)),
    "judge_images": _MANY,
}


def require_pruning(request: PruneRequest) -> None:
    """UserError that names what of a pruning cannot be, and what is allowed."""
    for name, bounds in _PRUNE.items():
        checked(name, getattr(request, name), bounds)
    for measure in request.budgets:
        checked("a budget's measure", measure, Word(get_args(Measure)))
    if request.filters:
        checked("filters", dict(request.filters), FilterNumbers())
    if request.filters and request.drop_layers:
        raise UserError(
            "--filters and --drop_layers do not go together, since blocks change their names: "
            "prune once by the one, and what is left by the other"
        )


def require_search(request: SearchRequest) -> None:
    """UserError that names what of a search cannot be, and what is allowed."""
    for name, bounds in _SEARCH.items():
        checked(name, getattr(request, name), bounds)
    if request.at_least is not None:
        checked("at_least", request.at_least, Real(0, 1))
