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
import sys
from pathlib import Path

from rice_jax import cluster
from rice_jax.commands import process
from rice_jax.errors import UserError

def refuse():
    raise UserError("the disk is full")

def told(what):
    try:
        what()
    except UserError as error:
        return f"{error}\\n"
    return "nothing\\n"

def main():
    cluster.join()
    said = told(lambda: cluster.on_first(refuse))
    said += told(lambda: cluster.require_same("classes", "the same"))
    said += told(lambda: cluster.require_same("images", str(cluster.leads())))
    Path(sys.argv[1], "first" if cluster.leads() else "second").write_text(said)
    if not cluster.leads():
        raise UserError("an image is damaged")
    cluster.on_first(lambda: None)

process.run(main)
"""


def test_what_stops_one_process_stops_the_others(tmp_path):
    """What each was told is read from files: Gloo prints into any line of the output."""
    first, second = start_two("-c", FAILING, tmp_path)
    with first, second:
        first.communicate()
        _, complaint = second.communicate()
    differ = "the processes of the job do not have the same images"
    stopped = "the first process of the job stopped: its message says why"
    assert (tmp_path / "first").read_text().splitlines() == ["the disk is full", "nothing", differ]
    assert (tmp_path / "second").read_text().splitlines() == [stopped, "nothing", differ]
    assert complaint.splitlines()[-1] == "error: an image is damaged"
    assert second.returncode == 1
    assert first.returncode not in (0, None)
