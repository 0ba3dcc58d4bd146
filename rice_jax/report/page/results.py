"""How the net learned and how well it does, class by class."""

import numpy as np

from rice_jax import nets
from rice_jax.records import EvaluationFile, Result, Scores, SummaryFile
from rice_jax.report import history as histories
from rice_jax.report import markdown, numbers
from rice_jax.report.confusion import MOST_CLASSES
from rice_jax.report.page.blocks import Section, picture
from rice_jax.report.page.commands import stage_command
from rice_jax.report.record import Record
from rice_jax.run import Run

_MISTAKES = 3
_MOST_PAIRS = 20
_ABSENT = (*[numbers.MISSING] * 3, "0")
"""What there is to tell of a class that is neither an image's nor an answer."""
_FEW_RATES = 6  # changes of the learning rate that are told one by one


def training(run: Run, record: Record, summary: SummaryFile) -> Section:
    """The curves, and the best epoch in a sentence."""
    if not record.history:
        command = markdown.code(stage_command(run, record, "train"))
        return ["## Training", f"Not trained here yet: {command} does it."]
    parts: Section = ["## Training", *_begun_again(record)]
    if summary.best_epoch is not None:
        on = histories.best_among(record.history)
        if record.validated_augmented:
            on = f" on augmented images{on}"
        parts.append(
            f"Epoch {summary.best_epoch} of {summary.epochs} has the lowest validation "
            f"loss{on}, {numbers.decimal(summary.val_loss)} nats, at a validation accuracy of "
            f"{numbers.percent(summary.val_accuracy)} (training "
            f"{numbers.percent(summary.train_accuracy)}). Its weights are the run's."
        )
    if learned := _sizes(record):
        parts.append(f"It learned from {learned}.")
    rates = [row.learning_rate for row in record.history]
    changes = [
        f"to {rate:.2g} at epoch {row.epoch}"
        for row, before, rate in zip(record.history[1:], rates, rates[1:], strict=False)
        if numbers.present(rate) and numbers.present(before) and rate != before
    ]
    known = [rate for rate in rates if numbers.present(rate)]
    if len(changes) > _FEW_RATES:
        parts.append(
            f"The learning rate changed from epoch to epoch: {known[0]:.2g} in the first, "
            f"{max(known):.2g} at most, {known[-1]:.2g} in the last."
        )
    elif changes:
        parts.append(f"The learning rate went from {known[0]:.2g} {', '.join(changes)}.")
    parts.append(picture("Loss, accuracy and learning rate by epoch", "curves.png"))
    return parts


def _begun_again(record: Record) -> list[str]:
    """Which tries of the training came to nothing; of them the history has no rows."""
    if not (failed := record.failed_seeds):
        return []
    several = bool(failed[1:])
    seeds = f"seeds {failed[0]} to {failed[-1]}" if several else f"seed {failed[0]}"
    quick = record.recipe.get("schedule") == "quick"
    slower = ", at half the learning rate" if quick else ""
    return [
        f"It did not learn with {seeds}, and began again with seed {record.seed}{slower}"
        f"{' each time' if quick and several else ''}."
    ]


def _sizes(record: Record) -> str:
    """Which epochs learned from which images; empty where all were whole, or that is not known."""
    sizes = [row.image_size for row in record.history if row.image_size is not None]
    model, images = record.config.config["model"], record.config.config["data"]
    if len(sizes) < len(record.history):
        return ""
    whole = images["image_size"]
    validated = [row.validation_size or whole for row in record.history]
    return nets.learned_from(sizes, validated, whole, model.get("grid", 0))


def evaluation(run: Run, record: Record) -> list[Section]:
    """Clean and augmented test images: confusion matrix, mistakes in words, a table."""
    if record.evaluation is None:
        command = markdown.code(stage_command(run, record, "evaluate"))
        return [["## Test images", f"Not evaluated yet: {command} does it."]]
    return [_evaluated(record, part, result) for part, result in record.results.items()]


def _evaluated(record: Record, part: str, result: Result) -> Section:
    folder = record.tested_elsewhere
    loss = numbers.decimal(result.loss)
    matrix = picture(f"Confusion matrix, {part} images", f"confusion_matrix_{part}.png")
    many = len(result.per_class) > MOST_CLASSES
    parts: Section = [
        f"## {part.capitalize()} test images",
        f"They are those of {markdown.code(folder)}, not of the run's test split."
        f"{_learned(record.evaluation)}"
        if folder
        else "",
        f"Of {numbers.counted(result.images, 'image')} {numbers.percent(result.accuracy)} "
        f"{'is' if result.images == 1 else 'are'} right, "
        f"at a mean loss of {loss} nats. {_mistakes(result)}",
        matrix,
        _most_mistaken(result) if many else "",
        _table(result),
    ]
    return [part for part in parts if part]


def _learned(evaluation: EvaluationFile | None) -> str:
    """How many images of a folder it has learned from, where that is known."""
    learned = evaluation.in_training if evaluation else None
    if learned is None:
        return ""
    those = "are training images of the run" if learned > 1 else "is a training image of the run"
    return f" {numbers.count(learned) if learned else 'None'} of them {those}, byte for byte."


def _worst(result: Result, most: int) -> list[tuple[str, str, str, str]]:
    """The most frequent mistakes: true class, predicted one, images, images of the true class."""
    names = list(result.per_class)
    true, given, images = result.confused()
    totals = np.bincount(true, images, len(names)).astype(int)
    wrong = (true != given).nonzero()[0]
    return [
        (
            markdown.escape(names[true[place]]),
            markdown.escape(names[given[place]]),
            numbers.count(int(images[place])),
            numbers.count(int(totals[true[place]])),
        )
        for place in wrong[np.argsort(-images[wrong], kind="stable")][:most].tolist()
    ]


def _mistakes(result: Result) -> str:
    """The most frequent mistakes in words."""
    words = [
        f"{true} for {given} ({number} of {images})"
        for true, given, number, images in _worst(result, _MISTAKES)
    ]
    if not words:
        return "No image is taken for another class."
    return f"Most often taken for another class: {', '.join(words)}."


def _most_mistaken(result: Result) -> str:
    """Of more classes than a picture shows one by one, the pairs most often confused."""
    rows = _worst(result, _MOST_PAIRS)
    return markdown.table(("class", "taken for", "images", "of"), rows) if rows else ""


def _table(result: Result) -> str:
    true, given, _ = result.confused()
    names = list(result.per_class)
    occurring = {names[place] for place in {*true.tolist(), *given.tolist()}}
    by_class = list(result.per_class.items())
    # One that is neither seen nor answered has no F1: it is 0 in the file.
    lowest = sorted(by_class, key=lambda item: (item[0] not in occurring, item[1].f1))
    lowest = lowest[:MOST_CLASSES]
    left_out = len(by_class) - len(lowest)
    rows = [
        (markdown.escape(name), *(_measures(measures) if name in occurring else _ABSENT))
        for name, measures in (lowest if left_out else by_class)
    ]
    of_classes = "mean of classes" + (" that occur" if len(occurring) < len(names) else "")
    means = ((of_classes, result.macro_avg), ("mean of images", result.weighted_avg))
    rows += [(f"**{title}**", *_measures(mean)) for title, mean in means if mean]
    table = markdown.table(("class", "precision", "recall", "F1", "images"), rows)
    if not left_out:
        return table
    return (
        f"The {len(lowest)} classes with the lowest F1; the other {numbers.count(left_out)} are in "
        f"evaluation.json.\n\n{table}"
    )


def _measures(measures: Scores) -> tuple[str, str, str, str]:
    precision, recall, f1 = map(
        numbers.fraction, (measures.precision, measures.recall, measures.f1)
    )
    return precision, recall, f1, numbers.count(measures.support)
