"""From the folders of runs to the folder of their comparison."""

import sys
from collections.abc import Sequence

from rice_jax import records
from rice_jax.errors import UserError
from rice_jax.report import style
from rice_jax.report.comparison import choice, compared, tables
from rice_jax.report.comparison.cautions import incomparable
from rice_jax.report.comparison.figures import WITHOUT_FINAL, pictures
from rice_jax.report.comparison.page import FIGURES, page, unweighed
from rice_jax.report.html import rendering
from rice_jax.report.page import to_markdown
from rice_jax.run import Run, encoded

_PAGES, _TABLE = ("report.md", "report.html"), "comparison.csv"
_KINDS = ("svg", "png")


def compare(
    workdirs: Sequence[str], out: str, *, files: Sequence[str] = (), margin: float = 0.01
) -> str:
    """Write report.md, report.html, comparison.csv, comparison.json, and figures as PNG and SVG.

    Args:
        workdirs: folders of runs; several seeds of a net become one row.
        out: folder to write to, made if need be.
        files: exported files, each a row by the JSON beside it.
        margin: how far below the best augmented accuracy the recommended net may be, as a share
            of images.

    Returns:
        The label of the recommended net; '' where the runs cannot be compared, or none has both an
        evaluation and a whole profile.

    Raises:
        UserError: a folder that is no run's or is given twice, a margin outside [0, 1), or an
            `out` that is a run's, has another's report, or cannot be written.
    """
    if not 0 <= margin < 1:
        raise UserError(f"--margin={margin} is not in [0, 1): give 0.01 for one point of a hundred")
    require_place(workdirs, out)
    target = Run(out)
    found = compared.read(workdirs, files)
    synthetic = any(entry.record.synthetic for net in found for entry in net.entries)
    front = choice.pareto_front(found)
    chosen = None if incomparable(found) else choice.choose(found, margin)
    figures = list(pictures(found, synthetic=synthetic))
    _refuse_strangers(target, [f"{figure.name}.{kind}" for figure in figures for kind in _KINDS])
    told, file = tables.to_record(found, front, chosen), records.ComparisonFile.FILE
    # First, since all else here is known for a comparison's by it, whenever a kill comes.
    contents = {file: target.as_json(file, records.plain(told))}
    captions, drawn = [], []
    for picture in figures:
        svg, png = style.svg(picture.figure), style.png(picture.figure)
        contents |= {f"{picture.name}.svg": svg, f"{picture.name}.png": png}
        captions.append((picture.name, picture.caption))
        if not picture.name.endswith(WITHOUT_FINAL):
            drawn.append(rendering.picture(picture.caption, min(svg, png, key=len)))
    sections = page(found, front, chosen, captions)
    blocks = {FIGURES: rendering.render("figures.html", pictures=drawn)}
    title = to_markdown(sections).partition("\n")[0].removeprefix("# ")
    texts = {
        _TABLE: tables.to_csv(tables.rows(found, front)),
        "report.md": to_markdown(sections),
        "report.html": rendering.page(title, sections, blocks),
    }
    target.create()
    target.write_together(contents | {name: encoded(text) for name, text in texts.items()})
    for run, lacking, mend in unweighed(found):
        print(f"{run} is not weighed, it lacks {lacking}: {mend}", file=sys.stderr)
    return chosen.net.label if chosen else ""


def require_place(workdirs: Sequence[str], out: str) -> None:
    """UserError where `compare` of these would not write in `out`; nothing is made."""
    target = Run(out)
    if any(map(target.is_at, workdirs)):
        raise UserError(f"--out={out} is one of the runs: give another folder")
    _refuse_strangers(target, (*_PAGES, _TABLE))
    target.require_place()


def _refuse_strangers(target: Run, names: Sequence[str]) -> None:
    """UserError for a folder with files of these names that are no comparison's."""
    if target.has(records.ConfigFile.FILE):
        raise UserError(f"--out={target} is a run's folder: give another")
    for name in () if target.has(records.ComparisonFile.FILE) else names:
        if target.has(name):
            raise UserError(
                f"--out={target} has a {name} that no comparison made: give another folder"
            )
