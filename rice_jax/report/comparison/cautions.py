"""What a reader must know before comparing nets."""

from collections.abc import Iterable, Iterator, Sequence

from rice_jax.report import markdown, numbers
from rice_jax.report.comparison.compared import Compared, NetRuns, listed


def cautions(nets: Sequence[NetRuns]) -> list[str]:
    """What a reader must know before comparing: each a quoted paragraph of Markdown.

    Images that are drawn or not the same, FLOPs that lack something, other tests or test images,
    nets that were tested on images that they learned from, nets that answer no better than chance,
    and nets whose epochs ran out before the recipe would have stopped them.
    """
    entries = [entry for net in nets for entry in net.entries]
    return [*_of_images(entries), *_of_flops(nets), *_of_tests(nets, entries), *_of_learning(nets)]


def _of_images(entries: Sequence[Compared]) -> Iterator[str]:
    if any(entry.record.synthetic for entry in entries):
        yield (
            "> **Synthetic data.** Images of at least one run are drawn grains, not photographs: "
            "its accuracies say nothing about rice."
        )
    if _of_several_sets(entries):
        yield (
            "> **Not the same images.** The runs did not learn from the same data set (see 'The "
            "runs'): differences between them may be the data's."
        )


def _of_flops(nets: Sequence[NetRuns]) -> Iterator[str]:
    if lacking := [net.label for net in nets if not net.complete]:
        yield (
            f"> **FLOPs that lack something:** {_listed(lacking)}. The profile names operations "
            "that can't be counted: what has ≥ or ≤ before it errs to that side. These nets are "
            "left out of the choice and of the front."
        )


def _of_tests(nets: Sequence[NetRuns], entries: Sequence[Compared]) -> Iterator[str]:
    if _of_several_tests(entries):
        yield "> **Not the same test.** The runs were evaluated on different images."
    elif splits := _of_several_splits(nets):
        yield (
            "> **Not the same test images.** The splits were drawn by different seeds "
            f"(`data.split_seed`, by default the run's seed): {splits}. Small differences may be "
            "the images'."
        )
    folders = dict.fromkeys(filter(None, (entry.record.tested_elsewhere for entry in entries)))
    if folders:
        yield (
            f"> **Not the test split.** Evaluated on {', '.join(map(markdown.code, folders))}: "
            "accuracies of the study's, which are of other images, do not stand beside."
        )
    if seen := [_with_learned(net) for net in nets if any(map(_learned, net.entries))]:
        yield (
            f"> **Images that it has learned from:** {_listed(seen)}. So many of those that it was "
            "evaluated on (in brackets) are, byte for byte, its training images."
        )


def _of_learning(nets: Sequence[NetRuns]) -> Iterator[str]:
    by_chance = [net for net in nets if net.at_chance]
    if by_chance:
        yield (
            f"> **Not learned:** {_listed(net.label for net in by_chance)}. No better than chance "
            f"on the clean test images{_hope(by_chance)}. Such nets are not chosen."
        )
    others = [net for net in nets if net not in by_chance]
    unfinished = [net for net in others if any(map(_still_learning, net.entries))]
    if unfinished:
        yield (
            f"> **Still learning:** {_listed(map(_with_epochs, unfinished))}. Their epochs (in "
            "brackets) ran out before the recipe would have stopped them: more may raise the "
            "accuracy."
        )


def incomparable(nets: Sequence[NetRuns]) -> str:
    """Why no net can be told to be better than another; '' where it can."""
    entries = [entry for net in nets for entry in net.entries]
    if all(entry.record.synthetic for entry in entries):
        return (
            "the images are drawn grains, on which no net shows what it is worth. Compare runs on "
            "photographs: `--config.data.path=sample`, or images of your own."
        )
    if _of_several_sets(entries):
        return (
            "the runs did not learn from the same images, so that what is better may be the "
            "images'. Compare those of one data set (see 'The runs')."
        )
    if _of_several_tests(entries):
        return (
            "the runs were evaluated on different images. Evaluate them on the same ones: "
            f"{' and '.join(_evaluating(entries))} with one `--config.eval.path` for all."
        )
    if all(net.at_chance for net in nets):
        return "none of them is better than chance on the clean test images."
    return ""


def _evaluating(entries: Sequence[Compared]) -> list[str]:
    """By what runs are evaluated, and exported files."""
    files = [entry.record.file is not None for entry in entries]
    told = (
        (not all(files), "`rice-jax train --stages=evaluate`"),
        (any(files), "`rice-jax evaluate`"),
    )
    return [command for asked, command in told if asked]


def _of_several_sets(entries: Sequence[Compared]) -> bool:
    known = {entry.record.data and entry.record.data.fingerprint for entry in entries} - {None, ""}
    return len(known) > 1


def _of_several_tests(entries: Sequence[Compared]) -> bool:
    images = {entry.summary.augmented and entry.summary.augmented.images for entry in entries}
    tests = {entry.test for entry in entries}
    return len(images - {None}) > 1 or len(tests - {None}) > 1


def _of_several_splits(nets: Sequence[NetRuns]) -> str:
    """By which seeds the nets' test images were drawn; '' where by the same for all."""
    seeds = {
        net.label: {each for entry in net.entries if (each := entry.record.split_seed) is not None}
        for net in nets
    }
    known = {label: sorted(found) for label, found in seeds.items() if found}
    if len(set(map(tuple, known.values()))) < 2:
        return ""
    return _listed(f"{label} by {' and '.join(map(str, found))}" for label, found in known.items())


def _learned(entry: Compared) -> int:
    """How many of the images that it was evaluated on it has learned from, as far as is known."""
    evaluation = entry.record.evaluation
    return (evaluation.in_training if evaluation else None) or 0


def _hope(by_chance: Sequence[NetRuns]) -> str:
    """What a training that came to nothing says; '' where weights were taken, cut or rounded."""
    entries = [entry for net in by_chance for entry in net.entries]
    trained = [each for each in entries if each.summary.epochs and not each.record.prune]
    if not trained:
        return ""
    told = ". The run's own report tells by its dead filters where its signal ends"
    inspected = any(each.record.dead_filters for each in trained)
    return (
        f", which says nothing of a net that was trained: another seed may learn"
        f"{told if inspected else ''}"
    )


def _with_learned(net: NetRuns) -> str:
    return f"{net.label} ({numbers.count(max(map(_learned, net.entries)))})"


def _still_learning(entry: Compared) -> bool:
    """Whether it had fewer epochs than were planned, or than its recipe waits for a better one."""
    recipe, done = entry.record.recipe, entry.summary.epochs
    if not done:  # it took its weights as they are
        return False
    if recipe.get("schedule") == "quick":
        return bool(done < sum((recipe.get("quick") or {}).get("epochs", ())))
    best, patience = entry.summary.best_epoch, recipe.get("stop_patience")
    return bool(best and patience and done - best < patience)


def _with_epochs(net: NetRuns) -> str:
    epochs = sorted({entry.summary.epochs for entry in net.entries})
    return f"{net.label} ({', '.join(map(str, epochs))})"


def _listed(names: Iterable[str]) -> str:
    return listed(map(markdown.escape, names))
