"""The comparison as rows: of the page's tables, of comparison.csv and comparison.json."""

import csv
import io
from collections.abc import Sequence
from typing import Any

from rice_jax.records import ComparisonFile, FrontTold, Recommendation
from rice_jax.report import markdown, numbers
from rice_jax.report.comparison.choice import Front, Recommended
from rice_jax.report.comparison.compared import NetRuns
from rice_jax.report.comparison.measures import MEASURES


def cell(net: NetRuns, measure: str) -> str:
    """A net's figure as text: '95.33 %', or over several runs '95.33 % ± 0.41 %'."""
    spread, form = net.spread(measure), MEASURES[measure].form
    if spread is None:
        return numbers.MISSING
    if spread.deviation is None or len(set(spread.values)) == 1:
        return marked(net, measure, form(spread.mean))
    return marked(net, measure, f"{form(spread.mean)} ± {form(spread.deviation)}")


def marked(net: NetRuns, measure: str, text: str) -> str:
    """A figure with '≥' or '≤' before it where it hangs on FLOPs that lack something."""
    sign = MEASURES[measure].incomplete
    return text if net.complete or not sign or text == numbers.MISSING else f"{sign} {text}"


def table(nets: Sequence[NetRuns], measures: Sequence[str]) -> str:
    """A Markdown table of `measures`, the study's figure beside each that it reports."""
    header = ["net"]
    for name in measures:
        header.append(MEASURES[name].heading)
        if studied(nets, name):
            header.append("the study")
    rows = []
    for net in nets:
        row = [markdown.escape(net.label)]
        for name in measures:
            row.append(cell(net, name))
            if studied(nets, name):
                row.append(MEASURES[name].study_cell(net.summary))
        rows.append(row)
    return markdown.table(header, rows)


def studied(nets: Sequence[NetRuns], measure: str) -> bool:
    """Whether the study has a figure for any of these nets."""
    return any(MEASURES[measure].reported(net.summary) is not None for net in nets)


def rows(nets: Sequence[NetRuns], front: Front) -> list[dict[str, Any]]:
    """One flat row for each net: mean, standard deviation, and the study's figure by measure."""
    return [_row(net, front) for net in nets]


def _row(net: NetRuns, front: Front) -> dict[str, Any]:
    row: dict[str, Any] = {
        "net": net.label,
        "model": net.entries[0].record.model,
        "pruned": net.entries[0].record.prune is not None,
        "synthetic": any(entry.record.synthetic for entry in net.entries),
        "runs": len(net.entries),
        "seeds": " ".join(str(entry.summary.seed) for entry in net.entries),
        "pareto_front": net.label in front.labels,
        "flops_complete": net.complete,
    }
    for name, measure in MEASURES.items():
        spread = net.spread(name)
        row[name] = spread and spread.mean
        row[f"{name}_std"] = spread and spread.deviation
        if measure.field:
            row[f"{name}_study"] = measure.reported(net.summary)
            row[f"{name}_study_correct"] = measure.correct(net.summary)
    return row


def to_csv(content: Sequence[dict[str, Any]]) -> str:
    """The rows as comma-separated values; an empty cell for what there is no figure of."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(content[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(content)
    return buffer.getvalue()


def to_record(nets: Sequence[NetRuns], front: Front, choice: Recommended | None) -> ComparisonFile:
    """The rows with each run's own figures, the front, the recommendation."""
    content = []
    for net, row in zip(nets, rows(nets, front), strict=True):
        runs = [
            {
                "workdir": str(entry.run),
                "seed": entry.summary.seed,
                **{name: measure.read(entry.summary) for name, measure in MEASURES.items()},
            }
            for entry in net.entries
        ]
        content.append(row | {"runs": runs})
    return ComparisonFile(
        nets=content,
        pareto_front=FrontTold(
            measures=list(front.measures),
            nets=list(front.labels),
            why_no_latency=front.why_no_latency or None,
        ),
        recommendation=_recommended(choice),
    )


def _recommended(choice: Recommended | None) -> Recommendation | None:
    if choice is None:
        return None
    return Recommendation(
        net=choice.net.label,
        best=choice.best.label,
        margin=choice.margin,
        within=[net.label for net in choice.within],
    )
