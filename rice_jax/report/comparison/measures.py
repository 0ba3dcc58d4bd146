"""What is compared: each measure's name, heading and form, and the study's figure for it."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

from rice_jax.profile.study import TEST_IMAGES
from rice_jax.report import numbers, study

Summary = Mapping[str, Any]
Form = Callable[[float | None], str]


@dataclasses.dataclass(frozen=True)
class Measure:
    """A figure that a run's summary holds or that follows from it."""

    heading: str
    read: Callable[[Summary], float | None]
    form: Form
    field: str = ""
    """The study's name for it, '' where the study has no such figure."""
    study_form: Form | None = None
    """How the study's figure is written, where it has fewer digits."""
    incomplete: str = ""
    """The sign before the figure where FLOPs lack something; '' where that does not matter."""

    def reported(self, summary: Summary) -> float | None:
        """The study's figure, as printed."""
        return study.reported(summary, self.field) if self.field else None

    def correct(self, summary: Summary) -> float | None:
        """What the study should have printed, where that is something else."""
        return study.correct(summary, self.field) if self.field else None

    def study_cell(self, summary: Summary) -> str:
        """The study's figure as text, with its erratum."""
        if not self.field:
            return numbers.MISSING
        return study.cell(summary, self.field, self.study_form or self.form)


def _at(*keys: str) -> Callable[[Summary], float | None]:
    def read(summary: Summary) -> float | None:
        value: Any = summary
        for key in keys:
            value = (value or {}).get(key)
        return value

    return read


def _accuracy_per_tflop(summary: Summary) -> float | None:
    accuracy = MEASURES["augmented_accuracy"].read(summary)
    total = MEASURES["tflops_7500"].read(summary)
    return None if accuracy is None or not total else 100 * accuracy / total


_TWO_DIGITS = functools.partial(numbers.decimal, digits=2)
_THREE = functools.partial(numbers.short, digits=3)

MEASURES: Mapping[str, Measure] = {
    "params": Measure("parameters", _at("params"), numbers.count, "params"),
    "trainable_params": Measure("trainable", _at("trainable_params"), numbers.count, "trainable"),
    "train_accuracy": Measure(
        "training accuracy", _at("train_accuracy"), numbers.percent, "train_accuracy"
    ),
    "train_loss": Measure("training loss", _at("train_loss"), numbers.decimal, "train_loss"),
    "val_accuracy": Measure(
        "validation accuracy", _at("val_accuracy"), numbers.percent, "val_accuracy"
    ),
    "val_loss": Measure("validation loss", _at("val_loss"), numbers.decimal, "val_loss"),
    "best_epoch": Measure("best epoch", _at("best_epoch"), _THREE, "best_epoch"),
    "clean_accuracy": Measure("clean accuracy", _at("clean", "accuracy"), numbers.percent),
    "augmented_accuracy": Measure(
        "augmented accuracy",
        _at("augmented", "accuracy"),
        numbers.percent,
        "augmented_test_accuracy",
    ),
    "augmented_precision": Measure(
        "macro precision",
        _at("augmented", "macro_precision"),
        numbers.decimal,
        "macro.precision",
        _TWO_DIGITS,
    ),
    "augmented_recall": Measure(
        "macro recall",
        _at("augmented", "macro_recall"),
        numbers.decimal,
        "macro.recall",
        _TWO_DIGITS,
    ),
    "augmented_f1": Measure(
        "macro F1", _at("augmented", "macro_f1"), numbers.decimal, "macro.f1", _TWO_DIGITS
    ),
    "flops_study": Measure(
        "FLOPs (`study`)", _at("flops", "study"), numbers.count, "flops", incomplete="≥"
    ),
    "flops_formula": Measure(
        "FLOPs (`formula`)", _at("flops", "formula"), numbers.count, incomplete="≥"
    ),
    "flops_xla": Measure("FLOPs (`xla`)", _at("flops", "xla"), numbers.count, incomplete="≥"),
    "bit_operations": Measure(
        "bit operations", _at("bit_operations"), numbers.count, incomplete="≥"
    ),
    "bytes": Measure("bytes", _at("bytes"), numbers.count),
    "tflops_7500": Measure(
        f"TFLOPs for {TEST_IMAGES:,} images",
        lambda summary: study.tflops((summary["flops"] or {}).get("study")),
        functools.partial(numbers.short, digits=5),
        "tflops_7500",
        incomplete="≥",
    ),
    "accuracy_per_tflop": Measure(
        "accuracy per TFLOP (%)", _accuracy_per_tflop, _THREE, incomplete="≤"
    ),
    "filters": Measure("filters", _at("filters"), numbers.count, "filters"),
    "study_filters": Measure("filters, study's count", _at("study_filters"), numbers.count),
    "latency_seconds": Measure("latency", _at("latency_seconds"), numbers.seconds),
    "images_per_second": Measure("images a second", _at("images_per_second"), _THREE),
    "dead_clean": Measure("dead, clean", _at("dead_filters", "clean"), numbers.count),
    "dead_augmented": Measure("dead, augmented", _at("dead_filters", "augmented"), numbers.count),
    "dead_proven": Measure("proven dead", _at("dead_filters", "proven"), numbers.count),
}
"""By name: the columns of comparison.csv. Those called 'augmented' are of the augmented test
images; FLOPs, latency and images a second are for inference; bytes are of an exported file, or of
a run's parameters."""
