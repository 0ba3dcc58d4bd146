"""Joining a job of several processes; that they then work together: test_train_processes."""

import contextlib

import pytest
import tiny_training
from processes import ended, start_two

from rice_jax import cluster, train
from rice_jax import config as configuration
from rice_jax.errors import UserError
from rice_jax.run import Run
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


@pytest.mark.parametrize(
    ("owners", "told"),
    [
        ([0, 1], None),
        ([0, 0, 1, 1], None),
        ([0] * 5, None),
        ([0, 0, 1], "have 2, 1 devices.*JAX_NUM_CPU_DEVICES=1 "),
        ([0, 0, 1, 1, 1, 2, 2], "have 2, 3, 2 devices.*JAX_NUM_CPU_DEVICES=2 "),
    ],
)
def test_processes_with_other_numbers_of_devices_are_told(owners, told):
    refused = pytest.raises(UserError, match=told) if told else contextlib.nullcontext()
    with refused as found:
        cluster._refuse_uneven(owners)
    assert (found is None) == (told is None)


JOINING = (
    "from rice_jax import cluster; from rice_jax.commands import process; process.run(cluster.join)"
)


def test_machines_with_other_numbers_of_cores_end_with_a_line():
    first, second = start_two("-c", JOINING, devices=(1, 2))
    with first, second:
        complaints = [process.communicate()[1] for process in (first, second)]
    assert first.returncode == second.returncode == 1
    told = "error: the processes of the job have 1, 2 devices"
    assert all(complaint.splitlines()[-1].startswith(told) for complaint in complaints), complaints


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


SHARING = """
import sys
from pathlib import Path

from rice_jax import cluster, lock, train
from rice_jax.commands import process
from rice_jax.errors import UserError
from rice_jax.run import Run

def held(place):
    try:
        with lock.hold(Run(place)):
            return "held"
    except UserError as error:
        return str(error)

def main(place=sys.argv[1]):
    cluster.join()
    cluster._PATIENCE = 0.2
    one = "first" if cluster.leads() else "second"
    said = [held(f"{place}/run"), held(f"{place}/{one}s_own"), held(f"{place}/run")]
    looks = iter(["new"] if cluster.leads() else ["old", "old", "new"])
    said.append(cluster.see_the_same(lambda: next(looks, "new")))
    with lock.hold(Run(f"{place}/run")):
        cluster.on_first(lambda: said.append(train.newest(Run(f"{place}/run")).progress.epoch))
        if not cluster.leads():
            said.append(train.newest(Run(f"{place}/run")).progress.epoch)
        cluster.on_first(lambda: None)  # all have read
        cluster.on_first(lambda: train.forget(Run(f"{place}/run")))
    said.append(cluster.see_the_same(lambda: str(list(Run(f"{place}/run").checkpoints.iterdir()))))
    Path(place, one).write_text("\\n".join(map(str, said)))

process.run(main)
"""


def test_a_folder_that_not_all_share_is_refused_and_what_one_does_alone_waits_for_nobody(tmp_path):
    """One that is on each machine's own disk; a checkpoint read, and removed, by one process."""
    settings = tiny_training.config(epochs=1)
    run = Run(tmp_path / "run")
    train.train(settings, run, tiny_training.dataset())
    run.write_json("config.json", {"config": configuration.to_json(settings)})
    first, second = start_two("-c", SHARING, tmp_path)
    with first, second:
        ended(first)
        ended(second)
    for one in ("first", "second"):
        own = f"{tmp_path}/{one}s_own is not the same folder for all processes of the job: give "
        own += "each the same --workdir, on a disk that they share"
        told = (tmp_path / one).read_text().splitlines()
        assert told == ["held", own, "held", "True", "1", "True"]
        assert not (tmp_path / f"{one}s_own").exists()
    assert not list(run.checkpoints.iterdir())


def test_checkpoints_that_not_all_see_are_not_gone_on_from(monkeypatch, tmp_path):
    """What a process sees is the numbered folders, whatever else lies there."""
    run, looks = Run(tmp_path), []
    for name in ("4", "10", "6.orbax-checkpoint-tmp"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    monkeypatch.setattr(
        cluster, "see_the_same", lambda look: looks.append(look()) or len(looks) == 1
    )
    with pytest.raises(UserError, match="do not see the same checkpoints"):
        train.train(tiny_training.config(), run, tiny_training.dataset())
    assert looks[-1] == "['10', '4']"


def test_all_go_on_from_one_checkpoint(monkeypatch, tmp_path):
    """One may find damaged what another reads, and would learn from other weights then."""
    told = []
    monkeypatch.setattr(cluster, "require_same", lambda what, value: told.append((what, value)))
    run = Run(tmp_path)
    for epochs in (1, 2):
        train.train(tiny_training.config(epochs=epochs), run, tiny_training.dataset())
    what = f"newest whole checkpoint in {run}"
    newest = max(int(path.name) for path in run.checkpoints.iterdir() if path.name.isdecimal())
    assert told[0] == (what, "None")
    assert told[1][0] == what
    assert 0 < int(told[1][1]) < newest
