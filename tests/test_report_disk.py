"""A disk that is full, closed or gone while the report is written: a line, and whole files."""

import contextlib
import os
import resource
import shutil
import tempfile
from pathlib import Path

import pytest
from report_runs import make_run

from rice_jax import lock, report
from rice_jax.errors import UserError
from rice_jax.report import figures, saving, writing
from rice_jax.run import Run


@contextlib.contextmanager
def files_of_at_most(size):
    """As on a disk that is full: no file grows beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextlib.contextmanager
def nobody():
    """The rights of a user who owns nothing: folders are closed to root by no permission."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def names(run):
    return {path.name for path in run.path.iterdir()}


def test_a_folder_on_a_full_disk_is_named_and_free_again(tmp_path):
    run = Run(tmp_path / "new")
    with (
        files_of_at_most(0),
        pytest.raises(UserError, match=r"cannot write to the run's folder .*new: File too large"),
        lock.hold(run),
    ):
        pytest.fail("held")
    assert not run.path.exists()
    with lock.hold(run):
        pass


def test_a_disk_that_fills_up_while_figures_are_written(tmp_path):
    run = make_run(tmp_path)
    report.write(run)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    run.write_text("history.csv", before["history.csv"].decode() + "4,1,1,1,1,0.001,2,9\n")
    with (
        files_of_at_most(4096),
        pytest.raises(UserError, match=r"cannot write .*curves\.png: File too large"),
    ):
        report.write(run)
    assert names(run) == before.keys(), "nothing half written stays"
    assert (tmp_path / "curves.png").read_bytes() == before["curves.png"]
    report.write(run)
    assert (tmp_path / "curves.png").read_bytes() != before["curves.png"]


@pytest.mark.parametrize("room", ["its own", "none", "enough"])
def test_no_page_says_for_ever_that_a_stage_is_under_way(tmp_path, monkeypatch, room):
    run = make_run(tmp_path)
    writing.watch(run, "train")
    write = Run.write_bytes

    def written(target, name, content):
        if room == "none" or (room == "its own" and target.has(name)):
            raise UserError(f"cannot write {name}: No space left on device")
        return write(target, name, content)

    monkeypatch.setattr(Run, "write_bytes", written)
    with pytest.raises(UserError) if room != "enough" else contextlib.nullcontext():
        writing.watch(run, "evaluate")
    assert run.has("report.html"), "what is under way goes on"
    with pytest.raises(UserError) if room == "none" else contextlib.nullcontext():
        writing.watch(run, "")
    assert run.has("report.html") == (room != "none")
    assert room == "none" or "Under way" not in (tmp_path / "report.html").read_text()


def test_a_folder_that_is_read_only():
    with tempfile.TemporaryDirectory() as folder:  # pytest's own is closed to other users
        run = make_run(Path(folder))
        os.chmod(folder, 0o555)
        before = names(run)
        with nobody():
            with pytest.raises(UserError, match=r"cannot write .*summary\.json: Permission"):
                report.write(run)
            with pytest.raises(UserError, match=r"cannot write to the run's folder .*: Permission"):
                lock.hold(run).__enter__()
        assert names(run) == before
        os.chmod(folder, 0o755)


def test_a_folder_that_is_removed_while_figures_are_drawn(tmp_path, monkeypatch):
    run = make_run(tmp_path / "run")
    draw = saving.style.drawn

    def removed(figure):
        shutil.rmtree(run.path, ignore_errors=True)
        return draw(figure)

    monkeypatch.setattr(saving.style, "drawn", removed)
    with pytest.raises(UserError, match=r"cannot write .*run/curves\.png: No such file"):
        report.write(run)
    assert not run.path.exists()


def confusions(names):
    for index, name in enumerate(names):
        yield name, figures.confusion_matrix(([0], [0], [1 + index]), ["a"])


def test_each_picture_is_saved_as_it_is_drawn(tmp_path):
    run = make_run(tmp_path / "run")
    wanted = ["a.png", "b.png", "c.png"]
    saving.save(run, confusions(wanted))
    for name, figure in confusions(wanted):
        assert (run.path / name).read_bytes() == figures.png(figure)
    before = names(run)
    saving.save(run, ())
    assert names(run) == before


@pytest.mark.parametrize("last", [False, True])
def test_the_first_picture_that_cannot_be_written_is_told_and_ends_it(tmp_path, last):
    run, drawn = make_run(tmp_path / "run"), []
    (run.path / "b.png").mkdir()
    given = ["a.png", "b.png"] if last else ["a.png", "b.png", "c.png", "d.png", "e.png"]

    def noted():
        for name, figure in confusions(given):
            drawn.append(name)
            yield name, figure

    with pytest.raises(UserError, match=r"cannot write .*b\.png"):
        saving.save(run, noted())
    assert drawn == given[:3]
    assert (run.path / "a.png").is_file()
    assert not (run.path / "c.png").exists()
