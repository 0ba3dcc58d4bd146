"""What commands are made of: options with bounds, and mistakes that name what was meant."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click
from click.shell_completion import CompletionItem

from rice_jax.bounds import Bounds, Field, Real, Several, Switch, Whole, Word, nearest, read
from rice_jax.commands import named, settings
from rice_jax.errors import UserError

_SETTINGS = {
    "help_option_names": ["--help", "-h"],
    "max_content_width": 100,
    "token_normalize_func": lambda name: name.replace("-", "_"),
    "allow_extra_args": True,  # told by us
}


class Allowed(click.ParamType):
    """Values within bounds."""

    name = "value"

    def __init__(self, bounds: Bounds, completion: str, words: Sequence[str]) -> None:
        each = bounds.each if isinstance(bounds, Several) else bounds
        self._bounds, self._completion = bounds, completion
        self._words = each.words if isinstance(each, Word) else words

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The value of a text; UserError where it is out of bounds."""
        if not isinstance(value, str) or param is None:
            return value  # a default
        return read(param.opts[0], value, self._bounds)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Words that begin so; without any, files or folders where it is a path."""
        several = isinstance(self._bounds, Several)
        *before, last = incomplete.split(",") if several else [incomplete]
        words = [",".join([*before, word]) for word in self._words if word.startswith(last)]
        if words or not self._completion:
            return list(map(CompletionItem, words))
        return [CompletionItem(incomplete, type=self._completion)]


def option(
    name: str,
    bounds: Bounds,
    meaning: str,
    default: Any = None,
    *,
    completion: str = "",
    words: Sequence[str] = (),
) -> Callable[[Any], Any]:
    """An option of a command, --NAME=VALUE; of a switch --NAME alone.

    Args:
        name: with its dashes.
        bounds: what it may be.
        meaning: for --help, which adds what is allowed and the default.
        default: where it is not given.
        completion: 'dir' or 'file' where the shell completes a path.
        words: what it completes as well, where `bounds` has none.
    """
    if isinstance(bounds, Switch):
        return click.option(name, is_flag=True, help=meaning)
    told = f"{meaning}{_about(bounds)}" + (f" [default: {_plain(default)}]" if default else "")
    kind, metavar = Allowed(bounds, completion, words), _metavar(bounds)
    return click.option(name, type=kind, default=default, metavar=metavar, help=told)


def given() -> list[str]:
    """Names of the options that stand on the command line, in the command's order."""
    context = click.get_current_context()
    on_it = click.core.ParameterSource.COMMANDLINE
    return [name for name in context.params if context.get_parameter_source(name) is on_it]


class Command(click.Command):
    """A command; what it does not understand it tells with what may have been meant."""

    def __init__(
        self, *args: Any, fields: Callable[[], Mapping[str, Field]] | None = None, **kwargs: Any
    ) -> None:
        """Also takes --config.FIELD=VALUE, handed on as `fields`, where `fields` tells which."""
        super().__init__(*args, **{"context_settings": _SETTINGS, **kwargs})
        self._fields = fields

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the options; UserError for what is none."""
        given, rest = settings.split(args) if self._fields else ([], list(args))
        try:
            super().parse_args(ctx, rest)
        except click.NoSuchOption as error:
            raise UserError(self._unknown(error.option_name, args)) from error
        except click.UsageError as error:
            raise UserError(error.format_message()) from error
        if ctx.args and not ctx.resilient_parsing:
            raise UserError(self._stray(ctx.args[0]))
        if self._fields:
            ctx.params["fields"] = tuple(given)
        return ctx.args

    def names(self) -> list[str]:
        """Its options, and the fields that it takes, as --config.train.epochs."""
        fields = self._fields() if self._fields else ()
        own = [opt for param in self.params for opt in param.opts if opt.startswith("--")]
        return own + [f"--config.{name}" for name in fields]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The options, and the fields of the configuration."""
        super().format_options(ctx, formatter)
        if self._fields is None:
            return
        rows = [
            (name, f"{field.meaning}{_about(field.bounds)} [default: {_plain(field.default)}]")
            for name, field in self._fields().items()
        ]
        with formatter.section("Configuration, each as --config.FIELD=VALUE"):
            formatter.write_dl(rows)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Options, and fields once --config. is begun; a shell sets a space behind them."""
        if self._fields is None or not incomplete.startswith("--config."):
            return super().shell_complete(ctx, incomplete)
        names = (f"--config.{name}" for name in self._fields())
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]

    def _unknown(self, option: str, args: Sequence[str]) -> str:
        """What to say of an option that there is not."""
        name = option.lstrip("-")
        names = [arg.partition("=")[0].lstrip("-").replace("-", "_") for arg in args]
        place = names.index(name) if name in names else None
        given = option if place is None else args[place]
        value = "".join(given.partition("=")[1:])
        if place is not None and not value and args[place + 1 : place + 2]:
            following = args[place + 1]
            value = "" if following.startswith("-") else f"={following}"
        own = {opt.lstrip("-"): opt for param in self.params for opt in param.opts}
        fields = settings.called(name, self._fields()) if self._fields else []
        if fields:
            meant = " or ".join(f"--config.{field}{value or '=VALUE'}" for field in fields)
        elif near := nearest(name, own):
            meant = f"{own[near]}{value}"
        else:
            return f"{given}: there is no such option; rice-jax {self.name} --help tells which"
        return f"{given}: there is no such option; give {meant}"

    def _stray(self, argument: str) -> str:
        """What to say of an argument that belongs to no option."""
        options = [opt for param in self.params for opt in param.opts]
        if "--config" in options and argument in named.names():
            return f"{argument!r} belongs to no option; give --config={argument}"
        for name in ("workdir", "workdirs", "out"):
            if f"--{name}" in options:
                return f"{argument!r} belongs to no option; a folder is given as --{name}=DIR"
        return f"{argument!r} is not understood: there is nothing to choose"


def _about(bounds: Bounds) -> str:
    """What is allowed, where the meaning does not say so."""
    return "" if isinstance(bounds, Switch) else f": {bounds}"


def _metavar(bounds: Bounds) -> str:
    if isinstance(bounds, Several):
        return f"{_metavar(bounds.each)},..."
    return "NUMBER" if isinstance(bounds, Whole | Real) else "WORD"


def _plain(value: Any) -> str:
    """A default as it would be given."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple) and all(isinstance(each, str) for each in value):
        return ",".join(value) or "none"
    return (f"{value:g}" if isinstance(value, float) else str(value)) or "none"
