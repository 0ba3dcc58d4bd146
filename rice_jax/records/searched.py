"""lighten.json: a search for lighter nets; candidate.json and step.json: one of its candidates."""

import dataclasses
from typing import Annotated, Any, ClassVar

import msgspec

from rice_jax.files import same_place
from rice_jax.records.store import FileRecord, Name, left_out

STEPS = ("channels", "layer", "resolution", "stem")
"""Kinds of steps, in the order in which they are tried."""

MOST_CANDIDATES = 1_000
"""Of a search: each is trained, and is a point of a figure."""

_OF_A_CANDIDATE = (
    *("measure", "share", "round_to", "epochs", "final_epochs", "criterion", "judge_images"),
)


@dataclasses.dataclass(frozen=True)
class SearchRequest:
    """How far a search goes, and by what."""

    within: float = 0.005
    """How far below the run's own accuracy on augmented validation images a net may be."""
    at_least: float | None = None
    """The accuracy that it must have, instead of that."""
    measure: str = "flops"
    """What is to be small: one of `candidate.MEASURES`."""
    steps: tuple[str, ...] = STEPS
    share: float = 0.5
    """Of the cost that is left where channels go."""
    round_to: int = 1
    """Layers that lose channels keep a multiple of so many."""
    rounds: int = 6
    beam: int = 2
    """Nets that each round makes lighter."""
    slack: float = 0.02
    """How far below what is wanted a net may be and still be made lighter, or trained longer."""
    epochs: int = 1
    """Of training after each step."""
    final_epochs: int = 4
    """Of more training, at the end, for those near to what is wanted; 0 for none."""
    criterion: str = "taylor"
    judge_images: int = 512
    """Training images that decide what goes."""
    parent: str = ""
    """The folder of the run that is made lighter."""

    def floor(self, own: float) -> float:
        """The accuracy that is wanted, where the run itself has `own`."""
        return max(own - self.within, 0.0) if self.at_least is None else self.at_least

    def candidates(self) -> list[int]:
        """How many candidates there may be in each round."""
        nets = [1] + [self.beam] * (self.rounds - 1)
        return [count * len(self.steps) for count in nets]

    def longest(self) -> int:
        """How many may be trained longer at the end."""
        return self.beam + 1 if self.final_epochs else 0

    def differs(self, other: "SearchRequest", *, finished: bool) -> str:
        """The first field in which another search would be told apart; '' where none is.

        What only decides which candidates there are may change until the search is finished.
        """
        every = [field.name for field in dataclasses.fields(self)]
        for name in every if finished else (*_OF_A_CANDIDATE, "parent"):
            now, told = getattr(self, name), getattr(other, name)
            if now != told and not (name == "parent" and same_place(told, now)):
                return name
        return ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Taken:
    """What a step takes from a net: of these one, or nothing."""

    filters: dict[str, int] | None = left_out()
    """How many, by layer."""
    layer: str | None = left_out()
    started_anew: list[str] | None = left_out()
    """Layers that no weights of before fit."""
    resolution: tuple[int, int] | None = left_out()
    """Before and after."""
    stem_stride: tuple[int, int] | None = left_out()

    def __bool__(self) -> bool:
        """Whether anything is taken."""
        return self != Taken()


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepFile(FileRecord):
    """How a candidate was made."""

    FILE: ClassVar[str] = "step.json"

    name: Name
    """Of its folder: the steps that led to it."""
    out_of: str | None
    """Name of the net it was made from; None for the whole net."""
    step: str | None
    removed: Taken
    why: str
    """Why this and nothing else of its kind."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Candidate(StepFile):
    """A net that the search has tried."""

    FILE: ClassVar[str] = "candidate.json"

    costs: dict[str, float]
    """By measure."""
    accuracy: float
    """Of the augmented validation images; 0 for a net whose loss was not finite."""
    trouble: str = ""
    """Why it could not be trained."""
    flops_complete: bool = True
    """Whether its FLOPs lack nothing."""


@dataclasses.dataclass(frozen=True)
class Forecast:
    """At most so much: a search ends sooner where nothing hopeful is left."""

    candidates: int
    images: int
    """That are learnt from, all candidates and epochs together."""
    minutes: float
    """Estimated."""
    images_per_second: float
    """As the whole net learns from its own answers: what the estimate begins with."""
    compiling_seconds: float | None = None
    """Of one candidate."""

    def __str__(self) -> str:
        one = self.candidates == 1
        most = (
            "one candidate, which learns" if one else f"{self.candidates} candidates, which learn"
        )
        minutes = max(self.minutes, 1)
        duration = f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.0f} h"
        rate = self.images_per_second
        return (
            f"At most {most} from {self.images:,} images in all: about {duration}, at "
            f"{rate:.{0 if rate >= 10 else 1}f} images/s for the whole net and more for lighter "
            "ones."
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class LearntFrom:
    """How many images each candidate learns from in an epoch, and is judged on."""

    train: int
    validation: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class OnTest:
    """Accuracies on the test split."""

    clean: float | None = None
    augmented: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class LightenFile(FileRecord):
    """A search, at its end or on the way."""

    FILE: ClassVar[str] = "lighten.json"

    request: SearchRequest
    weights: str | None = left_out()
    """Digest of those that the run had when the search began."""
    config: dict[str, Any]
    """Of the whole net, with the settings of the candidates' training."""
    synthetic: bool = False
    images: LearntFrom
    forecast: Forecast
    floor: float
    """The accuracy that is wanted."""
    candidates: Annotated[list[Candidate], msgspec.Meta(max_length=MOST_CANDIDATES)]
    """The whole net first."""
    front: list[str] = dataclasses.field(default_factory=list)
    """Names of those that no other beats."""
    chosen: str | None = None
    finished: bool
    test: dict[str, OnTest] = left_out()
    """By name, of a search that is finished."""

    def __post_init__(self) -> None:
        known: set[str] = set()
        for each in self.candidates:
            if each.name in known or (each.out_of not in known if each.name else bool(known)):
                raise ValueError(f"its candidate {each.name!r} comes out of none before it")
            if missing := {self.request.measure, "flops", "params"} - each.costs.keys():
                raise ValueError(f"its candidate {each.name!r} has no {missing.pop()}")
            known.add(each.name)
        told = {*self.front, *(self.test or {}), self.chosen or ""}
        if unknown := told - known:
            raise ValueError(f"it has no candidate {unknown.pop()!r}")
