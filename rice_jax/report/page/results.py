"""How the net learned and how well it does, class by class."""

from collections.abc import Mapping, Sequence
from typing import Any

from rice_jax.report import markdown, numbers
from rice_jax.report.page.overview import stage_command
from rice_jax.report.record import PARTS, Record
from rice_jax.run import Run

_MISTAKES = 3
_FEW_RATES = 6  # changes of the learning rate that are told one by one


def training(run: Run, record: Record, summary: Mapping[str, Any]) -> str:
    """The curves, and the best epoch in a sentence."""
    if not record.history:
        command = markdown.code(stage_command(run, "train"))
        return f"## Training\n\nNot trained here yet: {command} does it."
    parts = ["## Training"]
    if summary["best_epoch"] is not None:
        parts.append(
            f"Epoch {summary['best_epoch']} of {summary['epochs']} has the lowest validation "
            f"loss, {numbers.decimal(summary['val_loss'])} nats, at a validation accuracy of "
            f"{numbers.percent(summary['val_accuracy'])} (training "
            f"{numbers.percent(summary['train_accuracy'])}). Its weights are the run's."
        )
    rates = [row.get("learning_rate") for row in record.history]
    changes = [
        f"to {rate:.2g} at epoch {row['epoch']:.0f}"
        for row, before, rate in zip(record.history[1:], rates, rates[1:], strict=False)
        if rate and before and rate != before
    ]
    if len(changes) > _FEW_RATES:
        known = [rate for rate in rates if rate]
        parts.append(
            f"The learning rate changed from epoch to epoch: {known[0]:.2g} in the first, "
            f"{max(known):.2g} at most, {known[-1]:.2g} in the last."
        )
    elif changes:
        parts.append(f"The learning rate went from {rates[0]:.2g} {', '.join(changes)}.")
    parts.append(markdown.image("Loss, accuracy and learning rate by epoch", "curves.png"))
    return "\n\n".join(parts)


def evaluation(run: Run, record: Record) -> str:
    """Clean and augmented test images: confusion matrix, mistakes in words, a table."""
    if record.evaluation is None:
        command = markdown.code(stage_command(run, "evaluate"))
        return f"## Test images\n\nNot evaluated yet: {command} does it."
    results = [(part, record.evaluation.get(part)) for part in PARTS]
    return "\n\n".join(_evaluated(part, result) for part, result in results if result)


def _evaluated(part: str, result: Mapping[str, Any]) -> str:
    loss = numbers.decimal(result.get("loss"))
    return "\n\n".join(
        [
            f"## {part.capitalize()} test images",
            f"{numbers.percent(result['accuracy'])} of {numbers.count(result['images'])} images "
            f"right, a mean loss of {loss} nats. {_mistakes(result)}",
            markdown.image(f"Confusion matrix, {part} images", f"confusion_matrix_{part}.png"),
            _table(result),
        ]
    )


def _mistakes(result: Mapping[str, Any]) -> str:
    """The most frequent mistakes in words."""
    names = list(result["per_class"])
    matrix: Sequence[Sequence[float]] = result["confusion_matrix"]
    found = [
        (number, true, predicted)
        for true, row in enumerate(matrix)
        for predicted, number in enumerate(row)
        if number and true != predicted
    ]
    if not found:
        return "No image is taken for another class."
    worst = sorted(found, key=lambda mistake: -mistake[0])[:_MISTAKES]
    words = [
        f"{markdown.escape(names[true])} for {markdown.escape(names[predicted])} "
        f"({numbers.count(number)} of {numbers.count(sum(matrix[true]))})"
        for number, true, predicted in worst
    ]
    return f"Most often taken for another class: {', '.join(words)}."


def _table(result: Mapping[str, Any]) -> str:
    rows = [
        (markdown.escape(name), *_measures(measures))
        for name, measures in result["per_class"].items()
    ]
    for title, name in (("mean of classes", "macro_avg"), ("mean of images", "weighted_avg")):
        if result.get(name):
            rows.append((f"**{title}**", *_measures(result[name])))
    return markdown.table(("class", "precision", "recall", "F1", "images"), rows)


def _measures(measures: Mapping[str, Any]) -> tuple[str, str, str, str]:
    precision, recall, f1 = (numbers.decimal(measures[x]) for x in ("precision", "recall", "f1"))
    return precision, recall, f1, numbers.count(measures.get("support"))
