"""Several processes as one job: who they are comes from the environment."""

import os

import jax
from jax.experimental import multihost_utils

from rice_jax.errors import UserError, reason

COORDINATOR = "JAX_COORDINATOR_ADDRESS"
PROCESSES = "JAX_NUM_PROCESSES"
PROCESS = "JAX_PROCESS_ID"


def join() -> None:
    """Join the job's other processes, where there are any; call it before the first array is made.

    By hand, each process has JAX_COORDINATOR_ADDRESS (host:port of the first), JAX_NUM_PROCESSES
    and JAX_PROCESS_ID (from 0) in its environment. On a TPU pod and under SLURM's srun or Open
    MPI's mpirun JAX finds out by itself.

    Raises:
        UserError: the variables are incomplete, or the others cannot be reached.
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


def leads() -> bool:
    """Whether this is the process that writes files and speaks."""
    return jax.process_index() == 0


def wait_for_all(name: str) -> None:
    """Return when every process of the job has come to the point called `name`."""
    multihost_utils.sync_global_devices(name)


def _launched_together() -> bool:
    """Whether a launcher that JAX knows started this process as one of several."""
    return (
        "," in os.environ.get("TPU_WORKER_HOSTNAMES", "")
        or int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1
        or int(os.environ.get("OMPI_COMM_WORLD_SIZE", "1")) > 1
    )
