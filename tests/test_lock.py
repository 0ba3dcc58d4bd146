"""A run's folder has one user at a time."""

import contextlib
import fcntl
import json
import os
import threading

import pytest

from rice_jax import lock
from rice_jax.errors import UserError
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
            pass
        assert json.loads(file.read_text())["pid"] == os.getpid()  # let go by nobody yet
        with file.open() as again, pytest.raises(BlockingIOError):
            fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with file.open() as again:
        fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UserError, match="cannot make the run's folder"),
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
