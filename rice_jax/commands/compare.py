"""rice-jax compare: several runs side by side."""

from collections.abc import Callable
from typing import Any

import click

from rice_jax.bounds import Paths, Real, Text
from rice_jax.commands.options import Command, option
from rice_jax.errors import UserError


@click.command(cls=Command)
@option("--workdirs", Paths(Text("a folder"), 1), "Folders of the runs", completion="dir")
@option("--artifacts", Paths(Text("a file"), 1), "Exported files, as rows", completion="file")
@option("--out", Text("a folder"), "Where the comparison goes", completion="dir")
@option(
    "--margin",
    Real(0, 1, below=True),
    "How far below the best augmented accuracy the recommended net may be",
    0.01,
)
def compare(
    workdirs: tuple[str, ...] | None,
    artifacts: tuple[str, ...] | None,
    out: str | None,
    margin: float,
) -> Callable[[], Any]:
    """Compare runs, and tell which net to take.

    \b
    rice-jax compare --workdirs=runs/final,runs/cnn_light --out=comparison

    Leaves tables, figures and the Pareto front. Runs of one net that differ in their seed alone are
    one row, mean and spread. Only the JSON and the history.csv of a run are read, of an exported
    file the JSON beside it, which `rice-jax evaluate` completes.
    """
    if not workdirs and not artifacts:
        raise UserError("--workdirs is missing: give the folders of runs, with commas between")
    if not out:
        raise UserError("--out is missing: give the folder to write the comparison to")

    def job() -> None:
        from rice_jax.report import comparison

        chosen = comparison.compare(workdirs or (), out, files=artifacts or (), margin=margin)
        none = "No net is recommended: the page says why."
        print(f"Take {chosen}." if chosen else none)
        print(f"The comparison is in {out}: read report.md or report.html there.")

    return job
