"""The comparison as a page: what report.md and report.html tell."""

import shlex
from collections.abc import Sequence

from rice_jax.records import ExportFile, PruneFile
from rice_jax.report import markdown, numbers, reported
from rice_jax.report.comparison import choice as choosing
from rice_jax.report.comparison import tables
from rice_jax.report.comparison.cautions import cautions, incomparable
from rice_jax.report.comparison.choice import ACCURACY, Front, Recommended
from rice_jax.report.comparison.compared import NetRuns, listed
from rice_jax.report.comparison.figures import WITHOUT_FINAL
from rice_jax.report.page import Section, Shown
from rice_jax.report.page.commands import stage_command

_OF_ITS_TEST = "tflops_7500"
"""FLOPs for the study's test images: beside its own figure they tell something, alone nothing that
those for one image do not."""

_STUDY_TABLES = (
    (
        "Size and learning",
        ("params", "trainable_params", "val_accuracy", "val_loss", "best_epoch"),
    ),
    (
        "Augmented test images",
        (ACCURACY, "augmented_precision", "augmented_recall", "augmented_f1"),
    ),
    ("Compute and filters", ("flops_study", _OF_ITS_TEST, "filters", "study_filters")),
    (
        "What the study does not report",
        ("clean_accuracy", "latency_seconds", "images_per_second", "dead_clean", "dead_proven"),
    ),
    (
        "Bits",
        ("bit_operations", "bytes"),
    ),
)

FIGURES = "figures"
"""Name of the block that holds all figures."""


def page(
    nets: Sequence[NetRuns],
    front: Front,
    choice: Recommended | None,
    pictures: Sequence[tuple[str, str]],
) -> list[Section]:
    """What the page tells.

    Args:
        nets: in the order to list them.
        front: the nets that nothing beats.
        choice: the recommended net; None where there is nothing to weigh.
        pictures: (name, caption) of each figure, those without the final net last.
    """
    main = [picture for picture in pictures if not picture[0].endswith(WITHOUT_FINAL)]
    without = [picture for picture in pictures if picture[0].endswith(WITHOUT_FINAL)]
    runs = sum(len(net.entries) for net in nets)
    title = f"# {len(nets)} net{'s' if len(nets) > 1 else ''} compared"
    drawn = "\n\n".join(markdown.image(caption, f"{name}.png") for name, caption in main)
    tables_of_study = [
        part for heading, names in _STUDY_TABLES for part in _study_table(nets, heading, names)
    ]
    sections: list[Section] = [
        [title, *cautions(nets), "## Which one to take", *recommendation(nets, choice)],
        ["## At a glance", _glance(nets, front), _about_spread(nets, runs), _about_front(front)],
        ["## Figures", Shown(FIGURES, drawn), _without_final(without)],
        [
            "## The study's tables, ours beside its figures",
            _unreported(nets),
            *tables_of_study,
            _about_bits(nets),
            *_errata(nets),
        ],
        ["## The runs", _runs(nets)],
        [
            "## The figures as data",
            "`comparison.csv` and `comparison.json` hold every figure of this page, and each "
            "picture is there as PNG and as SVG.",
        ],
    ]
    return [[part for part in section if part] for section in sections]


def _without_final(pictures: Sequence[tuple[str, str]]) -> str:
    if not pictures:
        return ""
    links = ", ".join(markdown.link(markdown.code(name), f"{name}.png") for name, _ in pictures)
    return f"The same without the final net, which would hide differences of the others: {links}."


def recommendation(nets: Sequence[NetRuns], choice: Recommended | None) -> list[str]:
    """The net to take in words, why, and what other margins would choose; or why there is none."""
    why_not = incomparable(nets)
    if why_not:
        return [f"**No net is recommended:** {why_not}"]
    lacking = "\n".join(
        f"- {markdown.code(run)} lacks {what}: {markdown.code(mend)}"
        for run, what, mend in unweighed(nets)
    )
    if choice is None:
        why = "there is nothing to weigh yet" if lacking else "what is said above leaves none"
        return [f"**No net is recommended:** {why}.", lacking]
    paragraphs = [f"**Take {markdown.escape(choice.net.label)}.** {_why(choice)}"]
    error = choosing.standard_error(choice.best)
    if error is not None:
        tested = choice.best.summary.augmented
        images = tested.images if tested else None
        paragraphs.append(
            f"A test of {numbers.count(images)} images tells an accuracy to within "
            f"{100 * error:.2g} points or so (one binomial standard error of the best net): "
            "smaller differences may be chance."
        )
    margins = sorted({*choosing.MARGINS, choice.margin})
    others = [(margin, choosing.choose(nets, margin)) for margin in margins]
    rows = [
        (
            _points(margin),
            markdown.escape(other.net.label),
            tables.cell(other.net, ACCURACY),
            _flops(other.net),
        )
        for margin, other in others
        if other is not None
    ]
    if len({row[1:] for row in rows}) == 1:
        told = [f"Any margin from {_points(margins[0])} to {_points(margins[-1])} chooses it."]
    else:
        header = ("margin below the best", "net", "augmented accuracy", "FLOPs (`study`)")
        told = ["What other margins choose:", markdown.table(header, rows, left=2)]
    return [*paragraphs, *told, *(["Not weighed:", lacking] if lacking else [])]


def unweighed(nets: Sequence[NetRuns]) -> list[tuple[str, str, str]]:
    """Each run that cannot be weighed, what it lacks, and the command that mends it."""
    found = []
    for entry in (entry for net in nets for entry in net.entries):
        missing = [
            stage
            for stage, there in (
                ("evaluate", entry.summary.augmented),
                ("profile", entry.summary.flops),
            )
            if not there
        ]
        if not missing:
            continue
        words = " and ".join({"evaluate": "evaluation", "profile": "profile"}[m] for m in missing)
        mend = (
            _file_command(str(entry.run), entry.record.file)
            if entry.record.file is not None
            else stage_command(entry.run, entry.record, ",".join(missing))
        )
        found.append((str(entry.run), words, mend))
    return found


def _file_command(path: str, file: ExportFile) -> str:
    """The command that evaluates an exported file on the images of the run that it came from."""
    given = [f"--artifact={path}"]
    if file.images:  # else on those that the command finds by itself
        given.append(f"--config.data.path={file.images}")
    return f"rice-jax evaluate {shlex.join(given)}"


def _why(choice: Recommended) -> str:
    net, best = choice.net, choice.best
    accuracy = numbers.percent(net.mean(ACCURACY))
    flops = tables.marked(net, "flops_study", numbers.quantity(net.mean("flops_study"), "FLOPs", 3))
    if net is best:
        return (
            f"It is the best, at {accuracy} of the augmented test images right and {flops} for "
            f"one image, and no net of fewer FLOPs comes within {_points(choice.margin)} of it."
        )
    behind = 100 * ((best.mean(ACCURACY) or 0) - (net.mean(ACCURACY) or 0))
    return (
        f"It has the fewest FLOPs of the {len(choice.within)} nets within "
        f"{_points(choice.margin)} of the "
        f"best augmented accuracy: {accuracy}, {behind:.2f} points below "
        f"{markdown.escape(best.label)} ({numbers.percent(best.mean(ACCURACY))}), at {flops} for "
        f"one image, {_beside(best, net, 'flops_study')}, with "
        f"{_beside(best, net, 'params')} parameters{_latency(best, net)}."
    )


def _flops(net: NetRuns) -> str:
    return tables.marked(net, "flops_study", numbers.short(net.mean("flops_study"), 3))


def _points(margin: float) -> str:
    return f"{100 * margin:g} point{'' if margin == 0.01 else 's'}"


def _beside(best: NetRuns, net: NetRuns, measure: str) -> str:
    """How many of something a net has, beside the best: '3 times fewer'."""
    theirs, own = best.mean(measure), net.mean(measure)
    if not theirs or not own:
        return numbers.MISSING
    fewer, more = numbers.times(theirs / own), numbers.times(own / theirs)
    if fewer == more or "1" in (fewer, more):
        return "about as many"
    return f"{fewer} times fewer" if own < theirs else f"{more} times as many"


def _latency(best: NetRuns, net: NetRuns) -> str:
    if len(choosing.devices([best, net])) != 1:
        return ""
    slow, fast = best.mean("latency_seconds"), net.mean("latency_seconds")
    if not slow or not fast:
        return ""
    return f"; an image takes it {numbers.seconds(fast)} where the other takes \
{numbers.seconds(slow)}"


def _glance(nets: Sequence[NetRuns], front: Front) -> str:
    header = ("net", "accuracy, augmented", "F1", "FLOPs", "parameters", "latency", "front")
    rows = [
        (
            markdown.escape(net.label),
            tables.cell(net, ACCURACY),
            numbers.fraction(net.mean("augmented_f1"), 3),
            _flops(net),
            numbers.short(net.mean("params"), 3),
            numbers.seconds(net.mean("latency_seconds")),
            "yes" if net.label in front.labels else "",
        )
        for net in nets
    ]
    return markdown.table(header, rows)


def _about_spread(nets: Sequence[NetRuns], runs: int) -> str:
    if runs == len(nets):
        return ""
    return (
        "A net with several runs shows their mean ± their sample standard deviation; bars in the "
        "figures are that deviation."
    )


def _about_front(front: Front) -> str:
    names = {
        ACCURACY: "more accurate on augmented images",
        "flops_study": "of fewer FLOPs",
        "latency_seconds": "faster",
    }
    weighed = ", ".join(names[measure] for measure in front.measures)
    text = (
        "'Front': the net is on the Pareto front, where no other net is at least as good in all "
        f"and better in one of these: {weighed}."
    )
    if front.why_no_latency:
        text += f" Latency is left out: {markdown.escape(front.why_no_latency)}."
    return text


def _study_table(nets: Sequence[NetRuns], heading: str, names: Sequence[str]) -> list[str]:
    known = [name for name in names if any(net.mean(name) is not None for net in nets)]
    if not tables.studied(nets, _OF_ITS_TEST):
        known = [name for name in known if name != _OF_ITS_TEST]
    return [f"### {heading}", tables.table(nets, known)] if known else []


def _unreported(nets: Sequence[NetRuns]) -> str:
    """Why some nets have nothing of the study's beside them; '' where all have."""
    labels = [markdown.escape(net.label) for net in nets if not net.summary.reported]
    if not labels:
        return ""
    return (
        f"No figure of the study's stands beside {listed(labels)}: it reports its eight nets "
        "whole, on images of 224 x 224 pixels."
    )


def _about_bits(nets: Sequence[NetRuns]) -> str:
    if all(net.mean("bit_operations") is None for net in nets):
        return ""
    return (
        "A bit operation: a multiply-add counts the bits of its weight times those of its "
        "activation, 1,024 in float32 and 64 in int8. Bytes are of an exported file, of a run "
        "those of its parameters."
    )


def _errata(nets: Sequence[NetRuns]) -> list[str]:
    notes = dict.fromkeys(note for net in nets for note in reported.errata(net.summary))
    if not notes:
        return []
    return ["\n".join(f"- {markdown.escape(note)}" for note in notes)]


def _runs(nets: Sequence[NetRuns]) -> str:
    header = ("net", "folder", "images", "trained on", "tested on", "seed", "epochs", "certificate")
    rows = []
    for net in nets:
        for entry in net.entries:
            data, summary = entry.record.data, entry.summary
            rows.append(
                (
                    markdown.escape(net.label),
                    markdown.code(str(entry.run)),
                    markdown.escape((data and data.name) or numbers.MISSING),
                    numbers.count(entry.record.learns_from),
                    numbers.count(summary.augmented.images if summary.augmented else None),
                    str(summary.seed),
                    numbers.count(summary.epochs or None),
                    _certificate(entry.record.prune),
                )
            )
    columns = len(header) if any(row[-1] for row in rows) else len(header) - 1
    return markdown.table(header[:columns], [row[:columns] for row in rows], left=3)


def _certificate(prune: PruneFile | None) -> str:
    """What pruning proved of the run, in a few words; '' for a run that was not pruned."""
    if prune is None:
        return ""
    certificate = prune.certificate
    if certificate is None or not numbers.present(certificate.max_abs_logit_difference):
        return numbers.MISSING
    proven = "proven for every image" if certificate.proven else "measured"
    relative = certificate.max_relative_logit_difference
    known = numbers.present(relative)
    share = f" ({numbers.at_most(relative)} of the largest)" if known else ""
    return (
        f"logits within {numbers.at_most(certificate.max_abs_logit_difference)}{share} on "
        f"{numbers.count(certificate.images)} images, {proven}"
    )
