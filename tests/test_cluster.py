"""Joining a job of several processes; that they then work together: test_train_processes."""

import pytest
from processes import start_two

from rice_jax import cluster
from rice_jax.errors import UserError


def test_a_process_alone_joins_nobody(monkeypatch):
    for name in (cluster.COORDINATOR, cluster.PROCESSES, cluster.PROCESS):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(cluster.jax.distributed, "initialize", pytest.fail)
    cluster.join()
    assert cluster.leads()
    done = []
    cluster.on_first(lambda: done.append(True))
    assert done == [True]
    cluster.require_same("images", "any")


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


FAILING = """
from rice_jax import cluster
from rice_jax.commands import process
from rice_jax.errors import UserError

def refuse():
    raise UserError("the disk is full")

def main():
    cluster.join()
    try:
        cluster.on_first(refuse)
    except UserError as error:
        print(error)
    cluster.require_same("classes", "the same")
    try:
        cluster.require_same("images", str(cluster.leads()))
    except UserError as error:
        print(error)
    if not cluster.leads():
        raise UserError("an image is damaged")
    cluster.on_first(lambda: None)

process.run(main)
"""


def without_gloo(text):
    """The lines, without those in which Gloo tells of its connections at any time."""
    return [line for line in text.splitlines() if not line.startswith("[Gloo]")]


def test_what_stops_one_process_stops_the_others():
    first, second = start_two("-c", FAILING)
    with first, second:
        said, _ = first.communicate()
        told, complaint = second.communicate()
    differ = "the processes of the job do not have the same images"
    assert without_gloo(said) == ["the disk is full", differ]
    stopped = "the first process of the job stopped: its message says why"
    assert without_gloo(told) == [stopped, differ]
    assert complaint.splitlines()[-1] == "error: an image is damaged"
    assert second.returncode == 1
    assert first.returncode not in (0, None)
