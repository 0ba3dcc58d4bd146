"""Prepared datasets: what is in them, that they are whole, and what is told to the user."""

import collections
import concurrent.futures
import contextlib
import os
import pathlib
import resource
import shutil
import tempfile
import threading

import data_files
import pytest
import tensorflow_datasets as tfds

from rice_jax import data
from rice_jax.data import archive, cache
from rice_jax.errors import UserError

FILES = data_files.pictures(10)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return data_files.write_folder(tmp_path_factory.mktemp("rice"), FILES)


@pytest.fixture(scope="module")
def prepared(folder, tmp_path_factory):
    """A folder's dataset, and the cache that holds it."""
    cache_dir = tmp_path_factory.mktemp("cache")
    return data.load(folder, cache_dir, seed=0), cache_dir


def records(dataset):
    return {
        record["name"]: (split, record["label"], record["image"])
        for split, source in dataset.splits.items()
        for record in (source[index] for index in range(len(source)))
    }


def test_every_image_is_kept_as_its_bytes_with_its_label(prepared, folder):
    dataset, _ = prepared
    assert dataset.name == folder.name
    assert not dataset.synthetic
    assert dataset.classes == data_files.CLASSES
    assert {name: len(source) for name, source in dataset.splits.items()} == {
        "train": 40,
        "validation": 5,
        "test": 5,
    }
    found = records(dataset)
    assert {name: image for name, (_, _, image) in found.items()} == FILES
    for name, (_, label, _) in found.items():
        assert dataset.classes[label] == name.split("/")[0]
    assert dataset.skipped == []


@pytest.mark.parametrize("way", ["./{}", "{}/.", "{}/", "{}/../{}", "."])
@pytest.mark.parametrize("kind", [str, pathlib.Path])
def test_images_are_called_by_their_folder_however_it_is_given(
    way, kind, prepared, folder, monkeypatch
):
    monkeypatch.chdir(folder if way == "." else folder.parent)
    path = kind(way.format(folder.name, folder.name))
    assert data.load(path, prepared[1]).name == folder.name


def test_a_source_is_a_sequence(prepared, folder):
    """Iterated it ends, from its end it gives what a list gives, and beyond that nothing."""
    dataset, _ = prepared
    for source in (dataset.splits["train"], data.folder(folder, dataset.classes)):
        names = [source[index]["name"] for index in range(len(source))]
        assert [record["name"] for record in source] == names
        assert [record["name"] for record in reversed(source)] == names[::-1]
        assert source[-1]["name"] == names[-1]
        assert source[-len(names)]["name"] == names[0]
        for beyond in (len(names), -len(names) - 1, 10**30):
            with pytest.raises(IndexError):
                source[beyond]
        for no_index in (0.5, "1", None):
            with pytest.raises(TypeError):
                source[no_index]


def test_a_zip_gives_the_same_splits_and_fingerprint(prepared, tmp_path):
    zipped = data_files.write_zip(tmp_path / "rice.zip", FILES)
    dataset = data.load(zipped, tmp_path / "cache", seed=0)
    assert dataset.fingerprint == prepared[0].fingerprint
    assert records(dataset) == records(prepared[0])


def test_tfds_reads_it_by_itself(prepared):
    [place] = prepared[1].glob("*-0/rice_image_dataset/*.*.*")
    builder = tfds.builder_from_directory(place)
    first = builder.as_data_source("test")[0]
    assert first["image"].shape == (12, 12, 3)
    assert builder.info.features["label"].names == list(data_files.CLASSES)


def test_a_second_run_reads_the_cache_and_no_image(prepared, folder, monkeypatch):
    monkeypatch.setattr(archive.Folder, "read", None)
    again = data.load(folder, prepared[1], seed=0)
    assert again.fingerprint == prepared[0].fingerprint
    assert records(again) == records(prepared[0])


def test_another_seed_and_changed_images_are_prepared_anew(prepared, tmp_path):
    where = data_files.write_folder(tmp_path / "rice", FILES)
    before = data.load(where, tmp_path / "cache", seed=0)
    other = data.load(where, tmp_path / "cache", seed=1)
    assert before.fingerprint == other.fingerprint
    assert {n: s for n, (s, _, _) in records(before).items()} != {
        n: s for n, (s, _, _) in records(other).items()
    }
    name = next(iter(FILES))
    (where / name).write_bytes(data_files.picture(250, suffix=".png"))
    changed = data.load(where, tmp_path / "cache", seed=0)
    assert changed.fingerprint != before.fingerprint
    assert records(changed)[name][2] == (where / name).read_bytes()


def damage(where: pathlib.Path, how):
    [place] = where.glob("*-0/rice_image_dataset/*.*.*")
    shard = next(place.glob("*train*"))
    match how:
        case "cut":
            shard.write_bytes(shard.read_bytes()[:-1])
        case "missing":
            shard.unlink()
        case "info":
            (place / "dataset_info.json").write_text("{")
        case "features":
            (place / "features.json").unlink()
        case "killed":  # while it was written
            place.rename(place.with_name(f"incomplete.ABCDEF_{place.name}"))
        case "older":  # by what kept images otherwise
            place.rename(place.with_name("1.0.0"))


@pytest.mark.parametrize("how", ["cut", "missing", "info", "features", "killed", "older"])
def test_a_damaged_or_half_written_cache_is_written_again(prepared, folder, tmp_path, how):
    shutil.copytree(prepared[1], tmp_path / "cache")
    damage(tmp_path / "cache", how)
    assert records(data.load(folder, tmp_path / "cache", seed=0)) == records(prepared[0])
    assert not list(tmp_path.glob("cache/*/rice_image_dataset/incomplete*"))


def test_damage_within_a_record_is_told_on_reading(prepared, folder, tmp_path):
    shutil.copytree(prepared[1], tmp_path / "cache")
    [shard] = tmp_path.glob("cache/*-0/rice_image_dataset/*.*.*/*train*")
    content = bytearray(shard.read_bytes())
    place = content.index(b"IDAT")
    content[place : place + 60] = bytes(60)
    shard.write_bytes(content)
    source = data.load(folder, tmp_path / "cache", seed=0).splits["train"]
    with pytest.raises(UserError, match=r"are damaged .*delete that folder"):
        [source[index] for index in range(len(source))]


@pytest.mark.parametrize("interrupted", [True, False])
def test_a_write_leaves_nothing_but_what_is_whole(folder, tmp_path, monkeypatch, interrupted):
    """TFDS made a temporary folder each time, for what its bucket may know of the images."""
    reads = []

    def read(self, member):
        reads.append(member)
        if interrupted and len(reads) == 20:
            raise KeyboardInterrupt
        return FILES[member.name]

    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setattr(archive.Folder, "read", read)
    with pytest.raises(KeyboardInterrupt) if interrupted else contextlib.nullcontext():
        data.load(folder, tmp_path / "cache", seed=0)
    assert not list(tmp_path.glob("temporary/*"))
    left = {file.name for file in tmp_path.glob("cache/*")}
    assert left == {".lock"} if interrupted else len(left) == 2


def test_two_at_once_write_it_once(prepared, folder, tmp_path, monkeypatch):
    written = []
    write = cache._written
    monkeypatch.setattr(cache, "_written", lambda *a: written.append(a) or write(*a))
    with concurrent.futures.ThreadPoolExecutor(2) as two:
        both = list(two.map(lambda _: data.load(folder, tmp_path / "cache", seed=0), range(2)))
    assert len(written) == 1
    assert records(both[0]) == records(both[1]) == records(prepared[0])


def test_where_there_are_no_locks_the_faster_one_wins(prepared, folder, tmp_path, monkeypatch):
    """As the file systems of some clusters: another process finishes while this one writes."""

    def no_lock(*_):
        raise OSError("no locks here")

    once = threading.Lock()

    def read(self, member):
        if once.acquire(blocking=False):
            shutil.copytree(prepared[1], tmp_path / "cache", dirs_exist_ok=True)
        return FILES[member.name]

    monkeypatch.setattr(cache.fcntl, "flock", no_lock)
    monkeypatch.setattr(archive.Folder, "read", read)
    assert records(data.load(folder, tmp_path / "cache", seed=0)) == records(prepared[0])
    assert not list(tmp_path.glob("cache/*/rice_image_dataset/incomplete*"))


@pytest.mark.parametrize("how", ["cut", "missing", "info", "of other images"])
def test_where_there_are_no_locks_nothing_stale_or_damaged_is_taken(tmp_path, monkeypatch, how):
    def no_lock(*_):
        raise OSError("no locks here")

    monkeypatch.setattr(cache.fcntl, "flock", no_lock)
    where = data_files.write_folder(tmp_path / "rice", data_files.pictures(3, "ab", ".bmp"))
    data.load(where, tmp_path / "cache", seed=0)
    if how == "of other images":  # of as many bytes, at the old time
        name = "a/a (1).bmp"
        time = (where / name).stat().st_mtime_ns
        (where / name).write_bytes(data_files.picture(7, suffix=".bmp"))
        os.utime(where / name, ns=(time, time))
    else:
        damage(tmp_path / "cache", how)
    for _ in range(2):  # nor later
        with pytest.raises(UserError, match=r"damaged or of other images.*: delete that folder"):
            data.load(where, tmp_path / "cache", seed=0)
    [folder] = tmp_path.glob("cache/*-0")
    shutil.rmtree(folder)
    found = records(data.load(where, tmp_path / "cache", seed=0))
    assert {name: image for name, (_, _, image) in found.items()} == {
        f"{file.parent.name}/{file.name}": file.read_bytes() for file in where.glob("*/*")
    }


def test_a_disk_that_fills_up_is_told_and_leaves_nothing(folder, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(
            UserError, match=r"cannot keep prepared images in .*: .*too large; --config"
        ):
            data.load(folder, tmp_path / "cache", seed=0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [file.name for file in tmp_path.glob("cache/*")] == [".lock"]


def test_a_disk_too_small_is_told_beforehand(folder, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(UserError, match=r"need .* kB and .* has 1\.0 kB left: make room"):
        data.load(folder, tmp_path / "cache", seed=0)


def test_a_cache_that_cannot_be_written_is_told(folder, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        UserError, match=r"cannot keep prepared images in .*--config.data.cache_dir"
    ):
        data.load(folder, tmp_path / "file" / "cache", seed=0)


def test_a_remote_cache_is_refused(folder):
    with pytest.raises(UserError, match="a local folder"):
        data.load(folder, "gs://bucket/cache", seed=0)


def test_up_to_one_in_a_hundred_is_left_out_named_and_counted(tmp_path, capsys):
    where = data_files.write_folder(tmp_path / "rice", data_files.spoiled(200, 1))
    dataset = data.load(where, tmp_path / "cache", seed=0)
    assert sorted(each["name"] for each in dataset.skipped) == ["a/a (1).png", "b/b (1).png"]
    assert all("not a JPEG" in each["reason"] for each in dataset.skipped)
    assert sum(map(len, dataset.splits.values())) == 198
    assert not set(records(dataset)) & {"a/a (1).png", "b/b (1).png"}
    assert "rice: left out 2 of 200 images: " in capsys.readouterr().err
    again = data.load(where, tmp_path / "cache", seed=0)
    assert again.skipped == dataset.skipped
    assert "left out 2 of 200" in capsys.readouterr().err


def test_more_than_one_in_a_hundred_is_refused(tmp_path):
    where = data_files.write_folder(tmp_path / "rice", data_files.spoiled(100, 1))
    with pytest.raises(UserError, match=r"more than 1% of 100 images .* \(1\).png \(not a JPEG"):
        data.load(where, tmp_path / "cache", seed=0)
    assert not list(tmp_path.glob("cache/*/*"))


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ((), ""),
        (("train", "val", "test"), "rice: split as its folders are\n"),
        (("train", "test"), "rice: split as its folders are; validation is cut out of train\n"),
        (("train", "val"), "rice: split as its folders are; test is cut out of train\n"),
    ],
)
def test_a_split_of_its_own_is_said(tmp_path, capsys, parts, said):
    above = [f"{part}/" for part in parts] or [""]
    files = {f"{part}{name}": content for part in above for name, content in FILES.items()}
    data.load(data_files.write_folder(tmp_path / "rice", files), tmp_path / "cache", seed=0)
    told = capsys.readouterr().err
    assert [line for line in told.splitlines(keepends=True) if "split" in line] == (
        [said] if said else []
    )


def test_without_a_path_the_environment_says_where(prepared, folder, monkeypatch, capsys):
    monkeypatch.setenv("RICE_IMAGE_DATASET", str(folder))
    dataset = data.load("", prepared[1], seed=0)
    assert dataset.fingerprint == prepared[0].fingerprint
    assert not dataset.synthetic
    assert "SYNTHETIC" not in capsys.readouterr().err
    monkeypatch.setenv("RICE_IMAGE_DATASET", "/nowhere")
    with pytest.raises(UserError, match="RICE_IMAGE_DATASET=/nowhere: that does not exist"):
        data.load("", prepared[1], seed=0)


@pytest.mark.parametrize("path", ["", "sample"])
def test_without_any_path_the_sample_is_there(path, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("RICE_IMAGE_DATASET", raising=False)
    dataset = data.load(path, tmp_path, seed=3)
    assert "WARNING" not in capsys.readouterr().err
    assert not dataset.synthetic
    assert dataset.classes == data_files.CLASSES
    found = {
        part: collections.Counter(source[index]["label"] for index in range(len(source)))
        for part, source in dataset.splits.items()
    }
    assert found == {
        part: dict.fromkeys(range(5), each)
        for part, each in {"train": 100, "validation": 40, "test": 60}.items()
    }


def test_the_sample_gives_way_to_the_environment_but_not_where_it_is_named(folder, monkeypatch):
    monkeypatch.setenv("RICE_IMAGE_DATASET", str(folder))
    assert data.chosen("") == str(folder)
    assert [data.chosen(path) for path in ("sample", "synthetic", "x")] == [
        *("sample", "synthetic", "x")
    ]


def test_grains_are_drawn_where_they_are_asked_for_and_loudly_so(tmp_path, capsys):
    dataset = data.load("synthetic", tmp_path, seed=0, synthetic_per_class=3)
    warning = capsys.readouterr().err
    assert warning.count("\n") == 1
    assert "SYNTHETIC" in warning
    assert "kaggle datasets download -d muratkokludataset/rice-image-dataset" in warning
    assert "--config.data.path=sample" in warning
    assert dataset.synthetic
    assert dataset.classes == data_files.CLASSES
    assert {name: len(source) for name, source in dataset.splits.items()} == {
        "train": 5,
        "validation": 5,
        "test": 5,
    }
    other = data.load("synthetic", tmp_path, seed=1, synthetic_per_class=3)
    assert other.fingerprint != dataset.fingerprint


def test_images_of_one_class_are_nothing_to_learn_from(tmp_path):
    where = data_files.write_folder(tmp_path / "rice", data_files.pictures(5, ("Arborio",)))
    with pytest.raises(UserError, match=r"rice has one class only, 'Arborio': at least two"):
        data.load(where, tmp_path / "cache", seed=0)


def test_an_image_changed_with_its_time_and_size_kept_is_prepared_again(tmp_path):
    files = data_files.pictures(10, suffix=".bmp")  # as long whatever they show
    where = data_files.write_folder(tmp_path / "rice", files)
    before = data.load(where, tmp_path / "cache", seed=0)
    name = before.splits["test"][0]["name"]
    time = (where / name).stat().st_mtime_ns
    changed = data_files.picture(7, suffix=".bmp")
    assert len(changed) == len(files[name])
    (where / name).write_bytes(changed)
    os.utime(where / name, ns=(time, time))
    after = data.load(where, tmp_path / "cache", seed=0)
    assert after.fingerprint != before.fingerprint
    assert records(after)[name][2] == changed


def test_a_copy_of_a_folder_is_read_but_not_prepared_again(tmp_path, monkeypatch):
    where = data_files.write_folder(tmp_path / "rice", FILES)
    before = data.load(where, tmp_path / "cache", seed=0)
    shutil.copytree(where, tmp_path / "copy")  # with times
    monkeypatch.setattr(cache, "_written", None)
    reads, read = [], archive.Folder.read
    monkeypatch.setattr(archive.Folder, "read", lambda *args: (reads.append(args), read(*args))[1])
    for expected in (len(FILES), 0):
        assert data.load(tmp_path / "copy", tmp_path / "cache", seed=0).fingerprint == (
            before.fingerprint
        )
        assert len(reads) == expected
        reads.clear()
