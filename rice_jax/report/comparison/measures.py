"""What is compared: each measure's name, heading and form, and the study's figure for it."""

import dataclasses
import functools
from collections.abc import Callable, Mapping

from rice_jax.profile.study import TEST_IMAGES
from rice_jax.records import SummaryFile
from rice_jax.report import numbers, reported

Form = Callable[[float | None], str]


@dataclasses.dataclass(frozen=True)
class Measure:
    """A figure that a run's summary holds or that follows from it."""

    heading: str
    read: Callable[[SummaryFile], float | None]
    form: Form
    field: str = ""
    """The study's name for it, '' where the study has no such figure."""
    study_form: Form | None = None
    """How the study's figure is written, where it has fewer digits."""
    incomplete: str = ""
    """The sign before the figure where FLOPs lack something; '' where that does not matter."""

    def reported(self, summary: SummaryFile) -> float | None:
        """The study's figure, as printed."""
        return reported.reported(summary, self.field) if self.field else None

    def correct(self, summary: SummaryFile) -> float | None:
        """What the study should have printed, where that is something else."""
        return reported.correct(summary, self.field) if self.field else None

    def study_cell(self, summary: SummaryFile) -> str:
        """The study's figure as text, with its erratum."""
        if not self.field:
            return numbers.MISSING
        return reported.cell(summary, self.field, self.study_form or self.form)


def _accuracy_per_tflop(summary: SummaryFile) -> float | None:
    accuracy = MEASURES["augmented_accuracy"].read(summary)
    total = MEASURES["tflops_7500"].read(summary)
    return None if accuracy is None or not total else 100 * accuracy / total


_TWO_DIGITS = functools.partial(numbers.decimal, digits=2)
_THREE = functools.partial(numbers.short, digits=3)

MEASURES: Mapping[str, Measure] = {
    "params": Measure("parameters", lambda it: it.params, numbers.count, "params"),
    "trainable_params": Measure(
        "trainable", lambda it: it.trainable_params, numbers.count, "trainable"
    ),
    "train_accuracy": Measure(
        "training accuracy", lambda it: it.train_accuracy, numbers.percent, "train_accuracy"
    ),
    "train_loss": Measure("training loss", lambda it: it.train_loss, numbers.decimal, "train_loss"),
    "val_accuracy": Measure(
        "validation accuracy", lambda it: it.val_accuracy, numbers.percent, "val_accuracy"
    ),
    "val_loss": Measure("validation loss", lambda it: it.val_loss, numbers.decimal, "val_loss"),
    "best_epoch": Measure("best epoch", lambda it: it.best_epoch, _THREE, "best_epoch"),
    "clean_accuracy": Measure(
        "clean accuracy", lambda it: it.clean.accuracy if it.clean else None, numbers.percent
    ),
    "augmented_accuracy": Measure(
        "augmented accuracy",
        lambda it: it.augmented.accuracy if it.augmented else None,
        numbers.percent,
        "augmented_test_accuracy",
    ),
    "augmented_precision": Measure(
        "macro precision",
        lambda it: it.augmented.macro_precision if it.augmented else None,
        numbers.fraction,
        "macro.precision",
        _TWO_DIGITS,
    ),
    "augmented_recall": Measure(
        "macro recall",
        lambda it: it.augmented.macro_recall if it.augmented else None,
        numbers.fraction,
        "macro.recall",
        _TWO_DIGITS,
    ),
    "augmented_f1": Measure(
        "macro F1",
        lambda it: it.augmented.macro_f1 if it.augmented else None,
        numbers.fraction,
        "macro.f1",
        _TWO_DIGITS,
    ),
    "flops_study": Measure(
        "FLOPs (`study`)",
        lambda it: it.flops.study if it.flops else None,
        numbers.count,
        "flops",
        incomplete="≥",
    ),
    "flops_formula": Measure(
        "FLOPs (`formula`)",
        lambda it: it.flops.formula if it.flops else None,
        numbers.count,
        incomplete="≥",
    ),
    "flops_xla": Measure(
        "FLOPs (`xla`)",
        lambda it: it.flops.xla if it.flops else None,
        numbers.count,
        incomplete="≥",
    ),
    "bit_operations": Measure(
        "bit operations", lambda it: it.bit_operations, numbers.count, incomplete="≥"
    ),
    "bytes": Measure("bytes", lambda it: it.bytes, numbers.count),
    "tflops_7500": Measure(
        f"TFLOPs for {TEST_IMAGES:,} images",
        lambda it: reported.tflops(it.flops.study if it.flops else None),
        functools.partial(numbers.short, digits=5),
        "tflops_7500",
        incomplete="≥",
    ),
    "accuracy_per_tflop": Measure(
        "accuracy per TFLOP (%)", _accuracy_per_tflop, _THREE, incomplete="≤"
    ),
    "filters": Measure("filters", lambda it: it.filters, numbers.count, "filters"),
    "study_filters": Measure("filters, study's count", lambda it: it.study_filters, numbers.count),
    "latency_seconds": Measure("latency", lambda it: it.latency_seconds, numbers.seconds),
    "images_per_second": Measure("images a second", lambda it: it.images_per_second, _THREE),
    "dead_clean": Measure(
        "dead, clean", lambda it: it.dead_filters.clean if it.dead_filters else None, numbers.count
    ),
    "dead_augmented": Measure(
        "dead, augmented",
        lambda it: it.dead_filters.augmented if it.dead_filters else None,
        numbers.count,
    ),
    "dead_proven": Measure(
        "proven dead", lambda it: it.dead_filters.proven if it.dead_filters else None, numbers.count
    ),
}
"""By name: the columns of comparison.csv. Those called 'augmented' are of the augmented test
images; FLOPs, latency and images a second are for inference; bytes are of an exported file, or of
a run's parameters."""
