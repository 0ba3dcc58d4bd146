"""Joining a job of several processes; that they then work together: test_train_processes."""

import pytest
from processes import start_two

from rice_jax import cluster
from rice_jax import config as configuration
from rice_jax.errors import UserError
from rice_jax.stages import run_stages


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
        ("SLURM_STEP_NUM_TASKS", "", False),
        ("OMPI_COMM_WORLD_SIZE", "2", True),
        ("OMPI_COMM_WORLD_SIZE", "some", False),
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


LOCAL = {"data.path", "data.cache_dir", "data.keep_decoded", "data.workers"}


def changed(value):
    """Another value of the same kind."""
    if isinstance(value, bool):
        return not value
    more = {str: "elsewhere", tuple: ("more",), int: 1, float: 0.5}
    return value + more[type(value)]


def test_processes_with_other_settings_do_not_train_together(monkeypatch, tmp_path):
    """Each field but those of the machine's own, the stages and --restart are compared first."""
    told = []

    def compared(what, value):
        told.append((what, value))
        raise UserError("compared")

    monkeypatch.setattr(cluster, "require_same", compared)
    monkeypatch.setattr(configuration, "check", lambda config: None)  # also what is out of bounds

    def value_of(stages=("train",), restart=False, **fields):
        config = configuration.default("final")
        config.update_from_flattened_dict(fields)
        with pytest.raises(UserError, match="compared"):
            run_stages(config, str(tmp_path / "run"), stages, restart=restart)
        what, value = told.pop()
        assert what == "settings"
        return value

    usual = value_of()
    for field, known in configuration.fields("final").items():
        other = value_of(**{field: changed(known.default)})
        assert (other == usual) == (field in LOCAL), field
    assert value_of(restart=True) != usual
    assert value_of(("train", "evaluate")) == value_of(("evaluate", "train")) != usual
    assert not (tmp_path / "run").exists()


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
