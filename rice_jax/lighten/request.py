"""What is asked of a search."""

import dataclasses
from typing import Any

STEPS = ("channels", "layer", "resolution", "stem")
"""Kinds of steps, in the order in which they are tried."""

_OF_A_CANDIDATE = ("measure", "share", "epochs", "final_epochs", "criterion", "judge_images")


@dataclasses.dataclass(frozen=True)
class Request:
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

    def floor(self, own: float) -> float:
        """The accuracy that is wanted, where the run itself has `own`."""
        return own - self.within if self.at_least is None else self.at_least

    def candidates(self) -> list[int]:
        """How many candidates there may be in each round."""
        nets = [1] + [self.beam] * (self.rounds - 1)
        return [count * len(self.steps) for count in nets]

    def longest(self) -> int:
        """How many may be trained longer at the end."""
        return self.beam + 1 if self.final_epochs else 0

    def to_json(self) -> dict[str, Any]:
        """The request as lighten.json holds it."""
        return dataclasses.asdict(self) | {"steps": list(self.steps)}

    def of_a_candidate(self) -> dict[str, Any]:
        """What makes a candidate another one; the rest only decides which there are."""
        return {name: getattr(self, name) for name in _OF_A_CANDIDATE}
