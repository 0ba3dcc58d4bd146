"""What was removed from a net, what that cost, and how sure that is."""

from collections.abc import Mapping, Sequence

from rice_jax.records import (
    Left,
    Mean,
    PruneFile,
    VariantsFile,
)
from rice_jax.report import figures, markdown, numbers
from rice_jax.report.page.blocks import Section, picture
from rice_jax.report.record import Record
from rice_jax.run import Run

_UNITS = {"params": "parameters", "filters": "filters"}
_WAYS = {
    "scratch": "this shape, from random weights",
    "taylor": "filters that the loss misses least (`taylor`)",
    "l1": "filters with the least sum of weights (`l1`)",
    "l2": "the shortest filters (`l2`)",
    "batch_norm": "filters with the least scale after them (`batch_norm`)",
    "geometric_median": "filters that others stand in for (`geometric_median`)",
    "apoz": "filters that are zero most often (`apoz`)",
    "random": "filters chosen at random",
    "global": "all filters ranked together (`global`)",
    "uniform": "the same share of each layer (`uniform`)",
    "isomorphic": "the same share of layers of one shape (`isomorphic`)",
}
_TOTALS = (("study", "FLOPs, `study`"), ("params", "parameters"), ("filters", "filters"))


def pruning(run: Run, record: Record) -> Section:
    """Before and after, the certificate, and which filters went; nothing for an unpruned run."""
    if record.prune is None:
        return []
    account = record.prune
    parent = markdown.code(account.request.parent)
    parts: Section = ["## Pruning", f"Made out of {parent}.", _totals(account)]
    parts += [
        _left_out(account),
        _budgets(account),
        _certificate(account, trained=bool(record.history)),
        _removed(account),
        _renamed(account.renamed or {}),
        _listed(
            "Operations that bound nothing, so that nothing is proven behind", account.unbounded
        ),
        _listed("Layers that had to stay whole, and why", account.kept_whole),
        _listed(
            "Filters that never change but were not removed for that, and why", account.unchanging
        ),
    ]
    parts += [_variants(record.variants)] if record.variants else []
    pictures = [("Filters before and after, by layer", "filters.png")]
    pictures += [
        (f"{path} before and after", figures.side_by_side_file(path)) for path in account.kept
    ]
    parts += [picture(text, file) for text, file in pictures if run.has(file)]
    return [part for part in parts if part]


def _totals(account: PruneFile) -> str:
    before, after = account.before, account.after
    rows = [
        (
            label,
            *(_count(totals, name) for totals in (before, after)),
            numbers.percent(after.of(name) / before.of(name) if before.of(name) else None),
        )
        for name, label in _TOTALS
    ]
    return markdown.table(("", "before", "after", "left"), rows)


def _count(totals: Left, name: str) -> str:
    lacks = name == "study" and totals.uncounted
    return numbers.at_least(numbers.count(totals.of(name)), not lacks)


def _left_out(account: PruneFile) -> str:
    """Blocks that are gone as a whole, by their old names, and what no longer fits, by its new."""
    gone, anew = (
        ", ".join(map(markdown.code, paths or ()))
        for paths in (account.dropped_layers, account.started_anew)
    )
    told = [f"Left out as a whole: {gone}."] if gone else []
    if anew:
        told.append(
            f"What reads other channels for that began with random weights: {anew} of this net."
        )
    return " ".join(told)


def _budgets(account: PruneFile) -> str:
    sentences = [
        f"The budget of {numbers.count(budget.asked)} "
        f"{_UNITS.get(measure, f'FLOPs (`{measure}`)')} was {budget.told}."
        for measure, budget in account.budgets.items()
    ]
    return " ".join(sentences)


def _certificate(account: PruneFile, *, trained: bool) -> str:
    certificate, steps = account.certificate, account.request.steps
    if certificate is None:
        return ""
    when = " before training went on" if trained else ""
    if steps > 1:
        when = f" after the last of {steps} cuts, between which it trained,"
    where = (
        "for every image there can be"
        if certificate.proven
        else "on these images, and is not proven for others"
    )
    if certificate.departure:
        where += f", for {markdown.escape(certificate.departure)}"
    most, relative, changed = (
        certificate.max_abs_logit_difference,
        certificate.max_relative_logit_difference,
        certificate.changed_predictions,
    )
    known = numbers.present(relative)
    share = f" ({numbers.at_most(relative)} of the largest logit)" if known else ""
    return (
        f"On {numbers.counted(certificate.images, 'image')} no logit of the net"
        f"{when} differs by more than "
        f"{numbers.at_most(most)}{share} from the whole net's, and "
        f"{numbers.counted(changed, 'prediction')} "
        f"{'changes' if changed == 1 else 'change'}. This holds {where}."
    )


def _renamed(renamed: Mapping[str, str]) -> str:
    told = [f"{markdown.code(old)} is {markdown.code(new)}" for old, new in renamed.items()]
    whole = "The table, the pictures and what is left out have the whole net's names; elsewhere"
    return f"{whole} {', '.join(told)}." if told else ""


def _listed(heading: str, entries: Sequence[str]) -> str:
    lines = [f"- {markdown.escape(each)}" for each in entries]
    return "\n".join([f"{heading}:\n", *lines]) if lines else ""


def _variants(variants: VariantsFile) -> str:
    rows = [
        (
            f"this one ({markdown.code(name)})"
            if number == 0
            else _WAYS.get(name, markdown.code(name)),
            numbers.at_least(
                " to ".join(map(numbers.count, dict.fromkeys(row.flops))), row.flops_complete
            ),
            str(len(row.runs)),
            *map(_accuracy, (row.clean, row.augmented)),
            *_speed(row.latency, variants.whole_latency_seconds),
        )
        for number, (name, row) in enumerate(variants.variants.items())
    ]
    heading = ("way", "FLOPs, `study`", "seeds", "accuracy, clean", "accuracy, augmented")
    return (
        "### Other ways to as light a net\n\nEach trained for as many epochs "
        f"({variants.epochs}); of several seeds the mean and the standard deviation. Latencies, "
        "the whole net's too, were measured one after the other when all were trained.\n\n"
        f"{markdown.table((*heading, 'latency', 'speed-up'), rows, left=1)}"
    )


def _speed(latency: Mean | None, whole: float | None) -> tuple[str, str]:
    """Latency, and how many times as fast as the whole net that is."""
    mean = latency.mean if latency else None
    ratio = numbers.decimal(whole / mean, 2) if mean and whole else numbers.MISSING
    return numbers.seconds(mean), ratio


def _accuracy(row: Mean) -> str:
    spread = "" if row.spread is None else f" ± {numbers.percent(row.spread)}"
    return numbers.percent(row.mean) + spread


def _removed(account: PruneFile) -> str:
    rows = [
        (markdown.code(path), str(len(filters)), ", ".join(map(str, filters)))
        for path, filters in account.removed.items()
    ]
    if not rows:
        return "Nothing was removed."
    return markdown.table(("layer", "removed", "their numbers in the whole net"), rows, left=1)
