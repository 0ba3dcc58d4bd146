"""Configurations as JSON: of runs and cards, of this version and of older ones."""

import dataclasses
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rice_jax import nets
from rice_jax.config.checks import check, flat
from rice_jax.config.defaults import FIELDS, default, fields
from rice_jax.errors import UserError

if TYPE_CHECKING:
    import ml_collections

    from rice_jax.records import ConfigFile
    from rice_jax.run import Run


def to_json(config: "ml_collections.ConfigDict") -> dict[str, Any]:
    """The configuration as plain JSON types."""
    return json.loads(config.to_json())


def from_json(content: Mapping[str, Any]) -> "ml_collections.ConfigDict":
    """The configuration that `to_json` wrote, lists turned back into tuples."""
    import ml_collections

    return ml_collections.ConfigDict(_tuples(content)).lock()


def mistake(content: Mapping[str, Any]) -> str:
    """Which field of a configuration in JSON cannot be; '' for none.

    It may be of any version, which had other fields, and of a net that is not known here.
    """
    given = dict(flat(_tuples(content)))
    for section in {name.rpartition(".")[0] for name in FIELDS}:
        if given.get(section) is not None:
            return f"config.{section} has no fields"
    if not isinstance(given.get("model.name"), str):
        return "config.model.name is missing"
    for name, field in FIELDS.items():
        if name in given and not name.startswith("model.") and not field.bounds.allows(given[name]):
            return f"config.{name} is not {field.bounds}"
    return ""


def filled(given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a configuration in JSON by their names, as 'train.epochs', of any version.

    What it does not tell has this version's default; of a net that is not known here the fields of
    its own are those that it tells.
    """
    name = given["model"]["name"]
    known = fields(name) if name in nets.names() else FIELDS
    usual = {path: field.default for path, field in known.items()}
    return usual | dict(flat(_of_today({**given, "train": given.get("train") or {}})))


def read(run: "Run") -> "ConfigFile":
    """config.json of a run, its configuration as `to_json` gives it.

    Fields that an older version did not have get their defaults.

    Raises:
        UserError: there is no such file, or it is damaged.
    """
    from rice_jax.records import ConfigFile, made  # what only reads options need not wait

    content = run.read_json("config.json")
    _net_is_known(run, content)
    try:
        told = made(ConfigFile, content)
        full = completed(told.config)
        check(from_json(full))
        return dataclasses.replace(told, config=full)
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(f"{run.path / 'config.json'} is damaged: it is incomplete") from error
    except (UserError, ValueError) as error:
        raise UserError(f"{run.path / 'config.json'} is damaged: {error}") from error


def _net_is_known(run: "Run", content: Any) -> None:
    """UserError where the net has a name and is not known: the file need not be damaged."""
    try:
        name = content["config"]["model"]["name"]
    except (KeyError, TypeError):
        return
    if isinstance(name, str) and name not in nets.names():
        wanted = ": give the file of your own net, --config=FILE"
        if own := nets.names()[len(nets.NETS) :]:
            wanted = (
                f", nor {', '.join(own)}, which --config's file makes: that file has to call "
                "own_net.configuration for this net too, whichever it returns"
            )
        raise UserError(
            f"{run.path / 'config.json'}: config.model.name={name!r} is none of the package's"
            f"{wanted}; if it is none, this is damaged"
        )


def completed(given: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration in JSON with all fields of this version: new ones have their defaults.

    Raises:
        ValueError: a field that there is not, or one of another kind.
        UserError: a net that is not known.
        KeyError: it names no net, or has no fields of training.
    """
    given = _of_today(given)
    return _completed(given, to_json(default(given["model"]["name"])))


def _of_today(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """What older versions called otherwise, or did without asking, in the fields of today."""
    train = {"initializer": nets.AS_THE_NET_SAYS, **given["train"]}
    if "stop_on_collapse" in train:
        train["on_collapse"] = "stop" if train.pop("stop_on_collapse") else "warn"
    return {**given, "train": train}


def _completed(
    given: Mapping[str, Any], known: Mapping[str, Any], place: str = "config"
) -> dict[str, Any]:
    """All fields that are known, with the values given; ValueError where one cannot be."""
    if unknown := sorted(given.keys() - known.keys()):
        raise ValueError(f"there is no {place}.{unknown[0]}")
    completed = {}
    for name, usual in known.items():
        value = given.get(name, usual)
        kinds = (float, int) if isinstance(usual, float) else (type(usual),)
        if isinstance(usual, Mapping):
            value = _completed(value, usual, f"{place}.{name}")
        elif type(value) not in kinds:
            raise ValueError(f"{place}.{name} is {value!r}")
        completed[name] = value
    return completed


def _tuples(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {key: _tuples(value) for key, value in content.items()}
    if isinstance(content, list):
        return tuple(_tuples(value) for value in content)
    return content
