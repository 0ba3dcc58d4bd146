"""The study's figures beside ours, each with its erratum, as cells of a table."""

from collections.abc import Callable, Mapping
from typing import Any

from rice_jax.profile.study import TEST_IMAGES
from rice_jax.report import numbers


def tflops(flops: float | None) -> float | None:
    """TFLOPs for the study's 7,500 test images, of the FLOPs for one."""
    return None if flops is None else flops * TEST_IMAGES / 1e12


def reported(
    summary: Mapping[str, Any], field: str, form: Callable[[float | None], str] = numbers.count
) -> str:
    """The study's figure called `field` ('flops', 'macro.f1'), and the correct one where it errs.

    Args:
        summary: a run's summary, with what profile.json has under 'reported' and 'errata'.
        field: key of the study's figures; a dot goes one level down.
        form: how the figure is written.
    """
    value: Any = summary.get("reported") or {}
    for key in field.split("."):
        value = (value or {}).get(key)
    corrections = [e["correct"] for e in summary.get("errata") or [] if e["field"] == field]
    text = form(value)
    return f"{text} (correct: {form(corrections[0])})" if corrections else text


def errata(summary: Mapping[str, Any]) -> list[str]:
    """A sentence for each figure that the study has wrong."""
    return [
        f"The study prints {entry['reported']:,} for {entry['field']} of {entry['model']}; "
        f"correct is {entry['correct']:,}: {entry['why']}."
        for entry in summary.get("errata") or []
    ]
