"""Joining a job of several processes; that they then work together: test_train_processes."""

import pytest

from rice_jax import cluster
from rice_jax.errors import UserError


def test_a_process_alone_joins_nobody(monkeypatch):
    for name in (cluster.COORDINATOR, cluster.PROCESSES, cluster.PROCESS):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(cluster.jax.distributed, "initialize", pytest.fail)
    cluster.join()
    assert cluster.leads()
    cluster.wait_for_all("alone")


@pytest.mark.parametrize(
    ("variable", "value", "joins"),
    [
        ("SLURM_STEP_NUM_TASKS", "4", True),
        ("SLURM_STEP_NUM_TASKS", "1", False),
        ("OMPI_COMM_WORLD_SIZE", "2", True),
        ("TPU_WORKER_HOSTNAMES", "host0,host1", True),
        ("TPU_WORKER_HOSTNAMES", "localhost", False),
    ],
)
def test_launchers_are_noticed(monkeypatch, variable, value, joins):
    joined = []
    monkeypatch.setattr(cluster.jax.distributed, "initialize", lambda: joined.append(True))
    monkeypatch.setenv(variable, value)
    cluster.join()
    assert bool(joined) == joins


@pytest.mark.parametrize(("processes", "process"), [("", "0"), ("2", "first")])
def test_incomplete_variables_are_told(monkeypatch, processes, process):
    monkeypatch.setenv(cluster.COORDINATOR, "localhost:1")
    monkeypatch.setenv(cluster.PROCESSES, processes)
    monkeypatch.setenv(cluster.PROCESS, process)
    with pytest.raises(UserError, match=r"JAX_COORDINATOR_ADDRESS='localhost:1'.*all three"):
        cluster.join()
