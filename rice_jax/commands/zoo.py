"""rice-jax zoo: the trained nets that come with the package."""

from collections.abc import Callable
from typing import Any

import click

from rice_jax.commands.options import Command


@click.command(cls=Command)
def zoo() -> Callable[[], Any]:
    """Print the trained nets that come with the package.

    `rice-jax train` takes one as --config.model.weights=zoo:NAME.
    """

    def job() -> None:
        from rice_jax import zoo

        table = zoo.rows(map(zoo.card, zoo.names()))
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        for row in table:
            cells = zip(row, widths, strict=True)
            print("  ".join(cell.ljust(width) for cell, width in cells).rstrip())

    return job
