"""How far a long task is, told in a log."""

import io
import os
import sys
import threading
import types

import data_files
import pytest

from rice_jax import bar, data
from rice_jax.data import builder
from rice_jax.data.parallel import progress
from rice_jax.export.native import stderr_kept_back
from rice_jax.train.display import Display


@pytest.fixture
def clock(monkeypatch):
    """The seconds at which the clock is looked at, to be filled in; the last one stays."""
    seconds = []

    def look():
        return seconds.pop(0) if len(seconds) > 1 else seconds[0]

    monkeypatch.setattr(bar, "time", types.SimpleNamespace(monotonic=look))
    monkeypatch.setattr(bar, "_LOOK_SECONDS", 3600)  # the thread does not look
    return seconds


def test_an_epoch_is_told_of_each_few_seconds_at_first(clock, capsys):
    clock += [0, 3.9, 4, 7.9, 8.1]
    display = Display(epochs=2)
    display.begin("epoch 1/2", 100, done=10)
    for loss in (0.9, 0.8, 0.7):
        display.advance(20, loss)
    display.advance(10)
    display.end()
    assert capsys.readouterr().err.splitlines() == [
        "epoch 1/2: 50 of 100 images  loss 0.8000",
        "epoch 1/2: 80 of 100 images",
    ]


@pytest.mark.parametrize(("begun", "pause"), [(20, 4), (150, 15), (1000, 30), (10**5, 30)])
def test_a_long_task_is_told_of_less_often(begun, pause, clock, capsys):
    clock += [0, begun, begun + 0.89 * pause, begun + 1.12 * pause]
    with bar.Bar("epoch 1/2", 100) as told:
        for _ in range(3):
            told.advance(1)
    assert [line.split()[2] for line in capsys.readouterr().err.splitlines()] == ["1", "3"]


def test_no_two_lines_of_a_task_that_rests_are_the_same(clock, capsys):
    clock += [0, 5, 6, 10, 15]
    with bar.Bar("epoch 1/2", 100) as told:
        for images in (0, 20, 0, 0):
            told.advance(images)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "epoch 1/2: 0 of 100 images, 5 s",
        "epoch 1/2: 20 of 100 images",
        "epoch 1/2: 20 of 100 images, 15 s",
    ]


def test_short_tasks_after_each_other_do_not_make_a_long_silence(clock, capsys):
    clock += [0, 3.5, 3.6, 4.1, 4.7, 4.8, 8.6, 8.7, 30, 30.1, 31.2]
    for task, looks in (("a", 1), ("b", 2), ("c", 1), ("d", 0), ("e", 2)):
        with bar.Bar(task, 9) as told:
            for _ in range(looks):
                told.advance(1)
    # b is half a second old at 4.1; c comes 3.9 s after its line; e after much that had no bar.
    assert capsys.readouterr().err.splitlines() == ["b: 2 of 9 images", "e: 2 of 9 images"]


def test_images_pass_by_unchanged_and_are_told_of(clock, capsys):
    clock += [0, 3, 5, 6]
    assert list(progress("abc", 3, "checking folder")) == ["a", "b", "c"]
    assert capsys.readouterr().err == "checking folder: 2 of 3 images\n"


def test_a_split_is_counted_once_in_however_many_files_it_is_kept(tmp_path, monkeypatch, capsys):
    for seconds in ("_OFTEN", "_SELDOM", "_SHORT"):  # each image is told of
        monkeypatch.setattr(bar, seconds, 0)
    monkeypatch.setattr(bar, "_LOOK_SECONDS", 3600)
    files = data_files.pictures(10)
    monkeypatch.setattr(builder, "_SHARD_BYTES", sum(map(len, files.values())) // 4)
    data.load(data_files.write_folder(tmp_path / "rice", files), tmp_path / "cache")
    assert len(list(tmp_path.glob("cache/*/*/*/*train*-of-*"))) > 3
    wanted = [
        f"preparing {split}: {number} of {images} images"
        for split, images in (("train", 40), ("validation", 5), ("test", 5))
        for number in range(1, images + 1)
    ]
    assert capsys.readouterr().err.splitlines() == wanted


@pytest.mark.parametrize(
    ("images", "line"), [(7, "compiling: 0 of 7 images, 5 s\n"), (None, "compiling: 5 s\n")]
)
def test_a_task_that_does_not_move_is_told_of_by_the_thread(images, line, monkeypatch):
    told, written = threading.Event(), []
    seconds = iter([0.0, 5.0])
    look = types.SimpleNamespace(monotonic=lambda: next(seconds, 5.0))
    stderr = types.SimpleNamespace(
        isatty=lambda: False,
        write=lambda text: (written.append(text), "\n" in text and told.set()),
        flush=lambda: None,
    )
    monkeypatch.setattr(bar, "time", look)
    monkeypatch.setattr(bar, "_LOOK_SECONDS", 0.001)
    monkeypatch.setattr(bar, "sys", types.SimpleNamespace(stderr=stderr))
    with bar.Bar("compiling", images):
        assert told.wait(60)
    assert "".join(written) == line


class Terminal(io.StringIO):
    def __init__(self):
        super().__init__()
        self.shown = threading.Event()

    def isatty(self):
        return True

    def write(self, text):
        if "counting" in text:
            self.shown.set()
        return super().write(text)


@pytest.mark.parametrize("images", [7, None])
def test_a_bar_that_the_thread_alone_has_shown_is_taken_away(images, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(bar, "_LOOK_SECONDS", 0.001)
    with bar.Bar("counting", images):
        assert terminal.shown.wait(60)
    *_, last, rest = terminal.getvalue().split("\r")
    assert (last.strip(), rest) == ("", "")


def test_a_failure_within_ends_the_telling():
    before = threading.active_count()
    with pytest.raises(ValueError, match="bad"), bar.Bar("compiling"):
        raise ValueError("bad")
    assert threading.active_count() == before


@pytest.mark.parametrize("begun", ["before", "meanwhile"])
@pytest.mark.parametrize("shown", ["in a log", "in a notebook"])
def test_a_task_is_told_of_while_a_library_is_kept_off_standard_error(
    begun, shown, clock, monkeypatch, capfd
):
    clock += [0, 5, 10, 15]
    notebook = io.StringIO()
    with open(2, "w", closefd=False) if shown == "in a log" else notebook as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        told = bar.Bar("calibrating", 9) if begun == "before" else None
        with stderr_kept_back() as said:
            os.write(2, b"a library's own\n")
            told = told or bar.Bar("calibrating", 9)
            told.advance(2)
            if shown == "in a log":
                print("of Python", file=sys.stderr, flush=True)
        told.advance(3)
        told.close()
        found = notebook.getvalue() + capfd.readouterr().err
        monkeypatch.undo()
    assert found == "calibrating: 2 of 9 images\ncalibrating: 5 of 9 images\n"
    assert said() == "a library's own\n" + ("of Python\n" if shown == "in a log" else "")
