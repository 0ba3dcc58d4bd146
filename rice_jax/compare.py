"""Compare runs: tables, figures, the Pareto front, and which net to take.

  python -m rice_jax.compare --workdirs=runs/final,runs/cnn_light --out=comparison

Runs of one net that differ in their seed alone are one row, mean and spread. Only the JSON and
the history.csv of a run are read.
"""

from collections.abc import Sequence

from absl import flags

from rice_jax import cli
from rice_jax.errors import UserError
from rice_jax.report import comparison

_WORKDIRS = flags.DEFINE_list("workdirs", [], "Folders of the runs, separated by commas.")
_OUT = flags.DEFINE_string("out", None, "Folder to write the comparison to.")
_MARGIN = flags.DEFINE_float(
    "margin", 0.01, "How far below the best augmented accuracy the recommended net may be."
)


def main(argv: Sequence[str]) -> None:
    """Compare the runs that the flags name."""
    if argv[1:]:
        raise UserError(f"{argv[1]!r} is no flag: give --workdirs=DIR,DIR2 with commas between")
    out = _OUT.value
    if not out:
        raise UserError("--out is missing: give the folder to write the comparison to")
    chosen = comparison.compare(_WORKDIRS.value, out, margin=_MARGIN.value)
    print(f"Take {chosen}." if chosen else "No run has both an evaluation and a whole profile yet.")
    print(f"The comparison is in {out}: read report.md or report.html there.")


if __name__ == "__main__":
    cli.run(main)
