"""rice-jax zoo: the trained nets that come with the package."""

import shutil
import sys

import click

from rice_jax import zoo as catalogue
from rice_jax.commands.options import Command


@click.command(cls=Command)
def zoo() -> None:
    """Print the trained nets that come with the package.

    \b
    rice-jax train --config=zoo:NAME --stages=evaluate    that net, as it is
    rice-jax train --config=zoo:NAME                      trained further, on your images too
    --config.model.weights=zoo:NAME                       its weights alone, for a net of its widths
    """
    table = catalogue.rows(map(catalogue.card, catalogue.names()))
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for line in catalogue.lines(table, width):
        click.echo(line)
