"""The search that a run came out of: what was tried, the front, and why this net was chosen."""

from collections.abc import Mapping

from rice_jax.records import Candidate, LightenFile, OnTest, Taken
from rice_jax.report import chance, figures, markdown, numbers
from rice_jax.report.page.blocks import Section, picture
from rice_jax.report.record import PARTS, Record
from rice_jax.run import Run

_UNITS = {
    "flops": "FLOPs, `study`",
    "params": "parameters",
    "bytes": "bytes read and written",
    "latency": "latency",
}
_WHEN = (
    " Latencies were measured in turn, the whole net's too, when all had learnt; of each the least "
    "is told."
)


Candidates = Mapping[str, Candidate]
"""By name."""


def lightening(run: Run, record: Record) -> Section:
    """The front, and the steps to the chosen net; nothing for a run of no search."""
    told = record.lighten
    if told is None or not told.finished or told.chosen is None:
        return []
    candidates = {candidate.name: candidate for candidate in told.candidates}
    opening = [_opening(told, candidates), *_by_chance(told, candidates)]
    parts: Section = ["## Lightening", *opening, "### The front"]
    parts += [
        "Nets that no other beats in cost and accuracy. Test images were looked at for these "
        "alone, and not for those far below what was wanted.",
        _front(told, candidates),
    ]
    if run.has(figures.SEARCHED):
        parts.append(picture("Accuracy and cost of all that was tried", figures.SEARCHED))
    return [*parts, "### What was taken away", _path(told, candidates)]


def _opening(told: LightenFile, candidates: Candidates) -> str:
    measure = told.request.measure
    whole, chosen = candidates[""], candidates[told.chosen or ""]
    left = chosen.costs[measure] / whole.costs[measure]
    return (
        f"Made out of {markdown.code(told.request.parent)}, which has "
        f"{numbers.percent(whole.accuracy)} of {told.images.validation:,} augmented "
        f"validation images right. Wanted were {numbers.percent(told.floor)} or more; of "
        f"{numbers.counted(len(candidates) - 1, 'net')} tried, trained on "
        f"{told.images.train:,} images an epoch, this is the one with the least "
        f"{_UNITS[measure]} that has them: "
        f"{numbers.percent(chosen.accuracy)} with {numbers.percent(left, 1)} of the cost."
        f"{_WHEN if measure == 'latency' else ''}"
    )


def _by_chance(told: LightenFile, candidates: Candidates) -> list[str]:
    """What to say where the images tell less than what was asked of them."""
    images, whole = told.images.validation, candidates[""].accuracy
    error = chance.standard_error(whole, images) if images else 0.0
    if error <= abs(whole - told.floor):
        return []
    return [
        f"{numbers.count(images)} images tell an accuracy to within {100 * error:.2g} points or so "
        "(one binomial standard error), which is more than the margin: which of two near nets is "
        "the better one may be chance."
    ]


def _front(told: LightenFile, candidates: Candidates) -> str:
    order = {name: number for number, name in enumerate(candidates)}
    measure = told.request.measure
    units = list(dict.fromkeys([measure, "flops", "params"]))
    rows = [
        (
            str(order[name]),
            _named(name) + (" (chosen)" if name == told.chosen else ""),
            *(_amount(candidates[name], unit) for unit in units),
            numbers.percent(candidates[name].accuracy),
            *map(numbers.percent, _on_test(told, name)),
        )
        for name in told.front
    ]
    heading = ("number", "steps", *(_UNITS[unit] for unit in units), "augmented validation")
    return markdown.table((*heading, *(f"{part} test" for part in PARTS)), rows, left=2)


def _on_test(told: LightenFile, name: str) -> tuple[float | None, float | None]:
    found = (told.test or {}).get(name, OnTest())
    return found.clean, found.augmented


def _path(told: LightenFile, candidates: Candidates) -> str:
    """A row for each step from the whole net to the chosen one."""
    measure, name = told.request.measure, told.chosen
    steps: list[Candidate] = []
    while name:
        steps.append(candidates[name])
        name = candidates[name].out_of
    rows = [
        (
            str(number),
            str(step.step),
            _removed(step.removed),
            step.why,
            _amount(step, measure),
            numbers.percent(step.accuracy),
        )
        for number, step in enumerate(reversed(steps), 1)
    ]
    heading = ("", "step", "taken away", "why", _UNITS[measure], "augmented validation")
    return markdown.table(heading, rows, left=4)


def _named(name: str) -> str:
    return markdown.code(name) if name else "the run itself"


def _amount(candidate: Candidate, measure: str) -> str:
    return numbers.cost(measure, candidate.costs[measure], complete=candidate.flops_complete)


def _removed(taken: Taken) -> str:
    """What a step took, in a few words."""
    told = [f"{number} of {markdown.code(path)}" for path, number in (taken.filters or {}).items()]
    if taken.layer is not None:
        told.append(f"layer {markdown.code(taken.layer)}")
    if taken.resolution:
        told.append("resolution {} to {}".format(*taken.resolution))
    if taken.stem_stride:
        told.append("stem stride {} to {}".format(*taken.stem_stride))
    return ", ".join(told) or "nothing: more training"
