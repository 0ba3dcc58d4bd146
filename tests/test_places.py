"""A place that cannot be written is told before a command begins its work."""

import os

import commands
import pytest
import tiny_training

from rice_jax import prediction, train
from rice_jax.config import to_json
from rice_jax.export import exporting
from rice_jax.run import Run

EXPORT = {
    ".stablehlo": ("export", "--workdir=run", "--out={}/net.stablehlo"),
    ".onnx": ("export", "--workdir=run", "--out={}/net.onnx"),
    ".tflite in int8": ("export", "--workdir=run", "--out={}/net.tflite", "--int8"),
}
WRITES = EXPORT | {
    "maps of an image": ("predict", "--workdir=run", "photo.jpg", "--explain={}"),
    "maps of a list": ("predict", "--workdir=run", "-", "--explain={}"),
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a run; a command that begins its work there fails."""
    run = Run(tmp_path / "run")
    run.create()
    run.write_json("config.json", {"config": to_json(tiny_training.config()), "data": None})
    for name in ("photo.jpg", "file"):
        (tmp_path / name).write_text("")
    (tmp_path / "link").symlink_to("nowhere")
    monkeypatch.chdir(tmp_path)
    for room, work in (
        (train, "load"),
        (prediction, "answer"),
        (exporting, "calibration_images"),
    ):
        monkeypatch.setattr(room, work, lambda *_, **__: pytest.fail("too early"))
    return tmp_path


def refused(command, place, here):
    """What is said of a place by a command that ends at once and leaves nothing behind."""
    before = sorted(here.rglob("*"))
    done = commands.run(*(argument.format(place) for argument in command))
    assert done.returncode == 1
    assert sorted(here.rglob("*")) == before
    [line] = done.stderr.splitlines()
    return line


@pytest.mark.parametrize("place", ["file", "file/new", "link", "link/new"])
@pytest.mark.parametrize("command", WRITES.values(), ids=WRITES)
def test_where_no_folder_can_be(command, place, here):
    above = here / place.partition("/")[0]
    assert refused(command, place, here) == (
        f"error: cannot make the folder {place}: {above} is no folder"
    )


@pytest.mark.parametrize("place", ["new", "new/below", "run/maps"])
@pytest.mark.parametrize("command", WRITES.values(), ids=WRITES)
def test_where_none_may_be_made(command, place, here, monkeypatch):
    closed = here / "run" if place.startswith("run") else here
    real = os.access
    monkeypatch.setattr(  # the superuser may write anywhere
        os, "access", lambda at, mode: real(at, mode) and not (mode & os.W_OK)
    )
    said = f"error: cannot write in the folder {closed}: it is not permitted"
    assert refused(command, place, here) == said


@pytest.mark.parametrize("command", EXPORT.values(), ids=EXPORT)
def test_where_a_folder_has_the_name_of_the_file(command, here):
    out = command[2].format("new").removeprefix("--out=")
    (here / out).mkdir(parents=True)
    assert refused(command, "new", here) == f"error: --out={out}: a folder is there"
