"""The configuration of a command: built in, a file, or a run's own, with fields set over it."""

import ast
import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rice_jax import config as configuration
from rice_jax import files, nets, zoo
from rice_jax.bounds import (
    Field,
    Place,
    Real,
    Several,
    Switch,
    Whole,
    Word,
    checked,
    fitted,
    nearest,
    read,
    refused,
)
from rice_jax.commands.named import load, names
from rice_jax.errors import UserError

if TYPE_CHECKING:
    import ml_collections

    from rice_jax.run import Run

THE_RUNS = "the run's"
"""What --help tells for the default of a field where a command begins with a run's own."""
_PREFIXES = ("--config.", "--noconfig.", "-config.", "-noconfig.")


def of_all_nets() -> dict[str, Field]:
    """Every field that the configuration of any net has, for --help."""
    each = {"model.name": Field("the net's", "which", Word(tuple(nets.NETS)))}
    for fields in nets.KINDS.values():
        for name, field in fields.items():
            each.setdefault(f"model.{name}", dataclasses.replace(field, default="the net's"))
    return each | dict(configuration.FIELDS)


def shared() -> dict[str, Field]:
    """The fields that the configurations of all nets have in common."""
    return {
        name: field
        for name, field in configuration.FIELDS.items()
        if name != "train.frozen" and not name.startswith("model.")
    }


def of_a_run(decided: Iterable[str]) -> dict[str, Field]:
    """The fields that may be set over a run's, for --help: its net stays, and what is `decided`."""
    return {
        name: dataclasses.replace(field, default=THE_RUNS)
        for name, field in configuration.FIELDS.items()
        if name not in decided and not name.startswith("model.")
    }


def images() -> dict[str, Field]:
    """The fields that say which images, where an exported file tells their size and split."""
    told = ("data.image_size", "data.split_seed")
    return {
        name: field
        for name, field in configuration.FIELDS.items()
        if name.startswith(("data.", "eval.")) and name not in told
    }


def split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """What sets fields of the configuration, and the other arguments.

    A field is set by --config.NAME=VALUE or --config.NAME VALUE; a switch also by --config.NAME
    and --noconfig.NAME.
    """
    given: list[str] = []
    rest: list[str] = []
    waiting = False
    for argument in arguments:
        if argument.startswith(_PREFIXES):
            given.append(f"--{argument.lstrip('-')}")
            waiting = "=" not in argument and "noconfig." not in argument
        elif waiting and (not argument.startswith("-") or argument[1:2].isdigit()):
            given[-1] += f"={argument}"
            waiting = False
        else:
            rest.append(argument)
            waiting = False
    return given, rest


def chosen(
    config: str | None, workdir: str | None, fields: Sequence[str]
) -> tuple["ml_collections.ConfigDict", dict[str, Any]]:
    """The configuration that a command is given, and the fields that the user has set in it.

    Args:
        config: a built-in name or a file; None for that of the run in `workdir`.
        workdir: a run's folder.
        fields: as --config.train.epochs=3.

    Raises:
        UserError: there is no such configuration, or a field of it is out of its bounds.
    """
    found = _saved(workdir) if config is None else load(config)
    _as_pruned(found, workdir)
    net = found.model.get("name")
    given = set_fields(found, fields, _known(found))
    if found.model.name != net:  # its widths and recipe would stay the other's
        raise UserError(
            f"--config.model.name={found.model.name}: the net is {net}; give --config=NAME instead"
        )
    configuration.check(found)
    _are_there(given, _known(found))
    return found, given


def for_all_nets(
    fields: Sequence[str], known: Mapping[str, Field] | None = None
) -> tuple["ml_collections.ConfigDict", dict[str, Any]]:
    """What the configurations of all nets have in common, and the fields that the user has set.

    Args:
        fields: as --config.train.epochs=3.
        known: those that may be set, where these are not all.

    Raises:
        UserError: as `chosen`.
    """
    config = configuration.default("final")
    with config.unlocked():
        del config.model
        del config.train.frozen
    known = known or shared()
    given = set_fields(config, fields, known)
    for name, value in given.items():
        checked(f"config.{name}", value, known[name].bounds)
    _are_there(given, known)
    return config, given


def refuse_decided(given: Iterable[str], instead: Mapping[str, str | None]) -> None:
    """UserError for fields that a command decides itself; `instead` says what to give for each."""
    for name in given:
        if name in instead:
            other = f": give {instead[name]}" if instead[name] else ", which decides it itself"
            raise UserError(f"--config.{name} changes nothing in this command{other}")


def lacks_weights(config: "ml_collections.ConfigDict") -> bool:
    """Whether a net that starts from trained weights is given none."""
    name = config.model.name
    return nets.get(name).needs_weights and not config.model.weights and name not in zoo.names()


def existing_run(workdir: str | None, config: str | None = None) -> "Run":
    """The run in a folder; UserError where none is given, or it is no run's.

    A net of the user's own is known by its file, `config`: nothing that the folder names is run.
    """
    if config is not None:
        load(config)
    if not workdir:
        raise UserError("--workdir is missing: give the folder of a trained run")
    file = os.path.join(os.path.expanduser(workdir), "config.json")
    if not files.is_remote(workdir) and not os.path.exists(file):
        raise UserError(f"{file} is missing: is {workdir} a run's folder?")
    from rice_jax.run import Run

    return Run(workdir)


def set_fields(
    config: "ml_collections.ConfigDict", given: Sequence[str], known: Mapping[str, Field]
) -> dict[str, Any]:
    """Set fields of a configuration in place; those set, by name.

    Args:
        config: the configuration.
        given: as `split` gives them.
        known: the fields that may be set.

    Raises:
        UserError: no such field, or a value that is out of its bounds.
    """
    from absl import flags
    from ml_collections import config_flags

    argv = ["rice-jax", *(_readable(each, known) for each in given)]
    values = flags.FlagValues()
    try:
        config_flags.DEFINE_config_dict("config", config, "", values, sys_argv=argv)
        values(argv)
    except (flags.Error, TypeError, ValueError) as error:
        raise UserError(" ".join(str(error).split())) from error
    found = config_flags.get_override_values(values["config"])
    config.update_from_flattened_dict(found)
    return found


def _are_there(given: Mapping[str, Any], known: Mapping[str, Field]) -> None:
    """UserError where a field that the user has set names a path or a net that is not there."""
    for name, value in given.items():
        bounds = known[name].bounds
        if not isinstance(bounds, Place):
            continue
        if bounds.prefix and value.startswith(bounds.prefix):
            zoo.card(value.removeprefix(bounds.prefix))
        elif bounds.missing(value):
            near = nearest(value, bounds.words)
            meant = f"; nearest is {near}" if near else ""
            if name == "model.weights" and "vgg16" in os.path.basename(value):
                meant = f"; {nets.weights_wanted('vgg16')}"
            raise UserError(f"--config.{name}={value}: there is no such file or folder{meant}")


def called(name: str, fields: Iterable[str]) -> list[str]:
    """The fields whose last word is `name`, the least nested of them."""
    found = [field for field in fields if field.rpartition(".")[2] == name]
    least = min((field.count(".") for field in found), default=0)
    return [field for field in found if field.count(".") == least]


def _readable(given: str, known: Mapping[str, Field]) -> str:
    """A field's argument as ml_collections reads it; UserError where there is no such field."""
    argument, equals, text = given.partition("=")
    name = argument.partition(".")[2]
    if name not in known:
        # One of another command or net was not mistyped.
        meant = " here" if name in of_all_nets() else _meant(name, equals + text, known)
        raise UserError(f"{given}: there is no such field{meant}")
    bounds = known[name].bounds
    if isinstance(bounds, Whole | Real | Word) or (isinstance(bounds, Switch) and equals):
        return f"{argument}={read(argument, text, bounds)}"
    if isinstance(bounds, Several):
        return f"{argument}={_several(argument, text, bounds)}"
    return given


def _several(argument: str, text: str, bounds: Several) -> Any:
    """Values with commas between, or a tuple as Python writes it; UserError as `read`."""
    if not isinstance(bounds.each, Several) and not text.lstrip().startswith(("(", "[")):
        return read(argument, text, bounds)
    try:
        value = fitted(ast.literal_eval(text.strip() or "()"), bounds)
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:  # of many brackets
        raise refused(argument, text, bounds) from error
    if not bounds.allows(value):
        raise refused(argument, text, bounds)
    return value


def _meant(name: str, value: str, known: Mapping[str, Field]) -> str:
    """'; give --config.train.epochs=3' where a field is near."""
    last = {field.rpartition(".")[2] for field in known}
    near = nearest(name, known)
    fields = [near] if near else called(nearest(name.rpartition(".")[2], last), known)
    return f"; give {' or '.join(f'--config.{field}{value}' for field in fields)}" if fields else ""


def _known(config: "ml_collections.ConfigDict") -> dict[str, Field]:
    net = config.get("model", {}).get("name")
    return configuration.fields(net)


def _saved(workdir: str | None) -> "ml_collections.ConfigDict":
    """The configuration of the run in a folder."""
    from rice_jax.run import Run

    if workdir and (files.reached(workdir) / "config.json").exists():
        return configuration.from_json(configuration.read(Run(workdir)).config)
    without = f"{workdir} holds no run yet: " if workdir else ""
    raise UserError(
        f"{without}--config is missing: give --config=NAME ({', '.join(names())}), --config=FILE, "
        "or the --workdir of a run"
    )


def _as_pruned(config: "ml_collections.ConfigDict", workdir: str | None) -> None:
    """Leave a net of the user's own as narrow as it is in the run's folder; its file is wider."""
    from rice_jax.run import Run

    if "narrowed" in config.model and workdir and Run(workdir).has("config.json"):
        saved = configuration.read(Run(workdir)).config["model"]
        if saved["name"] == config.model.name:
            config.model.narrowed = saved["narrowed"]
