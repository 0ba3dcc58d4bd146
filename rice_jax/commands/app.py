"""The commands by name."""

from collections.abc import Sequence
from typing import Any, NoReturn

import click

from rice_jax.bounds import nearest
from rice_jax.commands import completion, process  # noqa: F401  (completion becomes known)
from rice_jax.commands.compare import compare
from rice_jax.commands.evaluate import evaluate
from rice_jax.commands.export import export
from rice_jax.commands.lighten import lighten
from rice_jax.commands.options import Command
from rice_jax.commands.predict import predict
from rice_jax.commands.prune import prune
from rice_jax.commands.reproduce import reproduce
from rice_jax.commands.show import show
from rice_jax.commands.train import STAGES, train
from rice_jax.commands.zoo import zoo
from rice_jax.errors import UserError

COMMANDS = (train, prune, lighten, compare, predict, show, export, evaluate, reproduce, zoo)
"""In the order in which --help tells them."""


class _Commands(click.Group):
    """The commands, in their own order; one that there is not is told with the nearest."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        first = args[0] if args else ""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            raise UserError(f"{first}: a command comes first, as rice-jax train {first}") from error

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in self.commands and not ctx.resilient_parsing:
            known = ", ".join(self.commands)
            raise UserError(f"{name!r}: there is no such command{_meant(name)} (there are {known})")
        return super().resolve_command(ctx, args)


@click.group(
    cls=_Commands,
    invoke_without_command=True,
    context_settings={"max_content_width": 100, "help_option_names": ["--help", "-h"]},
)
@click.version_option(package_name="rice_jax")
@click.pass_context
def root(ctx: click.Context) -> None:
    """Train small CNNs, see where their compute goes, and take out the filters that do nothing.

    `rice-jax train --config=final` is a first run, on photographs that come with the package.
    `rice-jax COMMAND --help` tells what a command takes.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def _meant(name: str) -> str:
    """What may be meant by a word that is no command: a stage of the main job, or a slip."""
    near = f"train --stages={name}" if name in STAGES else nearest(name, root.commands)
    return f"; give rice-jax {near}" if near else ""


_RESUMING = ("lighten", "prune", "reproduce", "train")
"""Commands that go on where they were stopped."""
_MEASURING = ("--estimate", "--suggest")
"""Options by which they leave nothing to go on from."""

for _command in COMMANDS:
    root.add_command(_command)


def call(arguments: Sequence[str]) -> NoReturn:
    """Do what a command line says and end the process."""
    status = process.guarded(
        lambda: _do(arguments), goes_on=goes_on(arguments), sizes=sizes(arguments)
    )
    process.leave(status)


def goes_on(arguments: Sequence[str]) -> str:
    """By what a command line goes on where it was stopped; '' where it does not."""
    command, *options = arguments or [""]
    if command not in _RESUMING or set(options) & {*_MEASURING}:
        return ""
    # With it what was trained until then would go, and without it an older run would go on.
    begun = "without --restart where it has said that training begins anew"
    return "the same command goes on from here" + (f", {begun}" if "--restart" in options else "")


def sizes(arguments: Sequence[str]) -> list[str]:
    """The options of a command line's command by which it takes less memory."""
    command = root.commands.get(arguments[0]) if arguments else None
    names = command.names() if isinstance(command, Command) else []
    return [name for name in names if name.endswith(("batch_size", "image_size"))]


def _do(arguments: Sequence[str]) -> None:
    try:
        action: Any = root.main(list(arguments), prog_name="rice-jax", standalone_mode=False)
    except click.ClickException as error:
        raise UserError(error.format_message()) from error
    except click.Abort as error:
        raise KeyboardInterrupt from error
    if callable(action):  # --help has said all
        process.start()
        action()
