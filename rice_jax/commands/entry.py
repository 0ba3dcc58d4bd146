"""Where a command line comes in, as a process of its own."""

from collections.abc import Sequence
from typing import NoReturn

from rice_jax import launch

_COMPUTE = ("evaluate", "export", "predict", "prune", "reproduce", "train")
"""Commands that are faster with large pages."""


def enter(arguments: Sequence[str]) -> NoReturn:
    """Do what a command line says and end the process, which may first begin again."""
    launch.open_streams()
    if arguments and arguments[0] in _COMPUTE and "--help" not in arguments:
        launch.begin_again()
    from rice_jax.commands.app import call

    call(arguments)
