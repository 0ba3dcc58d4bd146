"""rice-jax zoo: the trained nets that come with the package."""

import click

from rice_jax import zoo as catalogue
from rice_jax.commands.options import Command


@click.command(cls=Command)
def zoo() -> None:
    """Print the trained nets that come with the package.

    `rice-jax train` takes one as --config.model.weights=zoo:NAME.
    """
    table = catalogue.rows(map(catalogue.card, catalogue.names()))
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        cells = zip(row, widths, strict=True)
        click.echo("  ".join(cell.ljust(width) for cell, width in cells).rstrip())
