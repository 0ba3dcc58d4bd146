"""The study's figures, as profile.json repeats them for its nets, and their errata."""

import dataclasses
import operator
from collections.abc import Callable, Collection, Mapping
from typing import Any

from rice_jax import nets
from rice_jax.profile.study import INPUT_SHAPE, REPORTED, TEST_IMAGES, VARIETIES
from rice_jax.records import ImagesTold, Reported, SummaryFile
from rice_jax.report import numbers

_OF_NO_PARAMETERS = ("grid", "strides", "stem_stride")
"""Fields of a net by which it may be another one of as many parameters."""
_TESTED = ("augmented_test_accuracy", "macro")
_VALIDATED = ("val_accuracy", "val_loss")
_LEARNED = ("train_accuracy", "train_loss", "best_epoch", *_VALIDATED, *_TESTED)


def of_the_same_images(
    theirs: Reported | None, images: ImagesTold | None, *, tested: bool, validated: bool
) -> Reported | None:
    """The study's figures without those that a run's own, of other images, say nothing beside.

    Args:
        theirs: the study's, of photographs of rice.
        images: the run's; None for a run that has seen none.
        tested: whether the run was evaluated on its test split, if it was.
        validated: whether its validation images were as they are and whole, as the study's.
    """
    if theirs is None:
        return None
    rice = {name.casefold() for name in VARIETIES}
    same = not images or (not images.synthetic and {*map(str.casefold, images.classes)} <= rice)
    others: Collection[str] = () if same else _LEARNED
    others = {*others, *(() if tested else _TESTED), *(() if validated else _VALIDATED)}
    nothing = Reported()  # has none of its figures
    return dataclasses.replace(theirs, **{name: getattr(nothing, name) for name in others})


def tflops(flops: float | None) -> float | None:
    """TFLOPs for the study's 7,500 test images, of the FLOPs for one."""
    return None if flops is None else flops * TEST_IMAGES / 1e12


def reported(summary: SummaryFile, field: str) -> float | None:
    """The study's figure called `field` ('flops', 'macro.f1'); None where it has none."""
    theirs = summary.reported
    return operator.attrgetter(field)(theirs) if theirs else None


def correct(summary: SummaryFile, field: str) -> float | None:
    """What the study should have printed; None where it has no figure, or a right one."""
    return next((entry.correct for entry in summary.errata if entry.field == field), None)


def cell(
    summary: SummaryFile, field: str, form: Callable[[float | None], str] = numbers.count
) -> str:
    """The study's figure as text, and the correct one where it errs."""
    text, correction = form(reported(summary, field)), correct(summary, field)
    return text if correction is None else f"{text} (correct: {form(correction)})"


def errata(summary: SummaryFile) -> list[str]:
    """A sentence for each figure that the study has wrong."""
    return [
        f"The study prints {entry.reported:,} for {entry.field} of {entry.model}; "
        f"correct is {entry.correct:,}: {entry.why}."
        for entry in summary.errata
    ]


def of_other_images(model: Mapping[str, Any], params: int | None, side: int | None) -> str:
    """A sentence where the study's figures are left out for the size of images alone.

    Args:
        model: the run's config.model.
        params: the net's number of parameters.
        side: height and width of the run's images.
    """
    theirs, wanted = REPORTED.get(model["name"]), INPUT_SHAPE[0]
    if theirs is None or side in (None, wanted) or params != theirs["params"]:
        return ""
    own = nets.get(model["name"]).widths
    if any(model.get(field, own.get(field)) != own.get(field) for field in _OF_NO_PARAMETERS):
        return ""
    return (
        f"The study's figures are of images of {wanted} x {wanted} pixels: they stand beside those "
        f"of a run with `--config.data.image_size={wanted}`."
    )
