"""What --config names: a configuration built in, one of a net of the zoo, or a file's."""

import importlib.machinery
import importlib.util
import os
import sys
import traceback
import types
from pathlib import Path
from typing import TYPE_CHECKING

from rice_jax import config as configuration
from rice_jax import configs, files, zoo
from rice_jax.bounds import nearest
from rice_jax.errors import UserError, reason

if TYPE_CHECKING:
    import ml_collections

_LARGEST = 1 << 20


def names() -> tuple[str, ...]:
    """The built-in configurations."""
    return configs.names()


def load(config: str) -> "ml_collections.ConfigDict":
    """A configuration by its name, of a net of the zoo (zoo:NAME), or out of a file.

    Of a file it is what get_config() returns, called with ARGUMENT where FILE:ARGUMENT is given.

    Raises:
        UserError: there is no such one; or the file does not give a configuration.
    """
    if config.startswith(zoo.PREFIX):
        return _of_the_zoo(config)
    file, argument = _parts(config)
    if config in names():
        path = configs.FOLDER / f"{config}.py"
    elif os.path.isfile(file):
        path = Path(file)
        if path.suffix == ".json":
            raise UserError(
                f"--config={config}: a configuration is a Python file; that of a run is taken from "
                "its folder, by --workdir alone"
            )
    else:
        raise UserError(_missing(config))
    try:
        files.require_content(path, _LARGEST)
    except OSError as error:
        raise UserError(f"--config={config}: {reason(error)}") from error
    try:
        get_config = getattr(_executed(path), "get_config", None)
        found = get_config(*([] if argument is None else [argument])) if get_config else None
    except (Exception, SystemExit) as error:
        raise UserError(f"--config={config}: {_where(error, path)}") from error
    from ml_collections import ConfigDict

    if get_config is None:
        raise UserError(f"--config={config}: it has no function get_config()")
    if not isinstance(found, ConfigDict):
        raise UserError(f"--config={config}: its get_config() returns no ConfigDict")
    if not isinstance(found.get("model"), ConfigDict):
        raise UserError(f"--config={config}: what its get_config() returns tells no model")
    return ConfigDict(found).lock()  # a frozen one takes no fields


def _of_the_zoo(config: str) -> "ml_collections.ConfigDict":
    """That of a trained net: its widths, image size and weights, and whether it saw augmented."""
    card = zoo.card(config.removeprefix(zoo.PREFIX))
    theirs = configuration.from_json(configuration.completed(card.config))
    found = configuration.default(theirs.model.name)
    found.model.update(theirs.model)
    found.model.weights = config
    found.data.image_size = theirs.data.image_size
    found.train.augment = theirs.train.augment
    return found


def _parts(config: str) -> tuple[str, str | None]:
    """A file and what its get_config() is called with; a path may have colons of its own."""
    path = os.path.expanduser(config)
    if os.path.isfile(path):
        return path, None
    file, colon, argument = path.rpartition(":")
    while colon and not os.path.isfile(file):
        file, colon, more = file.rpartition(":")
        argument = f"{more}:{argument}"
    return (file, argument) if colon else (path, None)


def _executed(path: Path) -> types.ModuleType:
    """A file's module, known to Python: dataclasses look their annotations up in it.

    Files beside it can be imported, as from a script; nothing installed is hidden by them.
    """
    folder = os.fspath(path.absolute().parent)
    if folder not in sys.path:
        sys.path.append(folder)
    loader = importlib.machinery.SourceFileLoader("rice_jax_configuration", os.fspath(path))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = sys.modules[loader.name] = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def _missing(config: str) -> str:
    """What to say of a configuration that there is not."""
    file = Path(config.partition(":")[0])
    if os.sep not in config and file.suffix != ".py":
        near = nearest(config, names())
        meant = f"; give --config={near}" if near else ""
        if config in zoo.names():
            meant = f"; give --config={zoo.PREFIX}{config}"
        known = ", ".join(names())
        return (
            f"--config={config}: there is no such configuration{meant} (there are {known}, and "
            f"zoo:NAME for those of `rice-jax zoo`)"
        )
    beside = [path.name for path in file.parent.glob("*.py")] if file.parent.is_dir() else []
    near = nearest(file.name, beside)
    if near:
        return f"--config={config}: there is no such file; give --config={file.parent / near}"
    near = nearest(file.stem.lower(), names())
    meant = f"; give --config={near}" if near else ""
    return f"--config={config}: there is no such file{meant} (built in are {', '.join(names())})"


def _where(error: BaseException, path: Path) -> str:
    """What went wrong in a file, and at which of its lines."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == os.fspath(path)]
    number = error.lineno if isinstance(error, SyntaxError) else next(reversed(lines), None)
    place = f"line {number}: " if number else ""  # its get_config() takes other arguments
    return f"{place}{type(error).__name__}: {error}"
