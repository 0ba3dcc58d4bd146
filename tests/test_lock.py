"""A run's folder has one user at a time."""

import contextlib
import fcntl
import json
import os
import shutil
import threading

import pytest

from rice_jax import config as configuration
from rice_jax import lock, stages
from rice_jax.errors import UserError
from rice_jax.lighten import pruning, search, suggest
from rice_jax.records import PruneRequest, SearchRequest
from rice_jax.run import Run


@contextlib.contextmanager
def taken(run):
    """The lock as another process would have it: a file description of its own."""
    with open(run.path / lock.FILE, "a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(json.dumps({"pid": 4711, "host": "elsewhere", "started": "2026-11-01 12:00:00"}))
        file.flush()
        yield


def test_the_second_is_told_who_holds_the_folder(tmp_path):
    run = Run(tmp_path)
    with (
        taken(run),
        pytest.raises(UserError, match=r"in use by process 4711 on elsewhere.*2026-11-01"),
        lock.hold(run),
    ):
        pytest.fail("both hold it")


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("stage", stages.STAGES)
def test_a_command_that_is_refused_changes_nothing(tmp_path, stage):
    """Not config.json either, by which the run under way goes on."""
    run, settings = Run(tmp_path), configuration.default("final")
    run.write_json("config.json", {"config": configuration.to_json(settings), "data": None})
    with taken(run):
        before = content(tmp_path)
        settings.seed = 7
        with pytest.raises(UserError, match="in use by process 4711"):
            stages.run_stages(settings, str(tmp_path), [stage])
        assert content(tmp_path) == before


def test_two_prunings_into_one_folder_take_turns(tmp_path):
    out, settings = Run(tmp_path), configuration.default("final")
    (tmp_path / "steps").mkdir()
    with taken(out), pytest.raises(UserError, match="in use by process 4711"):
        pruning.prune_run(PruneRequest(drop="dead"), settings, Run(tmp_path / "trained"), out)
    assert (tmp_path / "steps").is_dir()


def test_budgets_are_not_measured_for_a_folder_in_use(tmp_path):
    out, parent = Run(tmp_path), Run(tmp_path / "not looked at")
    with taken(out), pytest.raises(UserError, match="in use by process 4711"):
        suggest.suggest(PruneRequest(), configuration.default("final"), parent, out)


@pytest.mark.parametrize("there", [True, False])
def test_a_search_measures_nothing_for_a_folder_that_it_does_not_get(tmp_path, there):
    """In use by another, or where none can be made."""
    out, settings = Run(tmp_path / "out"), configuration.default("final")
    if there:
        out.create()
    else:
        out.path.write_text("a file")
    with (
        taken(out) if there else contextlib.nullcontext(),
        pytest.raises(UserError, match="in use by process 4711" if there else "cannot make the"),
    ):
        search.search(SearchRequest(within=0.1), settings, Run(tmp_path / "trained"), out)


def test_a_holder_that_ended_leaves_the_folder_free_whatever_it_wrote(tmp_path):
    run = Run(tmp_path)
    with taken(run):
        pass
    with lock.hold(run):
        holder = json.loads((tmp_path / lock.FILE).read_text())
    assert holder["pid"] != 4711
    with lock.hold(run):
        pass


def test_who_holds_the_folder_may_hold_it_again(tmp_path):
    run = Run(tmp_path / "new")
    file = run.path / lock.FILE
    with lock.hold(run):
        with lock.hold(Run(f"{tmp_path}/./new")):
            run.write_text("report.md", "a folder with nothing in it would go")
        assert json.loads(file.read_text())["pid"] == os.getpid()  # let go by nobody yet
        with file.open() as again, pytest.raises(BlockingIOError):
            fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with file.open() as again:
        fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_lock_that_is_a_link_is_refused_and_its_end_left_alone(tmp_path):
    victim, run = tmp_path / "victim", Run(tmp_path / "run")
    victim.write_text("mine")
    run.create()
    os.symlink(victim, run.path / lock.FILE)
    with pytest.raises(UserError, match="cannot write to the run's folder"), lock.hold(run):
        pytest.fail("held")
    assert victim.read_text() == "mine"


def test_a_new_folder_goes_where_nothing_came_of_it(tmp_path):
    run, refused = Run(tmp_path / "new"), UserError("refused")
    with pytest.raises(UserError, match="refused"), lock.hold(run):
        raise refused
    assert not run.path.exists()
    with lock.hold(run):
        run.write_text("config.json", "{}")
    assert sorted(path.name for path in run.path.iterdir()) == [lock.FILE, "config.json"]
    (tmp_path / "mine").mkdir()
    for inside in ([], ["notes.txt"]):
        for name in inside:
            (tmp_path / "mine" / name).write_text("")
        with pytest.raises(UserError, match="refused"), lock.hold(Run(tmp_path / "mine")):
            raise refused
        assert [path.name for path in (tmp_path / "mine").iterdir()] == inside
    with pytest.raises(UserError, match="refused"), lock.hold(Run(tmp_path / "mine/of/several")):
        raise refused
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_a_lock_that_its_holder_has_just_removed_holds_nothing(tmp_path, monkeypatch):
    """Another process may already have a new one."""
    run, take = Run(tmp_path), fcntl.flock

    def too_late(file, how):
        os.unlink(tmp_path / lock.FILE)
        take(file, how)

    monkeypatch.setattr(lock.fcntl, "flock", too_late)
    with pytest.raises(UserError, match="is in use by another process"), lock.hold(run):
        pytest.fail("held")


def test_a_new_folder_that_was_removed_hides_no_mistake(tmp_path):
    def mistaken():
        with lock.hold(Run(tmp_path / "run")):
            shutil.rmtree(tmp_path / "run")
            raise UserError("the mistake")

    with pytest.raises(UserError, match="the mistake"):
        mistaken()


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UserError, match="cannot make the folder"),
        lock.hold(Run(tmp_path / "file" / "run")),
    ):
        pytest.fail("held")


def test_a_remote_folder_is_held_by_a_file_that_is_renewed(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "LEASE_SECONDS", 0.04)
    file, renewed = tmp_path / lock.FILE, threading.Event()
    write = Run.write_json

    def watched(run, name, content):
        write(run, name, content)
        if content["renewed"] > first:
            renewed.set()

    first = float("inf")
    monkeypatch.setattr(Run, "write_json", watched)
    with lock.leased(Run(tmp_path)):
        first = json.loads(file.read_text())["renewed"]
        assert renewed.wait(60)
    assert not file.exists()


def test_a_remote_folder_in_use_is_refused_until_its_holder_is_silent(tmp_path, monkeypatch):
    run = Run(tmp_path)
    with lock.leased(run):
        holder = json.loads((tmp_path / lock.FILE).read_text())
        with pytest.raises(UserError, match=rf"in use by process {holder['pid']} on "):
            lock.leased(run).__enter__()
    run.write_json(lock.FILE, holder | {"renewed": holder["renewed"] - lock.LEASE_SECONDS})
    with lock.leased(run):
        pass
    run.write_text(lock.FILE, "half of a fi")
    with lock.leased(run):
        pass
