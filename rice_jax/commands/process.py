"""A command as a process: it begins, ends with a status, and tells a mistake on one line."""

import logging
import os
import resource
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from rice_jax.commands import interrupts
from rice_jax.errors import UserError, line, reason, tell

_ADDRESSES = 3 << 30
"""Bytes of addresses that JAX's and the readers' threads need, little of it memory: with fewer a
thread is not made, for which array_record waits for ever."""


def run(action: Callable[[], Any]) -> NoReturn:
    """Set JAX up, do something, and end the process: status 0, or 1 after an error's line."""

    def prepared() -> None:
        start()
        action()

    leave(guarded(prepared))


def start() -> None:
    """What comes before a command loads what computes: quiet logs, the CPU backend's settings.

    UserError where the process may not have the addresses for it.
    """
    import absl.logging
    from absl import flags

    from rice_jax.ops import backend

    absl.logging.use_absl_handler()
    absl.logging.set_verbosity(absl.logging.WARNING)
    # Pillow's, of images that are refused as too large or read all the same.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # where there is no home for its fonts
    # onnxruntime 1.29 and later tell Microsoft what they run, and keep a number of the machine.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # of libraries: all at their defaults
    backend.configure()
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < _ADDRESSES:
        raise UserError(
            f"this process may have {limit / 1e9:.1f} GB of addresses (ulimit -v), of which "
            f"{_ADDRESSES / 1e9:.1f} are taken though little of it is memory: give it more, and "
            "bound its memory by the container's or the service's limit"
        )


def guarded(
    action: Callable[[], Any],
    *,
    goes_on: str = "the same command goes on from here",
    sizes: Sequence[str] = (),
) -> int:
    """Do something; the status to end with, after a line for what a user can mend.

    Args:
        action: what to do.
        goes_on: by what it goes on where it was stopped; '' for what does not.
        sizes: its options by which it takes less memory.
    """
    wish = interrupts.Wish()
    try:
        with interrupts.heeded() as wish:
            action()
    except (UserError, OSError) as error:
        tell(_of_output(error) or line(error))
        return 1
    except KeyboardInterrupt:
        tell("; ".join(filter(None, ["stopped", goes_on])))
        return wish.status
    except Exception as error:
        if told := _of_memory(error, sizes) or _missing_platform():
            tell(told)
        elif not _joined():
            raise
        else:
            traceback.print_exc()
        return 1
    return 0


def _of_output(error: Exception) -> str:
    """What to say where standard output takes no more; empty where that was not it."""
    if isinstance(error, OSError) and not error.filename:
        try:
            sys.stdout.flush()  # what could not be written is still there to be
        except OSError:
            return f"standard output cannot be written: {reason(error)}"
    return ""


def _of_memory(error: Exception, sizes: Sequence[str]) -> str:
    """What to say where the memory did not suffice; empty where that was not it."""
    if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
        return ""
    smaller = f": a smaller {' or '.join(sizes)} takes less" if sizes else ""
    return f"the memory does not suffice ({reason(error)}){smaller}"


def _missing_platform() -> str:
    """What to say where JAX cannot begin on the platform that it was told; empty where it can.

    Asked after a failure: JAX begins with the first array, wherever that is made, and fails in
    other words for each platform.
    """
    wanted = os.environ.get("JAX_PLATFORMS", "")
    jax = sys.modules.get("jax")
    if not (wanted and jax):
        return ""
    try:
        jax.devices()
    except Exception as error:
        return (
            f"JAX_PLATFORMS={wanted}: JAX finds no such device here; leave the variable out, or "
            f"install JAX for it ({reason(error)})"
        )
    return ""


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
