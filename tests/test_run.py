"""Files of a run are whole or absent, JSON is strict, and what is wrong is said."""

import importlib.metadata
import json
import math
import os
import types

import numpy as np
import pytest

import rice_jax
from rice_jax import config as configuration
from rice_jax import identity, lock
from rice_jax import run as run_module
from rice_jax.errors import UserError
from rice_jax.run import Run


def test_json_is_strict_and_reads_back(tmp_path):
    run = Run(tmp_path / "run")
    run.create()
    run.write_json("a/b.json", {"x": math.nan, "y": [np.float32(0.5), np.int64(2)], 3: np.ones(2)})
    text = (tmp_path / "run" / "a" / "b.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == {"x": None, "y": [0.5, 2], "3": [1, 1]}
    assert run.read_json("a/b.json")["y"] == [0.5, 2]


def test_a_folder_is_known_however_it_is_spelled_or_linked_to(tmp_path, monkeypatch):
    run = Run(tmp_path / "run")
    run.create()
    (tmp_path / "link").symlink_to(run.path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for same in ("run", "./run/", "other/../run", "link", "link/", "~/run", tmp_path / "run"):
        assert run.is_at(same)
        assert Run(same).is_at(run.path)
    for other in ("runs", "run/checkpoints", ".", "gs://bucket/run"):
        assert not run.is_at(other)


def test_a_copy_that_is_not_installed_knows_its_version(tmp_path, monkeypatch):
    asked = importlib.metadata.version

    def version(name):
        if name == "rice_jax":
            raise importlib.metadata.PackageNotFoundError(name)
        return asked(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    identity.record(Run(tmp_path), configuration.default("micro"), None)
    versions = configuration.read(Run(tmp_path)).versions
    assert versions["rice_jax"] == rice_jax.__version__
    assert versions["jax"] == asked("jax")


@pytest.mark.parametrize("moment", [1_700_000_000_000_000_000, 1_700_000_000_999_999_999, 1])
def test_when_a_file_was_written_is_known_to_the_nanosecond(tmp_path, moment):
    run = Run(tmp_path)
    for name, at in (("config.json", moment), ("report.md", moment + 1)):
        run.write_text(name, "")
        os.utime(tmp_path / name, ns=(at, at))
    assert run.written("config.json") == moment
    assert run.written("report.md") - run.written("config.json") == 1
    with pytest.raises(FileNotFoundError):
        run.written("summary.json")


def test_json_that_nobody_reads_by_eye_has_no_spaces(tmp_path):
    run, large = Run(tmp_path), {"matrix": [[0] * 1000] * 1000}
    run.write_json("small.json", {"matrix": [[0] * 2]})
    run.write_json("large.json", large)
    assert (tmp_path / "small.json").read_text().count("\n") > 4
    assert (tmp_path / "large.json").stat().st_size < 2.1e6
    assert run.read_json("large.json") == large


def test_a_write_that_fails_leaves_the_old_file_and_no_remains(tmp_path, monkeypatch):
    run = Run(tmp_path)
    run.write_text("report.md", "old")

    def full(self, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(run.path), "write_bytes", full)
    with pytest.raises(UserError, match="No space left on device"):
        run.write_text("report.md", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["report.md"]
    assert (tmp_path / "report.md").read_text() == "old"


NAMES = ("net.onnx", "net.onnx.json", "maps/conv1.png")


@pytest.mark.parametrize("failing", [*NAMES, None])
@pytest.mark.parametrize("old", [NAMES, NAMES[1:], ()])
def test_files_that_belong_together_are_written_all_or_none(tmp_path, monkeypatch, failing, old):
    run, write = Run(tmp_path), Run._write_beside
    for name in old:
        run.write_text(name, "old")

    def full(run, partial, content):
        write(run, partial, content)
        if partial.name.startswith(f".{os.path.basename(failing or '-')}.{os.getpid()}"):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(Run, "_write_beside", full)
    if failing:
        with pytest.raises(UserError, match=rf"cannot write .*/{failing}: No space left"):
            run.write_together(dict.fromkeys(NAMES, b"new"))
    else:
        run.write_together(dict.fromkeys(NAMES, b"new"))
    found = [path for path in tmp_path.rglob("*") if path.is_file()]
    expected = dict.fromkeys(old, "old") if failing else dict.fromkeys(NAMES, "new")
    assert {str(path.relative_to(tmp_path)): path.read_text() for path in found} == expected


def test_no_moment_has_what_tells_of_a_file_beside_another(tmp_path, monkeypatch):
    run, seen = Run(tmp_path), []
    replace = type(run.path).replace

    def watched(path, target):
        replace(path, target)
        there = (each for each in tmp_path.iterdir() if not each.name.startswith("."))
        seen.append({each.name: each.read_text() for each in there})

    monkeypatch.setattr(type(run.path), "replace", watched)
    for content in ("old", "new"):
        run.write_together(dict.fromkeys(NAMES[:2], content.encode()))
        assert seen == [{NAMES[0]: content}, dict.fromkeys(NAMES[:2], content)]
        seen.clear()


@pytest.mark.parametrize("name", ["report.md", "maps/conv1.png"])
def test_what_a_link_points_to_is_not_written_to(tmp_path, name):
    """A run's folder may come from elsewhere: the file, what is written first, and the folder."""
    victim, run = tmp_path / "victim", Run(tmp_path / "run")
    victim.write_text("mine")
    run.create()
    run.write_text(name, "before")
    target = run.path / name
    partial = target.parent / f".{target.name}.{os.getpid()}.partial"
    for link in (target, partial):
        link.unlink(missing_ok=True)
        os.symlink(victim, link)
        run.write_text(name, "text")
        assert target.read_text() == "text"
        assert not os.path.islink(target)
    assert victim.read_text() == "mine"


@pytest.mark.parametrize(
    ("content", "size", "said"),
    [
        (b"{}", 50 << 30, "it has 53,687 MB, far more than any file of its kind"),
        (b"[" * 5_000_000, 0, "it has far more lists, objects and texts than any file of a run"),
        (b"[" + b'"",' * 2_500_000, 0, "it has far more lists, objects and texts"),
        (b"[" * 200_000, 0, "it is nested too deep"),
    ],
)
def test_a_file_beyond_any_of_a_run_is_refused_before_it_takes_memory(
    tmp_path, content, size, said
):
    run = Run(tmp_path)
    file = tmp_path / "config.json"
    file.write_bytes(content)
    if size:
        os.truncate(file, size)
    with pytest.raises(UserError, match=f"cannot read .*config.json: {said}"):
        run.read_json("config.json")


@pytest.mark.parametrize("content", ["x" * 2000, [[]] * 200], ids=["size", "parts"])
def test_json_that_could_not_be_read_back_is_not_written(content, tmp_path, monkeypatch):
    monkeypatch.setattr(run_module, "_LARGEST", 1000)
    monkeypatch.setattr(run_module, "_MOST_PARTS", 100)
    run = Run(tmp_path)
    run.write_json("a.json", {})
    with pytest.raises(UserError, match=r"cannot write .*a\.json: it has"):
        run.write_json("a.json", content)
    assert run.read_json("a.json") == {}


@pytest.mark.parametrize("name", ["caf\udce9", "é", "a\nb", "\u202e", "\x1b[0m"])
def test_a_path_of_any_characters_is_told_and_read_back(name, tmp_path):
    """Also one that is no UTF-8, whose bytes Python has as halves of letters."""
    run = Run(tmp_path / name.replace("[", ""))
    run.create()
    run.write_json("a.json", {"file": name})
    assert run.read_json("a.json") == {"file": name}
    assert json.loads((run.path / "a.json").read_bytes().decode()) == {"file": name}
    run.write_text("report.md", f"# {name}")
    assert (run.path / "report.md").read_bytes().decode().startswith("# ")


def test_a_folder_that_is_a_link_is_refused(tmp_path):
    run, elsewhere = Run(tmp_path / "run"), tmp_path / "elsewhere"
    run.create()
    elsewhere.mkdir()
    os.symlink(elsewhere, run.path / "maps")
    with pytest.raises(UserError, match="maps is a link"):
        run.write_text("maps/conv1.png", "text")
    assert not list(elsewhere.iterdir())


@pytest.mark.parametrize(
    "name", ["x[1]", "x]", "a*", "what?", "back\\slash", "in[1]/final", "caf\udce9"]
)
def test_a_name_with_which_checkpoints_are_not_found_again_is_refused(tmp_path, name):
    run = Run(tmp_path / name)
    with pytest.raises(UserError, match="give the run's folder another name"), lock.hold(run):
        pytest.fail("held")
    with pytest.raises(UserError, match="give the run's folder another name"):
        run.checkpoints  # noqa: B018
    assert not list(tmp_path.iterdir())


def test_what_another_process_is_writing_is_left_alone(tmp_path):
    run = Run(tmp_path)
    theirs = tmp_path / ".report.md.1.partial"
    theirs.write_text("half of")
    run.write_text("report.md", "all of mine")
    assert theirs.read_text() == "half of"
    assert (tmp_path / "report.md").read_text() == "all of mine"


@pytest.mark.parametrize("name", ["report.md", "maps/conv1.png", "maps/[a-z]*?.png", "1.partial"])
def test_what_a_killed_process_left_goes_with_the_next_write_of_the_same_file(name, tmp_path):
    """No system has such processes; what is young may be another machine's."""
    run, old = Run(tmp_path), (0, 0)
    target = run.write_text(name, "before")
    left = [target.parent / f".{target.name}.{pid}.partial" for pid in (1 << 30, 10**40)]
    at_work = (".{0}.1.partial", ".{0}.0.partial")
    of_others = (".{0}.x.partial", ".{0}..partial", ".x{0}.9999999999.partial", ".{0}.9999999999")
    kept = [target.parent / pattern.format(target.name) for pattern in (*at_work, *of_others)]
    for file in (*left, *kept):
        file.write_text("half of")
        os.utime(file, old)
    young = target.parent / f".{target.name}.{(1 << 30) + 1}.partial"
    young.write_text("half of")
    run.write_text(name, "after")
    assert target.read_text() == "after"
    assert set(target.parent.iterdir()) >= {young, *kept}
    assert set(target.parent.iterdir()).isdisjoint(left)


NO_NUMBERS = ("NaN", "[Infinity]", '{"a": -Infinity}', "1" + "0" * 400)
TOO_LARGE = ("1e309", "[-1e999]", '{"a": 0.5e+400}', "9" * 310 + ".5")


@pytest.mark.parametrize("content", [*NO_NUMBERS, *TOO_LARGE])
def test_numbers_that_are_none_of_a_runs_are_damage(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match=r"config\.json: .* is no(ne of| number of)"):
        Run(tmp_path).read_json("config.json")


@pytest.mark.parametrize("spelled", ["runs/final/", "runs//final", "./runs/final", "runs/./final"])
def test_a_folder_is_called_the_same_however_it_is_spelled(spelled):
    assert str(Run(spelled)) == "runs/final"


@pytest.mark.parametrize("content", ["[" * 200_000, '{"a":' * 200_000, " " * (65 << 20)])
def test_json_that_no_run_has_is_damage(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match=r"config\.json: it (is nested|has 68 MB)"):
        Run(tmp_path).read_json("config.json")


def test_a_folder_that_was_removed_does_not_come_back_in_parts(tmp_path):
    run = Run(tmp_path / "run")
    for name in ("report.md", "feature_maps/conv1.png"):
        with pytest.raises(UserError, match=f"cannot write .*run/{name}: No such file"):
            run.write_text(name, "text")
    assert not run.path.exists()


@pytest.mark.parametrize("name", ["run", "file", "file/run", "link", "link/run", "new/run"])
def test_a_look_at_a_place_says_what_making_the_folder_would(name, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("nowhere")
    before = set(tmp_path.rglob("*"))
    run = Run(tmp_path / name)
    looked = _refusal(run.require_place)
    assert set(tmp_path.rglob("*")) == before
    made = _refusal(run.create)
    assert bool(looked) == bool(made) == name.startswith(("file", "link"))
    assert not looked or "cannot make the folder" in looked


def _refusal(action):
    try:
        action()
    except UserError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (0, "it is not permitted"),
        (os.ST_NOSUID, "it is not permitted"),
        (os.ST_RDONLY | os.ST_NOSUID, "its file system is read-only"),
    ],
)
@pytest.mark.parametrize("name", ["run", "run/below"])
def test_a_folder_that_may_not_be_written_to_is_told(name, flags, why, tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    monkeypatch.setattr(os, "access", lambda place, mode: False)  # the superuser may do anything
    monkeypatch.setattr(os, "statvfs", lambda place: types.SimpleNamespace(f_flag=flags))
    with pytest.raises(UserError, match=rf"cannot write in the folder .*run: {why}$"):
        Run(tmp_path / name).require_place()


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file/run"):
        Run(tmp_path / "file" / "run").create()


@pytest.mark.parametrize(("content", "said"), [(None, "is missing"), ("{", "cannot read")])
def test_missing_and_damaged_json_are_named(tmp_path, content, said):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match=said):
        Run(tmp_path).read_json("config.json")


def test_a_relative_folder_stays_where_it_was_meant(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = Run("runs/final")
    run.create()
    assert run.checkpoints.is_absolute()
    assert (tmp_path / "runs" / "final").is_dir()
    assert str(run) == "runs/final"
    assert str(Run("gs://bucket/run").path) == "gs://bucket/run"
