"""Splits that are decoded once: equal to decoding, proved whole, and never another's files."""

import os
import shutil

import data_files
import numpy as np
import pytest

from rice_jax import data
from rice_jax.data import decoded
from rice_jax.errors import UserError

FILES = data_files.pictures(10)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return data_files.write_folder(tmp_path_factory.mktemp("rice"), FILES)


@pytest.mark.parametrize("whole_size", [0, 14])
def test_decoded_splits_equal_decoding_and_are_made_once(folder, tmp_path, monkeypatch, whole_size):
    sizes = {"image_size": 7, "whole_size": whole_size}
    plain = data.load(folder, tmp_path, seed=0, keep_decoded=False).splits["test"]
    kept = data.load(folder, tmp_path, seed=0).splits["test"]
    expected = next(data.batches(plain, 5, **sizes))
    assert not list(tmp_path.glob("*/decoded/*"))
    for source in (kept, data.load(folder, tmp_path, seed=0).splits["test"]):
        batch = next(data.batches(source, 5, **sizes))
        for name, values in expected.items():
            np.testing.assert_array_equal(batch[name], values)
        monkeypatch.setattr(decoded, "_write", None)
    [file] = tmp_path.glob("*/decoded/*")
    assert file.stat().st_size == 5 * (7 * 7 * 3 + 4) + 4
    monkeypatch.undo()
    file.write_bytes(file.read_bytes()[:-1])
    file.with_suffix(".partial").write_bytes(b"half")
    again = data.load(folder, tmp_path, seed=0).splits["test"]
    np.testing.assert_array_equal(next(data.batches(again, 5, **sizes))["image"], expected["image"])
    assert list(tmp_path.glob("*/decoded/*")) == [file]


@pytest.mark.parametrize("place", [0, -8, -1], ids=["a pixel", "a label", "the checksum"])
def test_a_decoded_split_overwritten_in_place_is_made_anew(folder, tmp_path, place):
    def batch():
        source = data.load(folder, tmp_path, seed=0).splits["test"]
        return next(data.batches(source, 5, image_size=7))

    expected = batch()
    [file] = tmp_path.glob("*/decoded/*")
    times = file.stat().st_atime_ns, file.stat().st_mtime_ns
    content = bytearray(file.read_bytes())
    content[place] = 99
    with file.open("r+b") as open_file:
        open_file.write(content)
    os.utime(file, ns=times)
    found = batch()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)


def _overwrite(file, content):
    """In place and with its times kept, until the clock of files, of milliseconds, has ticked."""
    before = file.stat()
    while file.stat().st_ctime_ns == before.st_ctime_ns:
        with file.open("r+b") as open_file:
            open_file.write(content)
            open_file.truncate()
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize(
    "changed",
    [lambda old: bytes(len(old)), lambda old: old[:8], lambda old: bytes([old[0] ^ 1]) + old[1:]],
    ids=["all of it", "cut", "a pixel"],
)
def test_a_decoded_split_changed_while_it_is_read_is_refused_and_then_made_anew(
    folder, tmp_path, changed
):
    source = data.load(folder, tmp_path, seed=0).splits["test"]
    expected = next(data.batches(source, 5, image_size=7))["image"]
    [file] = tmp_path.glob("*/decoded/*")
    _overwrite(file, changed(file.read_bytes()))
    with pytest.raises(UserError, match="was changed while images were read from it"):
        next(data.batches(source, 5, image_size=7))
    again = data.load(folder, tmp_path, seed=0).splits["test"]
    np.testing.assert_array_equal(next(data.batches(again, 5, image_size=7))["image"], expected)


@pytest.mark.parametrize(
    "change",
    [lambda file: _overwrite(file, file.read_bytes()), os.utime, os.unlink],
    ids=["written again", "used by another", "removed"],
)
def test_a_decoded_split_is_read_on_where_its_pixels_are_still_the_same(folder, tmp_path, change):
    source = data.load(folder, tmp_path, seed=0).splits["test"]
    expected = next(data.batches(source, 5, image_size=7))
    [file] = tmp_path.glob("*/decoded/*")
    change(file)
    found = next(data.batches(source, 5, image_size=7))
    np.testing.assert_array_equal(found["image"], expected["image"])


def test_a_decoded_split_unused_for_long_is_proved_once(folder, tmp_path, monkeypatch):
    next(data.batches(data.load(folder, tmp_path, seed=0).splits["test"], 5, image_size=7))
    [file] = tmp_path.glob("*/decoded/*")
    os.utime(file, (0, 0))
    proofs, crc32 = [], decoded.zlib.crc32
    monkeypatch.setattr(decoded.zlib, "crc32", lambda *args: proofs.append(args) or crc32(*args))
    next(data.batches(data.load(folder, tmp_path, seed=0).splits["test"], 5, image_size=7))
    assert len([args for args in proofs if args[1:] == (0,)]) == 1
    assert file.stat().st_mtime > 0


def test_a_split_just_decoded_is_not_read_again_to_prove_it(folder, tmp_path, monkeypatch):
    asked, pread = [], os.pread
    monkeypatch.setattr(os, "pread", lambda *args: asked.append(args[1]) or pread(*args))
    source = data.load(folder, tmp_path, seed=0).splits["test"]
    next(data.batches(source, 5, image_size=7))
    assert asked == [5 * 4]  # the labels
    next(data.batches(data.load(folder, tmp_path, seed=0).splits["test"], 5, image_size=7))
    assert sum(asked[1:]) > 5 * 7 * 7 * 3


def test_decoded_splits_are_kept_only_where_that_pays(folder, tmp_path, monkeypatch, capsys):
    usage = shutil.disk_usage(tmp_path)
    source = data.load(folder, tmp_path, seed=0).splits["test"]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100))
    batch = next(data.batches(source, 5, image_size=6))
    assert batch["weight"].sum() == 5
    assert "test is decoded anew each time: its pixels take" in capsys.readouterr().err
    assert not list(tmp_path.glob("*/decoded/*"))


def test_files_that_lie_in_the_cache_folder_by_chance_stay(folder, tmp_path, monkeypatch):
    """Even where room is made, and where names are nearly those of decoded splits."""
    monkeypatch.setattr(decoded, "MOST_KEPT", 0)
    others = [
        tmp_path / place / "decoded" / name
        for place in ("holiday", "0123456789abcdef-0", "0123456789abcdef-x")
        for name in ("a.png", "notes.txt", "mine.uint8", "test.partial")
    ]
    for other in others:
        other.parent.mkdir(parents=True, exist_ok=True)
        other.write_bytes(b"mine")
    for size in (8, 9):
        source = data.load(folder, tmp_path, seed=0).splits["test"]
        next(data.batches(source, 5, image_size=size))
    assert all(other.read_bytes() == b"mine" for other in others)


@pytest.mark.parametrize("seed", [0, 12, -3])
def test_the_least_recently_used_decoded_splits_make_room(seed, folder, tmp_path, monkeypatch):
    source = data.load(folder, tmp_path, seed=seed).splits["test"]
    monkeypatch.setattr(decoded, "MOST_KEPT", 5 * (9 * 9 * 3 + 4) + 5 * (8 * 8 * 3 + 4))
    for image_size in (8, 9, 7):  # the first must go for the third
        next(data.batches(source, 5, image_size=image_size))
    sizes = {file.name.split("-")[1] for file in tmp_path.glob("*/decoded/*.uint8")}
    assert sizes == {"9", "7"}


def test_so_do_averaged_ones_and_what_a_killed_process_left_of_one(folder, tmp_path, monkeypatch):
    source = data.load(folder, tmp_path, seed=0).splits["test"]
    monkeypatch.setattr(decoded, "MOST_KEPT", 5 * (9 * 9 * 3 + 4))
    next(data.batches(source, 5, image_size=4, whole_size=8))
    (averaged,) = tmp_path.glob("*/decoded/*.uint8")
    killed = averaged.with_suffix(".partial")
    killed.write_bytes(b"half of it")
    next(data.batches(source, 5, image_size=9))
    assert not averaged.exists()
    assert not killed.exists()
