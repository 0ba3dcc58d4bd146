"""Several processes as one job: who they are comes from the environment."""

import contextlib
import hashlib
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils

from rice_jax.errors import UserError, reason

COORDINATOR = "JAX_COORDINATOR_ADDRESS"
PROCESSES = "JAX_NUM_PROCESSES"
PROCESS = "JAX_PROCESS_ID"
_PATIENCE, _PAUSE = 10.0, 0.1
"""Seconds that a shared disk has to show to all what the first process wrote; between two looks."""


def join() -> None:
    """Join the job's other processes, where there are any; call it before the first array is made.

    By hand, each process has JAX_COORDINATOR_ADDRESS (host:port of the first), JAX_NUM_PROCESSES
    and JAX_PROCESS_ID (from 0) in its environment. On a TPU pod and under SLURM's srun or Open
    MPI's mpirun JAX finds out by itself.

    Raises:
        UserError: the variables are incomplete, the others cannot be reached, or the processes
            have different numbers of devices.
    """
    given = {name: os.environ.get(name, "") for name in (COORDINATOR, PROCESSES, PROCESS)}
    if not any(given.values()) and not _launched_together():
        return
    try:
        if any(given.values()):
            jax.distributed.initialize(
                given[COORDINATOR], int(given[PROCESSES]), int(given[PROCESS])
            )
        else:
            jax.distributed.initialize()
    except ValueError as error:
        settings = " ".join(f"{name}={value!r}" for name, value in given.items())
        raise UserError(f"{settings}: all three are needed, the last two as numbers") from error
    except RuntimeError as error:
        raise UserError(f"cannot join the other processes: {reason(error)}") from error
    try:
        _refuse_uneven([device.process_index for device in jax.devices()])
    except UserError:
        # All of them are here and end by it: the one that leads must not be gone before the others.
        jax.distributed.shutdown()
        raise


def _refuse_uneven(owners: Iterable[int]) -> None:
    """UserError where the processes that own the devices have not as many each.

    On CPUs each core is a device, so that machines of different kinds differ.
    """
    counts = Counter(owners)
    if len(set(counts.values())) > 1:
        told = ", ".join(str(counts[process]) for process in sorted(counts))
        raise UserError(
            f"the processes of the job have {told} devices, and each needs as many as the others: "
            f"on CPUs JAX_NUM_CPU_DEVICES={min(counts.values())} for each gives them"
        )


def joined() -> bool:
    """Whether this process is one of a job's."""
    return jax.distributed.is_initialized()


def leads() -> bool:
    """Whether this is the process that writes files and speaks."""
    return jax.process_index() == 0


def on_first(action: Callable[[], Any]) -> None:
    """Let the first process alone do something; every process returns when it is done.

    Raises:
        UserError: on every process where `action` raised it, so that none waits for another.
    """
    refusal = None
    if leads():
        try:
            action()
        except UserError as error:
            refusal = error
    if multihost_utils.broadcast_one_to_all(np.int32(refusal is not None)):
        raise refusal or UserError("the first process of the job stopped: its message says why")


def require_same(what: str, value: str) -> None:
    """UserError on every process where not all of them have the same `value`."""
    digests = multihost_utils.process_allgather(_digest(value))
    if np.ptp(np.atleast_2d(digests), axis=0).any():
        raise UserError(f"the processes of the job do not have the same {what}")


def see_the_same(look: Callable[[], str]) -> bool:
    """Whether all processes see what the first one does, once a slow disk has shown it to them."""
    if jax.process_count() == 1:
        return True
    expected = multihost_utils.broadcast_one_to_all(_digest(look()))
    until = time.monotonic() + _PATIENCE
    while differs := not np.array_equal(_digest(look()), expected):
        if time.monotonic() > until:
            break
        time.sleep(_PAUSE)
    return not multihost_utils.process_allgather(np.int32(differs)).any()


def _digest(text: str) -> np.ndarray:
    return np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint8)


@contextlib.contextmanager
def first_alone_speaks() -> Iterator[None]:
    """Send what the other processes print nowhere; warnings and errors are told by each."""
    with contextlib.ExitStack() as stack:
        if not leads():
            nowhere = stack.enter_context(open(os.devnull, "w"))
            stack.enter_context(contextlib.redirect_stdout(nowhere))
        yield


def leave(status: int) -> NoReturn:
    """End the process.

    One that failed (status 1) does so at once: JAX's farewell waits for the other processes, and
    they, in the middle of a step, for this one. One that was told to stop has told the others.
    """
    if status == 1 and joined():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def _launched_together() -> bool:
    """Whether a launcher that JAX knows started this process as one of several."""
    return (
        "," in os.environ.get("TPU_WORKER_HOSTNAMES", "")
        or _number("SLURM_STEP_NUM_TASKS") > 1
        or _number("OMPI_COMM_WORLD_SIZE") > 1
    )


def _number(variable: str) -> int:
    """Of tasks; 0 where the variable is none of a launcher's, which has digits in it."""
    text = os.environ.get(variable, "")
    return int(text) if text.isdecimal() else 0
