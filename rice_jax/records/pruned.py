"""prune.json and variants.json: what was taken out of a net, and other ways to as light a one."""

import dataclasses
from typing import Annotated, Any, ClassVar

import msgspec

from rice_jax.bounds import MOST_SEEDS
from rice_jax.records.store import MOST_LAYERS, FileRecord, Name, left_out

_Filters = Annotated[dict[Name, list[int]], msgspec.Meta(max_length=MOST_LAYERS)]
"""By path of the layer."""


_STAYING = {
    "spared": "the layer would be empty",
    "refused": "padding or no bias forbids to fold them",
    "tied": "what they would go with changes, or is left whole",
}
"""By the name of filters that never change in the account of a cut: why they stay."""


@dataclasses.dataclass(frozen=True)
class PruneRequest:
    """What to remove, and how."""

    drop: str | None = None
    filters: _Filters = dataclasses.field(default_factory=dict)
    """Those that go whatever they do, by their numbers in the run's net."""
    budgets: dict[str, int] = dataclasses.field(default_factory=dict)
    criterion: str = "taylor"
    allocation: str = "global"
    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    round_to: int = 1
    drop_layers: tuple[str, ...] = ()
    """Paths of blocks, or 'auto' alone: those after which no block tells the classes better."""
    tail_margin: float = 0.002
    split: str = "validation"
    kinds: tuple[str, ...] = ("clean", "augmented")
    judge_images: int = 2000
    steps: int = 1
    finetune_epochs: int = 0
    on_unknown: str = "error"
    parent: str = ""
    """The folder of the run that is made lighter."""

    @property
    def takes_what_counts(self) -> bool:
        """Whether filters may go that do something."""
        return bool(self.budgets or self.filters)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Left:
    """What a net costs, before or after."""

    formula: int = 0
    study: int = 0
    xla: int = 0
    params: int = 0
    filters: int = 0
    uncounted: int = 0
    """Operations that no FLOPs are counted of."""

    def of(self, measure: str) -> int:
        """A convention's FLOPs, 'params' or 'filters'."""
        return getattr(self, measure)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BudgetTold:
    """What was asked for, and how far below it the net is."""

    asked: int
    met: int | None = None
    under: int

    @property
    def told(self) -> str:
        """What became of it."""
        return f"undershot by {self.under:,}" if self.under else "met exactly"


@dataclasses.dataclass(frozen=True, kw_only=True)
class CertificateTold:
    """How far the logits of the smaller net are from those of the whole one."""

    max_abs_logit_difference: float | None = None
    max_relative_logit_difference: float | None = None
    images: int
    changed_predictions: int | None = None
    proven: bool = False
    rounding: float | None = None
    departure: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class FoundOn:
    """The images on which filters were judged."""

    split: str
    kinds: list[str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProbeTold:
    """What a linear probe reads of a layer."""

    path: str
    features: int = 0
    accuracy: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class CutTold:
    """What a cut was, as `prune.Pruned` tells it; filters by their indices in the net before it."""

    before: Left = Left()
    after: Left = Left()
    budgets: dict[str, BudgetTold] = dataclasses.field(default_factory=dict)
    removed: _Filters = dataclasses.field(default_factory=dict)
    kept: _Filters = dataclasses.field(default_factory=dict)
    spared: _Filters = dataclasses.field(default_factory=dict)
    refused: _Filters = dataclasses.field(default_factory=dict)
    tied: _Filters = dataclasses.field(default_factory=dict)
    unbounded: list[str] = dataclasses.field(default_factory=list)
    kept_whole: list[str] = dataclasses.field(default_factory=list)
    certificate: CertificateTold | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class PruneFile(FileRecord):
    """The account of a pruning; filters by their indices in the trained net."""

    FILE: ClassVar[str] = "prune.json"

    request: PruneRequest
    weights: str | None = left_out()
    """Digest of those that the run had which was made lighter."""
    before: Left = Left()
    after: Left = Left()
    removed: _Filters = dataclasses.field(default_factory=dict)
    kept: _Filters = dataclasses.field(default_factory=dict)
    budgets: dict[str, BudgetTold] = dataclasses.field(default_factory=dict)
    certificate: CertificateTold | None = None
    found_on: FoundOn | None = None
    steps: list[CutTold] = dataclasses.field(default_factory=list)
    dropped_layers: list[str] | None = left_out()
    probes: list[ProbeTold] | None = left_out()
    started_anew: list[str] | None = left_out()
    """Layers of the new net that are random."""
    renamed: dict[str, str] | None = left_out()
    """By a layer's path in the trained net: its path in the new one, where that is another."""

    @property
    def kept_whole(self) -> list[str]:
        """'LAYER: why', of each layer that could lose no filter of its own accord."""
        return list(dict.fromkeys(why for step in self.steps for why in step.kept_whole))

    @property
    def unbounded(self) -> list[str]:
        """'OPERATION in layer LAYER', of each behind which nothing could be proven."""
        return list(dict.fromkeys(each for step in self.steps for each in step.unbounded))

    @property
    def unchanging(self) -> list[str]:
        """'LAYER: FILTERS: why', of those that never change but were not removed for that."""
        return [
            f"{path}: {', '.join(map(str, indices))}: {why}"
            for step in self.steps
            for what, why in _STAYING.items()
            for path, indices in getattr(step, what).items()
        ]


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepDone:
    """A step of a pruning whose net is in its folder, to be trained."""

    kept: _Filters
    """By path in its net: its filters' indices in the trained one."""
    origin: dict[Name, Name]
    """By path in its net: the layer's path in the trained one."""
    cut: CutTold


@dataclasses.dataclass(frozen=True, kw_only=True)
class HalfPruned(FileRecord):
    """A pruning that goes on; the file is there as long as prune.json is not."""

    FILE: ClassVar[str] = "pruning.json"

    request: PruneRequest
    config: dict[str, Any]
    """What was given, in JSON."""
    weights: str
    """Digest of those that it began with."""
    account: dict[str, Any] = dataclasses.field(default_factory=dict)
    """What prune.json tells of dropped layers."""
    steps: list[StepDone] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mean:
    """Of several seeds; without spread of a single one."""

    mean: float
    spread: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class SeedTold:
    """A run of a variant."""

    seed: int
    clean: float
    augmented: float
    flops: int
    flops_complete: bool = True
    """Whether they lack nothing."""
    latency: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class VariantTold:
    """A way to a light net, over its seeds."""

    runs: Annotated[list[SeedTold], msgspec.Meta(min_length=1, max_length=MOST_SEEDS)]
    clean: Mean
    augmented: Mean
    latency: Mean | None = None

    @property
    def flops(self) -> tuple[int, int]:
        """The fewest and the most: a budget is undershot by each seed as its own filters allow."""
        each = [run.flops for run in self.runs]
        return min(each), max(each)

    @property
    def flops_complete(self) -> bool:
        """Whether those of each seed lack nothing."""
        return all(run.flops_complete for run in self.runs)


@dataclasses.dataclass(frozen=True, kw_only=True)
class VariantsFile(FileRecord):
    """The way that was asked for first, others after it."""

    FILE: ClassVar[str] = "variants.json"

    epochs: int
    """That each was trained for, after all steps together."""
    variants: Annotated[dict[Name, VariantTold], msgspec.Meta(min_length=1, max_length=1_000)]
    whole_latency_seconds: float | None = None
