"""Print the trained nets that come with the package.

  python -m rice_jax.zoo

Any command takes one as --config.model.weights=zoo:NAME.
"""

from collections.abc import Sequence

from rice_jax import cli, zoo
from rice_jax.errors import UserError


def main(argv: Sequence[str]) -> None:
    """Print the table."""
    if argv[1:]:
        raise UserError(f"{argv[1]!r} is not understood: there is nothing to choose")
    table = zoo.rows(map(zoo.card, zoo.names()))
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)))


if __name__ == "__main__":
    cli.run(main)
