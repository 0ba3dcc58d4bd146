"""rice-jax zoo: the trained nets that come with the package."""

import shutil
import sys

import click

from rice_jax import zoo as catalogue
from rice_jax.commands.options import Command


@click.command(cls=Command)
def zoo() -> None:
    """Print the trained nets that come with the package.

    `rice-jax train` takes one as --config.model.weights=zoo:NAME.
    """
    table = catalogue.rows(map(catalogue.card, catalogue.names()))
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for line in catalogue.lines(table, width):
        click.echo(line)
