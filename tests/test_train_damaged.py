"""That a damaged checkpoint is never taken for a whole one, and another's files stay."""

import contextlib
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_checkpoints import ORIGIN, like, make, numbers, read, write

from rice_jax.errors import UserError
from rice_jax.train import state
from rice_jax.train.checkpoints import Checkpoint, Checkpoints
from rice_jax.train.feed import data_mesh
from rice_jax.train.progress import Progress

# TensorStore, having failed, tells it to an event loop of Orbax's that is closed by then.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


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


@settings(max_examples=25)
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


def closed_too_early(error):
    """As asyncio's cleaning up tells it."""
    try:
        raise error
    finally:
        raise RuntimeError("Cannot close a running event loop")


def read_in_vain(error):
    """As TensorStore tells what Python raises while it reads."""
    raise ValueError("Encountered error while reading array index: ()") from error


@pytest.mark.parametrize("which", ["newest", "best"])
@pytest.mark.parametrize("item", ["meta", "state"])
@pytest.mark.parametrize("told", [closed_too_early, read_in_vain])
def test_a_ctrl_c_while_it_is_read_is_no_damage(sound, monkeypatch, capsys, told, item, which):
    """Steps were lost: training went on from the one before it."""
    checkpoints = Checkpoints(epath.Path(sound), read_only=True)
    restore = checkpoints._manager.restore

    def interrupted(number, args):
        if item in args:
            told(KeyboardInterrupt())
        return restore(number, args=args)

    monkeypatch.setattr(checkpoints._manager, "restore", interrupted)
    with contextlib.closing(checkpoints), pytest.raises(KeyboardInterrupt):
        getattr(checkpoints, which)(like)
    assert not capsys.readouterr().out


def test_where_none_is_whole_training_does_not_begin_anew(sound, tmp_path):
    shutil.copytree(sound, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "1")
    empty_numbers(tmp_path)
    with pytest.raises(
        UserError, match=r"every checkpoint in .* is damaged: rice-jax train with --restart"
    ):
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
