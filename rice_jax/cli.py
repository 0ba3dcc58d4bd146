"""What every command shares: flags in, one clear line and exit 1 for what a user can mend."""

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import ml_collections
from absl import app, flags, logging
from ml_collections import config_flags

from rice_jax import cluster
from rice_jax import config as configuration
from rice_jax.errors import UserError
from rice_jax.ops import backend
from rice_jax.run import Run, reason


def run(main: Callable[[Sequence[str]], Any]) -> None:
    """Parse the flags, call main(argv) and exit: 0 when it returns, 1 after an error's line."""
    logging.set_verbosity(logging.WARNING)
    backend.configure()
    app.run(lambda argv: cluster.leave(_guarded(main, argv)), flags_parser=_parse)


def define_config(argv: Sequence[str]) -> flags.FlagHolder:
    """The flag --config: a file of configs/, or without it what the run in --workdir was given.

    Either way each field can be set as --config.a.b=value.
    """
    file, workdir = _given("config", argv), _given("workdir", argv)
    if file is None and workdir and Run(workdir).has("config.json"):
        try:
            saved = configuration.from_json(configuration.read(Run(workdir))["config"])
        except UserError as error:
            fail(error)
            sys.exit(1)
        return define_fields(saved, argv, "The run's configuration.")
    if file and not os.path.isfile(file.partition(":")[0]):
        fail(f"--config={file}: there is no such file")
        sys.exit(1)
    return config_flags.DEFINE_config_file(
        "config", None, "A file of configs/; may be left out where --workdir has a config.json."
    )


def define_fields(
    config: ml_collections.ConfigDict, argv: Sequence[str], about: str
) -> flags.FlagHolder:
    """The flag --config with these fields to set; one that is none of them ends in one line."""
    try:
        return config_flags.DEFINE_config_dict("config", config, about)
    except (AttributeError, KeyError) as error:  # a whole section that is not there
        fail(_unknown_field(error, argv))
    sys.exit(1)


def _given(flag: str, argv: Sequence[str]) -> str | None:
    """The value of a flag before flags are parsed: --flag=value or --flag value."""
    for index, argument in enumerate(argv):
        name, equals, value = argument.lstrip("-").partition("=")
        if argument.startswith("-") and name == flag:
            return value if equals else next(iter(argv[index + 1 :]), None)
    return None


def _parse(argv: Sequence[str]) -> list[str]:
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        fail(reason(error))
    except (AttributeError, KeyError) as error:  # ml_collections: no such field
        fail(_unknown_field(error, argv))
    sys.exit(1)


def _unknown_field(error: AttributeError | KeyError, argv: Sequence[str]) -> str:
    cause = error.args[0] if error.args else ""
    lines = str(cause.args[0] if isinstance(cause, KeyError) else cause).splitlines()
    field = lines[0].strip("'\"")
    given = next((arg for arg in argv if f".{field}" in arg), None)
    return f"{given}: there is no such field. {' '.join(lines[1:])}" if given else " ".join(lines)


def _guarded(main: Callable[[Sequence[str]], Any], argv: Sequence[str]) -> int:
    try:
        main(argv)
    except (UserError, OSError) as error:
        fail(line(error))
        return 1
    except KeyboardInterrupt:
        fail("stopped; the same command goes on from here")
        return 130
    except Exception:
        if not cluster.joined():
            raise
        traceback.print_exc()
        return 1
    return 0


def line(error: Exception) -> str:
    """What went wrong, on one line; of what the system refuses (space, permission) also where."""
    file = error.filename if isinstance(error, OSError) else None
    return f"{file}: {reason(error)}" if file else reason(error)


def fail(message: object) -> None:
    """Print an error as one line on standard error."""
    print(f"error: {' '.join(str(message).split())}", file=sys.stderr)
