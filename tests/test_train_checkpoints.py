"""Which checkpoints are kept, and what is told where the system refuses one."""

import errno
import gc
import itertools
import os
import resource
import shutil
import sys
import types
import warnings

import jax
import numpy as np
import processes
import pytest
from etils import epath
from tiny_checkpoints import limit_of, make, numbers, read, write

from rice_jax.errors import UserError
from rice_jax.train import checkpoint_folder, orbax_quiet
from rice_jax.train.checkpoints import Checkpoints

# TensorStore, having failed, tells it to an event loop of Orbax's that is closed by then.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def test_what_is_saved_is_restored(tmp_path):
    assert read(tmp_path) is None
    saved = make(3)
    write(tmp_path, saved)
    found = read(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, found.state, saved.state)
    assert (found.progress, found.origin) == (saved.progress, saved.origin)


COMPILED = """
import sys, jax, numpy as np
from tiny_checkpoints import make, read, write

assert jax.device_count() == 2
saved, compiled = make(3), []

def note(event, seconds, **about):
    if event.endswith("backend_compile_duration"):
        compiled.append(about)

jax.monitoring.register_event_duration_secs_listener(note)
write(sys.argv[1], saved)
assert not compiled, compiled
jax.tree.map(np.testing.assert_array_equal, read(sys.argv[1]).state, saved.state)
"""


def test_nothing_is_compiled_to_save_what_several_devices_have(tmp_path):
    paths = [os.path.dirname(__file__), *sys.path]
    arguments = ["-c", COMPILED, tmp_path / "run"]
    done = processes.start(arguments, devices=2, PYTHONPATH=os.pathsep.join(paths))
    _, said = done.communicate()
    assert done.returncode == 0, said


def test_the_newest_two_and_the_best_are_kept(tmp_path):
    write(tmp_path, *(make(step, best=2 if step >= 2 else step) for step in range(1, 8)))
    assert numbers(tmp_path) == [2, 6, 7]
    assert read(tmp_path).progress.step == 7
    assert read(tmp_path, "best").progress.step == 2


def test_the_former_best_is_kept_until_it_can_no_longer_be_wanted(tmp_path):
    """If the newest is damaged, the one before it knows another best."""
    write(tmp_path, *(make(step, best=1) for step in range(1, 5)), make(5, best=5))
    assert numbers(tmp_path) == [1, 4, 5]
    write(tmp_path, make(6, best=5))
    assert numbers(tmp_path) == [5, 6]


def test_a_write_cut_short_is_no_checkpoint(tmp_path):
    write(tmp_path, make(1), make(2))
    shutil.move(tmp_path / "2", tmp_path / "2.orbax-checkpoint-tmp")
    assert read(tmp_path).progress.step == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1"]
    write(tmp_path, make(3))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "3"]


def written_to(monkeypatch, times):
    """A folder into which a failed save still writes as it is removed, so many times."""
    rmdir, left = os.rmdir, itertools.repeat(None) if times is None else iter(range(times))

    def meets_another_file(name, *, dir_fd=None):
        if next(left, "over") != "over":
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), str(name))
        rmdir(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "rmdir", meets_another_file)
    waits = types.SimpleNamespace(monotonic=itertools.count().__next__, sleep=lambda seconds: None)
    monkeypatch.setattr(checkpoint_folder, "time", waits)


@pytest.mark.parametrize("times", [0, 1, 3])
def test_a_failed_save_that_still_writes_is_waited_for(tmp_path, monkeypatch, times):
    write(tmp_path, make(1), make(2))
    shutil.move(tmp_path / "2", tmp_path / "2.orbax-checkpoint-tmp")
    written_to(monkeypatch, times)
    assert read(tmp_path).progress.step == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1"]


def test_a_failed_save_that_never_ends_is_a_line(tmp_path, monkeypatch):
    write(tmp_path, make(1), make(2))
    shutil.move(tmp_path / "2", tmp_path / "2.orbax-checkpoint-tmp")
    written_to(monkeypatch, None)
    with pytest.raises(UserError, match=r"cannot save in .*: Directory not empty; once that is "):
        read(tmp_path)


@pytest.mark.parametrize("alone", [False, True])
def test_what_another_process_is_writing_is_not_removed_where_reading_fails(
    tmp_path, monkeypatch, alone
):
    write(tmp_path, make(1))
    (tmp_path / "2.orbax-checkpoint-tmp").mkdir()
    checkpoints = Checkpoints(epath.Path(tmp_path), read_only=alone)
    (tmp_path / "3.orbax-checkpoint-tmp").mkdir()

    def fails():
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(checkpoints._manager, "close", fails)
    with pytest.raises(UserError, match="Input/output error"):
        checkpoints.close()
    left = {path.name.partition(".")[0] for path in tmp_path.iterdir()}
    assert left == ({"1", "2", "3"} if alone else {"1"})


@pytest.mark.parametrize("size", [0, 100, 1000])
def test_what_the_system_refuses_is_told_in_its_own_words(tmp_path, size):
    write(tmp_path, make(1))
    with (
        limit_of(resource.RLIMIT_FSIZE, size),
        pytest.raises(UserError, match=r"cannot save in [^:]*: File too large; once that is [^:]*"),
    ):
        write(tmp_path, make(2))
    left = [path.name for path in tmp_path.iterdir()]
    assert left == ["1"], "nothing half written stays: of it the disk may be full"
    assert read(tmp_path).progress.step == 1


def test_what_is_saved_already_stays_as_it_is(tmp_path):
    write(tmp_path, make(1), make(2), make(2))
    write(tmp_path, make(2))
    assert read(tmp_path).progress.step == 2
    write(tmp_path, make(3))
    assert read(tmp_path).progress.step == 3


def able_to_open(files):
    """Let this process open so many files more."""
    taken = set(map(int, os.listdir("/dev/fd")))
    free = (number for number in itertools.count() if number not in taken)
    return limit_of(resource.RLIMIT_NOFILE, next(itertools.islice(free, files, None)))


def refusal(action):
    """What is told as an error, if anything."""
    try:
        action()
    except (UserError, OSError) as error:
        return str(error)
    return ""


@pytest.mark.parametrize(("package", "told"), [("orbax/checkpoint", 0), ("somebody", 1)])
def test_a_read_of_orbax_s_that_was_given_up_says_nothing_of_its_own(package, told, monkeypatch):
    """Where several arrays are damaged one is told, and the reads of the others are dropped."""
    source = """async def read():
    try:
        await forever
    finally:
        raise OSError("damaged too")
"""
    names = {"forever": types.coroutine(lambda: (yield))()}
    exec(compile(source, f"site-packages/{package}/serialization.py", "exec"), names)
    added = []
    monkeypatch.setattr(sys, "unraisablehook", added.append)
    orbax_quiet.forget_lost_reads.cache_clear()
    orbax_quiet.forget_lost_reads()
    read = names["read"]()
    read.send(None)
    del read
    gc.collect()
    orbax_quiet.forget_lost_reads.cache_clear()
    assert len(added) == told


@pytest.mark.parametrize("files", range(1, 12, 2))
@pytest.mark.one_in(6)
def test_where_too_few_files_can_be_opened_one_error_tells_so(tmp_path, files, monkeypatch):
    """And nothing is lost; Python has nothing to add of event loops that could not be made."""
    write(tmp_path, make(1), make(2))
    added, saved = [], make(9)
    gc.collect()  # what other tests' failed restores have left
    monkeypatch.setattr(sys, "unraisablehook", added.append)
    orbax_quiet.forget_lost_reads.cache_clear()
    with warnings.catch_warnings(record=True) as warned:
        with able_to_open(files):
            told = refusal(lambda: write(tmp_path, saved))
        gc.collect()
    orbax_quiet.forget_lost_reads.cache_clear()
    assert not told or "Too many open files" in told
    assert not [*added, *warned]
    # As another process would, for in this one threads of Orbax's may still be writing.
    assert read(tmp_path, read_only=True).progress.step == (2 if told else 9)
