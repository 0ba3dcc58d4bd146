"""Which checkpoints are kept, and that a damaged one is never taken for a whole one."""

import contextlib
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
import jax.numpy as jnp
import numpy as np
import processes
import pytest
from etils import epath
from hypothesis import given, settings
from hypothesis import strategies as st

from rice_jax.errors import UserError
from rice_jax.train import checkpoints, orbax_quiet, state
from rice_jax.train.checkpoints import Checkpoint, Checkpoints
from rice_jax.train.feed import data_mesh
from rice_jax.train.progress import Progress

# TensorStore, having failed, tells it to an event loop of Orbax's that is closed by then.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

ORIGIN = {"config": {"seed": 0}, "classes": ["a", "b"], "fingerprint": "tiny"}


def make(step, best=0, epoch=0):
    """A checkpoint of step `step`; its numbers tell which it is."""
    params = {"conv1": {"kernel": jnp.arange(40.0) + step}, "head": {"bias": jnp.ones(2)}}
    made = state.create(params, ("head",)).replace(step=jnp.int32(step))
    progress = Progress(learning_rate=1e-3, step=step, epoch=epoch, best_checkpoint=best)
    return Checkpoint(state.replicate(made, data_mesh()), progress, ORIGIN)


def like(origin):
    assert origin == ORIGIN
    return state.replicated(jax.eval_shape(lambda: make(0).state), data_mesh())


def write(folder, *saved):
    checkpoints = Checkpoints(epath.Path(folder))
    for checkpoint in saved:
        checkpoints.save(checkpoint)
    checkpoints.close()


def read(folder, which="newest", **how):
    checkpoints = Checkpoints(epath.Path(folder), **how)
    try:
        return getattr(checkpoints, which)(like)
    finally:
        checkpoints.close()


def numbers(folder):
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())


def test_what_is_saved_is_restored(tmp_path):
    assert read(tmp_path) is None
    saved = make(3)
    write(tmp_path, saved)
    found = read(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, found.state, saved.state)
    assert (found.progress, found.origin) == (saved.progress, saved.origin)


COMPILED = """
import sys, jax, numpy as np
from test_train_checkpoints import make, read, write

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
    monkeypatch.setattr(checkpoints, "time", waits)


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


@contextlib.contextmanager
def limit_of(kind, limit):
    """Hold this process to a limit of the system's, one of `resource`'s kinds."""
    usual = resource.getrlimit(kind)
    resource.setrlimit(kind, (limit, usual[1]))
    try:
        yield
    finally:
        resource.setrlimit(kind, usual)


@pytest.mark.parametrize("size", [0, 100, 1000])
def test_what_the_system_refuses_is_told_in_its_own_words(tmp_path, size):
    write(tmp_path, make(1))
    with (
        limit_of(resource.RLIMIT_FSIZE, size),
        pytest.raises(UserError, match=r"cannot save in [^:]*: File too large; once that is [^:]*"),
    ):
        write(tmp_path, make(2))
    assert read(tmp_path).progress.step == 1


def test_what_is_saved_already_stays_as_it_is(tmp_path):
    write(tmp_path, make(1), make(2), make(2))
    write(tmp_path, make(2))
    assert read(tmp_path).progress.step == 2
    write(tmp_path, make(3))
    assert read(tmp_path).progress.step == 3


@pytest.mark.parametrize("hole", [0, 50 << 30])
def test_a_checkpoint_that_claims_more_than_its_files_can_hold_is_damaged(tmp_path, capsys, hole):
    def hollow(step):
        made = state.create({"head": {"kernel": jnp.zeros((3000, 2000))}}, ())
        progress = Progress(learning_rate=1e-3, step=step)
        return Checkpoint(state.replicate(made, data_mesh()), progress, ORIGIN)

    write(tmp_path, hollow(1))
    with (tmp_path / "1" / "state" / "d" / "hole").open("w") as file:
        file.truncate(hole)
    checkpoints = Checkpoints(epath.Path(tmp_path), read_only=True)
    shapes = state.replicated(jax.eval_shape(lambda: hollow(1).state), data_mesh())
    with contextlib.closing(checkpoints), pytest.raises(UserError, match="is damaged"):
        checkpoints.newest(lambda origin: shapes)
    assert "it tells of 72 MB and has 0.0" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["state/_METADATA", "state/manifest.ocdbt", "meta/metadata"])
def test_a_description_larger_than_any_is_not_read(tmp_path, capsys, name):
    write(tmp_path, make(1), make(2))
    with (tmp_path / "2" / name).open("r+") as file:
        file.truncate(50 << 30)
    assert read(tmp_path).progress.step == 1
    assert "2 is damaged" in (said := capsys.readouterr().out)
    assert "has 53,687 MB" in said


def test_a_pipe_in_a_checkpoint_is_damage(tmp_path, capsys):
    write(tmp_path, make(1), make(2))
    os.mkfifo(tmp_path / "2" / "state" / "odd")
    assert read(tmp_path).progress.step == 1
    assert "2 is damaged (it is a pipe or a device" in capsys.readouterr().out


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound")
    write(folder, make(1), make(2))
    return folder


def files(folder):
    """What Orbax wrote about the numbers, without its notes on the write itself."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)


@settings(deadline=None, max_examples=25)
@given(st.data())
def test_a_flipped_or_missing_byte_is_noticed_or_changes_nothing(sound, tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("damaged")
    shutil.copytree(sound, folder, dirs_exist_ok=True)
    path = data.draw(st.sampled_from(files(folder / "2")))
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content[place] ^= data.draw(st.integers(1, 255))
    else:
        del content[place:]
    path.write_bytes(content)
    found = read(folder)
    whole = make(found.progress.step)
    jax.tree.map(np.testing.assert_array_equal, found.state, whole.state)
    assert found.progress == whole.progress
    shutil.rmtree(folder)


def empty_numbers(folder):
    """Make the newest checkpoint's arrays unreadable."""
    for path in (folder / "2" / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")


def test_a_damaged_one_is_named_and_the_one_before_it_is_used(sound, tmp_path, capsys):
    shutil.copytree(sound, tmp_path, dirs_exist_ok=True)
    empty_numbers(tmp_path)
    assert read(tmp_path).progress.step == 1
    assert f"{tmp_path}/2 is damaged" in capsys.readouterr().out
    assert numbers(tmp_path) == [1, 2], "reading deletes nothing"


def test_a_damaged_one_makes_room_when_training_comes_to_its_step_again(sound, tmp_path):
    shutil.copytree(sound, tmp_path, dirs_exist_ok=True)
    empty_numbers(tmp_path)
    checkpoints = Checkpoints(epath.Path(tmp_path))
    assert checkpoints.newest(like).progress.step == 1
    checkpoints.save(make(2))
    checkpoints.close()
    assert read(tmp_path).progress.step == 2
    assert numbers(tmp_path) == [1, 2]


@pytest.mark.parametrize("which", ["newest", "best"])
@pytest.mark.parametrize("part", ["meta", "state"])
def test_what_the_system_refuses_to_read_is_no_damage(sound, tmp_path, part, which):
    """A permission or a disk's error passes: nothing is begun anew, nothing goes meanwhile."""
    shutil.copytree(sound, tmp_path, dirs_exist_ok=True)
    for path in files(tmp_path / "2" / part):
        path.unlink()
        path.symlink_to(path.name)  # which refuses also the superuser
    with pytest.raises(UserError, match=r"cannot read a checkpoint: .*Too many levels"):
        read(tmp_path, which)
    assert numbers(tmp_path) == [1, 2]


@pytest.mark.parametrize("said", ["PERMISSION_DENIED: [OS error 13: EACCES]", "[OS error 24: E]"])
def test_what_the_system_refuses_while_it_is_read_is_no_damage(sound, monkeypatch, said):
    """TensorStore tells it in the text of an error of another kind."""
    checkpoints = Checkpoints(epath.Path(sound), read_only=True)
    restore = checkpoints._manager.restore

    def refused(number, args):
        if "state" in args:
            raise ValueError(f'Error opening "d/0389": {said} [tensorstore_spec=...]')
        return restore(number, args=args)

    monkeypatch.setattr(checkpoints._manager, "restore", refused)
    with pytest.raises(UserError, match="cannot read a checkpoint"):
        checkpoints.newest(like)
    checkpoints.close()


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
def test_where_too_few_files_can_be_opened_one_error_tells_so(sound, tmp_path, files, monkeypatch):
    """And nothing is lost; Python has nothing to add of event loops that could not be made."""
    shutil.copytree(sound, tmp_path, dirs_exist_ok=True)
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


def test_where_none_is_whole_training_does_not_begin_anew(sound, tmp_path):
    shutil.copytree(sound, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "1")
    empty_numbers(tmp_path)
    with pytest.raises(UserError, match=r"every checkpoint in .* is damaged: give --restart"):
        read(tmp_path)
    assert numbers(tmp_path) == [2]


@pytest.mark.parametrize("which", ["newest", "best"])
@pytest.mark.parametrize("name", ["model.pt", "model/weights.bin"])
def test_anothers_folder_of_a_number_is_no_checkpoint_and_stays(sound, tmp_path, name, which):
    shutil.copytree(sound, tmp_path, dirs_exist_ok=True)
    foreign = tmp_path / "100" / name
    foreign.parent.mkdir(parents=True)
    foreign.write_bytes(b"weights")
    with pytest.raises(UserError, match=f"{tmp_path}/100 is no checkpoint of this program"):
        read(tmp_path, which)
    assert foreign.read_bytes() == b"weights"


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("name", ["{}", "{}.orbax-checkpoint-tmp", "old/{}", "{}.txt"])
def test_a_folder_of_more_than_any_run_s_checkpoints_is_refused(sound, tmp_path, name, read_only):
    """Each would be looked at; none is taken for damage, and none goes."""
    shutil.copytree(sound, tmp_path, dirs_exist_ok=True)
    many = [tmp_path / name.format(number) for number in range(1_000, 1_100)]
    for path in many:
        path.mkdir(parents=True)
    if many[0].parent == tmp_path:
        with pytest.raises(UserError, match="more than 100 files and folders, and a run has a few"):
            read(tmp_path, read_only=read_only)
    else:  # not among them
        assert read(tmp_path, read_only=read_only).progress.step == 2
    assert all(path.exists() for path in many)


def test_where_none_is_whole_there_is_no_best(sound, tmp_path):
    shutil.copytree(sound, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "1")
    empty_numbers(tmp_path)
    with pytest.raises(UserError, match=r"every checkpoint in .* is damaged"):
        read(tmp_path, "best")
