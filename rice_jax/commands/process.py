"""A command as a process: it begins, ends with a status, and tells a mistake on one line."""

import sys
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

from rice_jax.errors import UserError, line, tell


def run(action: Callable[[], Any]) -> NoReturn:
    """Set JAX up, do something, and end the process: status 0, or 1 after an error's line."""

    def prepared() -> None:
        start()
        action()

    leave(guarded(prepared))


def start() -> None:
    """What comes before a command loads what computes: quiet logs, the CPU backend's settings."""
    from absl import flags, logging

    from rice_jax.ops import backend

    logging.use_absl_handler()
    logging.set_verbosity(logging.WARNING)
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # of libraries: all at their defaults
    backend.configure()


def guarded(action: Callable[[], Any]) -> int:
    """Do something; the status to end with, after a line for what a user can mend."""
    try:
        action()
    except (UserError, OSError) as error:
        tell(line(error))
        return 1
    except KeyboardInterrupt:
        tell("stopped; the same command goes on from here")
        return 130
    except Exception:
        if not _joined():
            raise
        traceback.print_exc()
        return 1
    return 0


def leave(status: int) -> NoReturn:
    """End the process, where it is one of several so that the others end too."""
    if _joined():
        from rice_jax import cluster

        cluster.leave(status)
    sys.exit(status)


def _joined() -> bool:
    """Whether the process is one of a job's, without loading JAX to find out."""
    cluster = sys.modules.get("rice_jax.cluster")
    return bool(cluster and cluster.joined())
