"""What the page begins and ends with: the net, its headline figures, its images, its recipe."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

from rice_jax import config as configuration
from rice_jax import nets
from rice_jax.data import copies as held_twice
from rice_jax.profile.study import TEST_IMAGES
from rice_jax.records import Copies, FlopCounts, SummaryFile
from rice_jax.report import markdown, numbers, reported, style
from rice_jax.report.page.blocks import Section, picture
from rice_jax.report.page.provenance import origin
from rice_jax.report.record import Record
from rice_jax.run import Run

_MOST_NAMED = 1_000  # classes that the page lists
_MOST_NUMBERED = 12  # classes of which the page says one by one what they are called
Form = Callable[[float | None], str]

_USES = {"train": "training", "test": "the test"}


def opening(record: Record, summary: SummaryFile) -> Section:
    """The title and a paragraph: what net, what it learned from, how well it does."""
    title = f"# {markdown.escape(record.model)}{', pruned' if record.prune else ''}"
    parts = [f"{title}\n{origin(record)}".rstrip()]
    if record.synthetic:
        parts.append(
            "> **Synthetic data.** The images are drawn grains, not photographs: the accuracies "
            "below say that the machinery works and nothing about rice. For photographs give, in "
            "another folder, `--config.data.path=sample`, or the Kaggle archive 'Rice Image "
            "Dataset', its unpacked folder, or any folder of class folders."
        )
    sentences = [_net(record), _learned(record, summary), _does(record, summary)]
    parts.append(" ".join(sentence for sentence in sentences if sentence))
    return [part for part in parts if part]


def _net(record: Record) -> str:
    if record.profile is None:
        return ""
    totals = record.profile.totals
    convolutions = sum(1 for layer in record.profile.layers if layer.filters)
    size = " x ".join(str(side) for side in record.profile.input_shape[1:])
    return (
        f"A net of {numbers.counted(convolutions, 'convolution')} with "
        f"{numbers.counted(totals.filters or 0, 'filter')} and {numbers.count(totals.params)} "
        f"parameters, for images of {size}. One image takes it "
        f"{'' if record.flops_complete else 'at least '}"
        f"{numbers.quantity(totals.flops.study, 'FLOPs')}."
    )


def _learned(record: Record, summary: SummaryFile) -> str:
    if not record.history:
        return ""
    images = record.data.images if record.data else {}
    text = f"It learned for {numbers.counted(summary.epochs, 'epoch')}"
    if some := record.learns_from:
        drawn = f"{numbers.count(some)} each of " if some < images["train"] else ""
        text += f" from {drawn}{numbers.counted(images['train'], 'image')}"
    if record.prune and (steps := record.prune.request.steps) > 1:
        text += f" after the last of {steps} steps of pruning"
    best = summary.best_epoch
    return f"{text}; the figures are those of epoch {best}, the best." if best else f"{text}."


def _does(record: Record, summary: SummaryFile) -> str:
    clean, augmented = summary.clean, summary.augmented
    if not clean or not augmented:
        return ""
    return (
        f"It names the class of {numbers.percent(clean.accuracy)} of the clean {_tested(record)}, "
        f"and of {numbers.percent(augmented.accuracy)} once they are flipped, turned, zoomed, "
        f"shifted and changed in contrast.{_as_well(record)}{_unprepared(record)}"
    )


def _as_well(record: Record) -> str:
    """What the clean accuracy is worth where the images' commonest class alone gives as much."""
    clean = record.evaluation.clean if record.evaluation else None
    if not clean or not (as_well := clean.as_well()):
        return ""
    name, share = as_well
    return (
        f" To answer {markdown.code(name)} to every clean one would be right for "
        f"{numbers.percent(share)}."
    )


def _unprepared(record: Record) -> str:
    """What a net that has not learned from augmented images could do about losing on them."""
    lost = record.evaluation.lost_augmented() if record.evaluation else 0.0
    if not (lost and record.history) or record.config.augmented:
        return ""
    return (
        f" Its training had none of the latter, which cost it {100 * lost:.1f} points: with "
        "`--config.train.augment=true`, in another folder, a net learns from them."
    )


def _tested(record: Record) -> str:
    """What to call the images that it was evaluated on."""
    folder = record.tested_elsewhere
    return f"images of {markdown.code(folder)}" if folder else "test images"


def headline(record: Record, summary: SummaryFile) -> Section:
    """The table of headline figures, the study's beside them where it has the net."""
    accuracies = _accuracies(record, summary)
    rows = [*accuracies, *_costs(summary), *_dead(summary)]
    known = summary.reported is not None
    header = ("", "this run", "the study") if known else ("", "this run")
    cells = [row if known else row[:2] for row in rows if row[1] != numbers.MISSING]
    if not cells:
        return []
    lines: Section = ["## At a glance", markdown.table(header, cells)]
    notes = reported.errata(summary)
    if notes:
        lines.append("\n".join(f"- {markdown.escape(note)}" for note in notes))
    side = (record.config.config.get("data") or {}).get("image_size")
    model = record.config.config["model"]
    if elsewhere := reported.of_other_images(model, summary.params, side):
        lines.append(elsewhere)
    return lines


Row = tuple[str, str, str]
"""What it is, the run's figure, the study's."""


def _accuracies(record: Record, summary: SummaryFile) -> list[Row]:
    def theirs(field: str, form: Form) -> str:
        return reported.cell(summary, field, form)

    tested = _tested(record)
    clean, augmented = summary.clean, summary.augmented
    validation = "augmented validation images" if record.validated_augmented else "validation"
    if side := record.validation_size:
        validation += f" at {side} x {side}"
    return [
        (
            f"accuracy, clean {tested}",
            numbers.percent(clean.accuracy if clean else None),
            numbers.MISSING,
        ),
        (
            f"accuracy, augmented {tested}",
            numbers.percent(augmented.accuracy if augmented else None),
            theirs("augmented_test_accuracy", numbers.percent),
        ),
        (
            f"macro F1, augmented {tested}",
            numbers.fraction(augmented.macro_f1 if augmented else None),
            theirs("macro.f1", functools.partial(numbers.decimal, digits=2)),
        ),
        (
            f"accuracy, {validation}",
            numbers.percent(summary.val_accuracy),
            theirs("val_accuracy", numbers.percent),
        ),
        (
            f"loss, {validation} (nats)",
            numbers.decimal(summary.val_loss),
            theirs("val_loss", numbers.decimal),
        ),
        (
            "best epoch",
            numbers.count(summary.best_epoch),
            theirs("best_epoch", numbers.count),
        ),
    ]


def _costs(summary: SummaryFile) -> list[Row]:
    flops = summary.flops or FlopCounts()

    def theirs(field: str, form: Form = numbers.count) -> str:
        return reported.cell(summary, field, form)

    def counted(value: float | None, form: Form = numbers.count) -> str:
        return numbers.at_least(form(value), summary.flops_complete)

    return [
        ("parameters", numbers.count(summary.params), theirs("params")),
        ("trainable parameters", numbers.count(summary.trainable_params), theirs("trainable")),
        *_filters(summary),
        ("FLOPs for one image, `study`", counted(flops.study), theirs("flops")),
        ("FLOPs for one image, `formula`", counted(flops.formula), numbers.MISSING),
        ("FLOPs for one image, `xla`", counted(flops.xla), numbers.MISSING),
        *_test_set(summary),
        (
            f"latency of one image, {markdown.escape(str(summary.latency_device))}",
            numbers.seconds(summary.latency_seconds),
            numbers.MISSING,
        ),
        ("throughput, images/s", numbers.short(summary.images_per_second, 3), numbers.MISSING),
    ]


def _test_set(summary: SummaryFile) -> list[Row]:
    """FLOPs for the study's test images, to stand beside its own; without those they tell nothing
    that the FLOPs for one image do not."""
    if reported.reported(summary, "tflops_7500") is None:
        return []
    flops = summary.flops.study if summary.flops else None
    told = numbers.short(reported.tflops(flops))
    return [
        (
            f"TFLOPs for {numbers.count(TEST_IMAGES)} images, `study`",
            numbers.at_least(told, summary.flops_complete),
            reported.cell(summary, "tflops_7500", numbers.short),
        )
    ]


def _dead(summary: SummaryFile) -> list[Row]:
    told = summary.dead_filters
    return [
        (f"filters {what}", numbers.count(number), numbers.MISSING)
        for what, number in (
            ("dead on clean images", told.clean if told else None),
            ("dead on augmented images", told.augmented if told else None),
            ("proven dead", told.proven if told else None),
        )
    ]


def _filters(summary: SummaryFile) -> list[Row]:
    """All of them; where the study leaves some of its nets' out, those that it counts too."""
    rows = [
        (
            "filters",
            numbers.count(summary.filters),
            reported.cell(summary, "filters", numbers.count),
        )
    ]
    if summary.model in nets.NETS and summary.filters != summary.study_filters:
        theirs = numbers.count(summary.study_filters)
        rows.append(("filters by the study's count", theirs, numbers.MISSING))
    return rows


def data(run: Run, record: Record) -> Section:
    """The images: where from, how many, what they look like."""
    if record.data is None:
        return []
    images, classes = record.data.images, record.data.classes
    named = classes[:_MOST_NAMED]
    names = ", ".join(markdown.escape(name) for name in named)
    parts: Section = [
        "## The images",
        f"{markdown.escape(record.data.name)}, "
        + ", ".join(
            f"{numbers.count(number)} for {_USES.get(split, split)}"
            for split, number in images.items()
        )
        + f". {numbers.count(len(classes))} classes: {names}"
        + (", ...: all are in config.json." if len(named) < len(classes) else ".")
        + _sized(record)
        + _skipped(record.data.skipped)
        + _copies(record.data.copies),
    ]
    numbered = [
        f"{label} is {markdown.escape(name)}"
        for label, name in zip(style.labels(named, 1.35), named, strict=True)
        if label != " ".join(name.split())
    ]
    if len(numbered) > _MOST_NUMBERED:
        parts.append(
            f"In the figures {len(numbered)} classes are cut short, or where no font can write "
            "them, stand in Latin letters or go by their number in this list."
        )
    elif numbered:
        parts.append(f"In the figures {'; '.join(numbered)}.")
    if run.has("classes.png"):
        parts.append(picture("Images of each class", "classes.png"))
    return parts


def _sized(record: Record) -> str:
    """How large they come, and what a net gets of that."""
    side = (record.config.config.get("data") or {}).get("image_size")
    if record.data is None or record.data.size is None or not side:
        return ""
    height, width = record.data.size
    if height == width == side:
        return f" They come at {width} x {height} pixels."
    made = "enlarged" if max(height, width) < side else "resized"
    shape = "" if height == width else ", whatever their shape"
    resized = f"{made} to {side} x {side}{shape}"
    return f" They come at {width} x {height} pixels (medians) and are {resized}."


def _skipped(skipped: int) -> str:
    if not skipped:
        return ""
    were = "was" if skipped == 1 else "were"
    return f" {numbers.counted(skipped, 'file')} could not be used and {were} left out."


def _copies(copies: Copies | None) -> str:
    told = held_twice.told(copies) if copies else ""
    return f" {told[0].upper()}{told[1:]}." if told else ""


def provenance(record: Record) -> Section:
    """What it takes to get this run again: seed, recipe, versions."""
    rows = [
        ("seed", _seed(record)),
        *((f"train.{name}", markdown.code(str(value))) for name, value in _with_a_part(record)),
        *(
            (markdown.escape(name), markdown.code(str(value)))
            for name, value in record.config.versions.items()
            if value
        ),
    ]
    table = markdown.table(("", ""), rows, left=2)
    return ["## How it was made", table, "All settings: [config.json](config.json)."]


def _seed(record: Record) -> str:
    """That of the net; where it began again, that of config.json too, by which it does so again."""
    ended, begun = (markdown.code(str(seed)) for seed in (record.seed, record.config.seed))
    return f"{ended}, begun with {begun}" if record.failed_seeds else ended


def _with_a_part(record: Record) -> Iterator[tuple[str, Any]]:
    """The fields of the recipe by which the run learned: those of the other schedule are idle."""
    told = {"schedule": "study", "teacher": "", **record.recipe}  # older versions had neither
    whole = configuration.from_json({"train": told})
    for name, value in configuration.flat(record.recipe):
        if not configuration.idle(whole, [f"train.{name}"]):
            yield name, value
