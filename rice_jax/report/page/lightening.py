"""The search that a run came out of: what was tried, the front, and why this net was chosen."""

from collections.abc import Mapping, Sequence
from typing import Any

from rice_jax.report import figures, markdown, numbers
from rice_jax.report.page.parts import Section, picture
from rice_jax.report.record import PARTS, Record
from rice_jax.run import Run

_UNITS = {
    "flops": "FLOPs, `study`",
    "params": "parameters",
    "bytes": "bytes read and written",
    "latency": "latency",
}


def lightening(run: Run, record: Record) -> Section:
    """The front, and the steps to the chosen net; nothing for a run of no search."""
    told = record.lighten
    if told is None or not told["finished"]:
        return []
    candidates = {candidate["name"]: candidate for candidate in told["candidates"]}
    parts: Section = ["## Lightening", _opening(told, candidates), "### The front"]
    parts += [
        "Nets that no other beats in cost and accuracy. Test images were looked at for these "
        "alone, and not for those far below what was wanted.",
        _front(told, candidates),
    ]
    if run.has(figures.SEARCHED):
        parts.append(picture("Accuracy and cost of all that was tried", figures.SEARCHED))
    return [*parts, "### What was taken away", _path(told, candidates)]


def _opening(told: Mapping[str, Any], candidates: Mapping[str, Any]) -> str:
    request, measure = told["request"], told["request"]["measure"]
    whole, chosen = candidates[""], candidates[told["chosen"]]
    left = chosen["costs"][measure] / whole["costs"][measure]
    return (
        f"Made out of {markdown.code(str(request['parent']))}, which has "
        f"{numbers.percent(whole['accuracy'])} of {told['images']['validation']:,} augmented "
        f"validation images right. Wanted were {numbers.percent(told['floor'])} or more; of "
        f"{len(candidates) - 1} nets tried, each trained on {told['images']['train']:,} images an "
        f"epoch, this is the one with the least {_UNITS[measure]} that has them: "
        f"{numbers.percent(chosen['accuracy'])} with {numbers.percent(left, 1)} of the cost."
    )


def _front(told: Mapping[str, Any], candidates: Mapping[str, Any]) -> str:
    order = list(candidates)
    measure = told["request"]["measure"]
    units = list(dict.fromkeys([measure, "flops", "params"]))
    rows = [
        (
            str(order.index(name)),
            _named(name) + (" (chosen)" if name == told["chosen"] else ""),
            *(_amount(candidates[name]["costs"], unit) for unit in units),
            numbers.percent(candidates[name]["accuracy"]),
            *(numbers.percent(told["test"].get(name, {}).get(part)) for part in PARTS),
        )
        for name in told["front"]
    ]
    heading = ("number", "steps", *(_UNITS[unit] for unit in units), "augmented validation")
    return markdown.table((*heading, *(f"{part} test" for part in PARTS)), rows, left=2)


def _path(told: Mapping[str, Any], candidates: Mapping[str, Any]) -> str:
    """A row for each step from the whole net to the chosen one."""
    measure, steps = told["request"]["measure"], []
    name = told["chosen"]
    while name:
        steps.append(candidates[name])
        name = candidates[name]["out_of"]
    rows = [
        (
            str(number),
            step["step"],
            _removed(step["removed"]),
            step["why"],
            _amount(step["costs"], measure),
            numbers.percent(step["accuracy"]),
        )
        for number, step in enumerate(reversed(steps), 1)
    ]
    heading = ("", "step", "taken away", "why", _UNITS[measure], "augmented validation")
    return markdown.table(heading, rows, left=4)


def _named(name: str) -> str:
    return markdown.code(name) if name else "the run itself"


def _amount(costs: Mapping[str, float], measure: str) -> str:
    amount = costs[measure]
    return numbers.seconds(amount) if measure == "latency" else numbers.count(amount)


def _removed(removed: Mapping[str, Any]) -> str:
    """What a step took, in a few words."""
    told: list[str] = []
    for path, number in (removed.get("filters") or {}).items():
        told.append(f"{number} of {markdown.code(path)}")
    if "layer" in removed:
        told.append(f"layer {markdown.code(removed['layer'])}")
    for name in ("resolution", "stem_stride"):
        if name in removed:
            told.append(f"{name.replace('_', ' ')} {_change(removed[name])}")
    return ", ".join(told) or "nothing: more training"


def _change(pair: Sequence[int]) -> str:
    return f"{pair[0]} to {pair[1]}"
