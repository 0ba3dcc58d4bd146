"""What a user names as a file: remote places that cannot be reached, pipes and devices."""

import os
import socket

import pytest
import tiny_training
from etils import epath

from rice_jax import files, lock, train
from rice_jax.commands import named
from rice_jax.data.archive import open_archive
from rice_jax.errors import UserError
from rice_jax.export import artifact
from rice_jax.records import read_history
from rice_jax.run import Run


@pytest.fixture(params=["pipe", "device", "socket"])
def endless(request, tmp_path, monkeypatch):
    """A place that opens and never ends, or never answers: whoever reads it hangs."""
    monkeypatch.chdir(tmp_path)  # a socket's path has no 100 characters
    match request.param:
        case "pipe":
            os.mkfifo("odd")
        case "device":
            os.symlink("/dev/zero", "odd")
        case "socket":
            with socket.socket(socket.AF_UNIX) as listening:
                listening.bind("odd")
    return "odd"


@pytest.mark.parametrize("reader", [open_archive, lambda path: Run(".").read_json(path)])
def test_what_has_no_end_is_not_read(reader, endless):
    with pytest.raises(UserError, match="odd: it is a pipe or a device"):
        reader(endless)


@pytest.mark.parametrize("suffix", [".onnx", ".stablehlo", ".tflite"])
def test_a_pipe_is_no_exported_net(suffix, tmp_path):
    path = tmp_path / f"net{suffix}"
    os.mkfifo(path)
    with pytest.raises(UserError, match="it is a pipe or a device"):
        artifact.read(str(path))


def initial(path):
    """The parameters out of a file of weights."""
    config = tiny_training.config()
    config.model.weights = path
    return train.initial_params(config, train.build(config))


@pytest.mark.parametrize(
    ("name", "reader"),
    [
        *((f"net{suffix}", artifact.read) for suffix in artifact.RUNTIMES),
        *((f"net{suffix}", initial) for suffix in (".h5", ".msgpack", ".safetensors")),
        ("net.py", named.load),
        ("net.json", lambda path: Run(".").read_json(path)),
    ],
)
def test_a_file_beyond_any_of_its_kind_is_not_read(name, reader, tmp_path):
    path = tmp_path / name
    path.touch()
    os.truncate(path, 20 << 30)  # of holes alone
    with pytest.raises((UserError, OSError), match="has 21,475 MB, far more than any file of its"):
        reader(str(path))


@pytest.mark.parametrize("place", ["foo://x", "http://host/images.zip", "FILE://x", "s3a://b/c"])
@pytest.mark.parametrize("reader", [open_archive, Run, files.named])
def test_a_place_that_nothing_reads_is_told_by_its_kind(reader, place):
    kind = place.partition("://")[0]
    with pytest.raises(UserError, match=f"{kind}:// cannot be read; give a local path"):
        reader(place)


@pytest.mark.parametrize("error", [ImportError("Please install gcsfs"), OSError("no route")])
def test_a_bucket_that_cannot_be_reached_says_why(error, monkeypatch):
    def refused(path):
        raise error

    monkeypatch.setattr(epath.gpath.PosixGPath, "exists", refused)
    with pytest.raises(UserError, match=f"gs://bucket/x cannot be reached: {error}"):
        files.reached("gs://bucket/x")


def test_the_home_is_where_the_tilde_says(monkeypatch):
    monkeypatch.setenv("HOME", "/somewhere")
    assert os.fspath(files.named("~/images")) == "/somewhere/images"


def test_a_pipe_among_a_run_s_files_is_refused(tmp_path):
    os.mkfifo(tmp_path / "history.csv")
    with pytest.raises(UserError, match=r"history\.csv is damaged"):
        read_history(Run(tmp_path))
    os.mkfifo(tmp_path / lock.FILE)
    with pytest.raises(UserError, match="it is a pipe or a device"), lock.hold(Run(tmp_path)):
        pass


@pytest.mark.parametrize("name", ["a/" * 3000, "a" * 5000, "gs://" + "a" * 5000])
def test_what_is_longer_than_any_path_is_refused(name):
    with pytest.raises(UserError, match=r"\.\.\.: no path has [56],0"):
        files.named(name)


@pytest.mark.parametrize(
    ("told", "given", "same"),
    [
        ("runs/a", "runs/a", True),
        ("runs/a", "a", True),  # from runs, where it is runs/a of the folder above
        ("runs/a", "{here}/a", True),
        ("../runs/a", "a", True),
        ("{here}/a", "a", True),
        ("{here}/link", "a", True),
        ("runs/link", "link", True),
        ("link", "a", True),
        ("{here}/b", "a", False),
        ("runs/b", "a", False),
        ("uns/a", "a", False),  # names, not letters
        ("other/a", "a", False),
        (".", "a", False),
        ("..", "a", False),
        ("", "a", False),
        ("a", "", False),
        ("", "", True),
        ("zoo:final", "zoo:final", True),
        ("zoo:final", "zoo:micro", False),
        ("random", "a", False),
        ("gs://bucket/runs/a", "gs://bucket/runs/a", True),
        ("gs://bucket/runs/a", "gs://other/runs/a", False),
        ("runs/a", "gs://bucket/runs/a", False),
    ],
)
def test_a_path_that_a_file_tells_is_of_the_place_that_one_given_elsewhere_leads_to(
    told, given, same, tmp_path, monkeypatch
):
    here = tmp_path / "runs"
    for name in ("a", "b"):
        (here / name).mkdir(parents=True)
    (here / "link").symlink_to(here / "a")
    monkeypatch.chdir(here)
    assert files.same_place(told.format(here=here), given.format(here=here)) is same
