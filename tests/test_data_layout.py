"""Which classes and splits folders are taken for, and what is no such layout."""

import zipfile

import data_files
import pytest
from data_files import read_all

from rice_jax.data import archive
from rice_jax.errors import UserError

FILES = data_files.pictures(3, ("Arborio", "Basmati"))


def test_other_files_hidden_ones_and_macos_doubles_are_left_out(tmp_path):
    extra = {
        "readme.txt": b"text",
        "Arborio/notes.csv": b"1,2",
        "Arborio/.hidden.jpg": b"x",
        "__MACOSX/Arborio/._1.jpg": b"x",
        ".git/objects/a.jpg": b"x",
    }
    folder = data_files.write_folder(tmp_path / "rice", FILES | extra)
    zipped = data_files.write_zip(tmp_path / "rice.zip", FILES | extra)
    assert read_all(archive.open_archive(folder)) == FILES
    assert read_all(archive.open_archive(zipped)) == FILES


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG", ".png", ".bmp", ".webp", ".Png"])
def test_suffixes_in_any_case(tmp_path, suffix):
    files = {name.replace(".png", suffix): content for name, content in FILES.items()}
    assert read_all(archive.open_archive(data_files.write_folder(tmp_path, files))) == files


def test_accents_written_in_two_ways_are_one_name(tmp_path):
    def opened(label):
        files = {name.replace("Arborio", label): content for name, content in FILES.items()}
        return archive.open_archive(data_files.write_zip(tmp_path / f"{len(label)}.zip", files))

    composed, decomposed = opened("Carn\u00e1"), opened("Carna\u0301")
    assert archive.classes(composed) == archive.classes(decomposed) == ("Basmati", "Carn\u00e1")
    assert read_all(composed) == read_all(decomposed)


MISTAKES = {
    "no images": ({"Arborio/a.txt": b"x", "Basmati/b.txt": b"x"}, "has no images"),
    "a class folder itself": (
        {"a.png": b"x", "b.png": b"x"},
        "has images but no class .*/CLASS/IMAGE",
    ),
    "images beside class folders": (FILES | {"a.png": b"x"}, "'a.png' does not lie"),
    "nothing to train on": (
        {"valid/Arborio/a.png": b"x", "test/Basmati/b.png": b"x"},
        "has the folders test, valid: .* takes a folder train",
    ),
    "a split named twice": (
        {f"{name}/A/a.png": b"x" for name in ("train", "val", "validation", "test")},
        "has the folders test, train, val, validation",
    ),
    **{
        f"half a split, {kind}": (
            {f"train/{name}": b"x" for name in FILES} | dict.fromkeys(beside, b"x"),
            f"has the folders of a split, .*train.*, but {fault}: move that away",
        )
        for kind, beside, fault in (
            ("images without classes", ("test/1.png", "test/2.png"), "images in no .* in 'test'"),
            ("one image too many", ("val/Arborio/1.png", "train/1.png"), "images .* in 'train'"),
            ("a part of another name", ("dev/Arborio/1.png",), "'dev' beside them"),
            ("an image in no folder", ("val/Arborio/1.png", "1.png"), "images in no folder b.*"),
            ("images of no class", ("test1/1.png", "test1/2.png"), "'test1' beside them"),
            ("a folder of others", ("val/Arborio/1.png", "more/x/1.png"), "'more' beside them"),
        )
    },
    "a split without classes": (
        {"train/1.png": b"x", "test/1.png": b"x"},
        "split, test, train, but images in no class folder in 'test'",
    ),
    "a line break in a name": (FILES | {"Arborio/a\nb.png": b"x"}, "cannot serve as a name"),
}


@pytest.mark.parametrize("kind", ["folder", "zip"])
@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_told(tmp_path, mistake, kind):
    files, fault = MISTAKES[mistake]
    if kind == "folder":
        path = data_files.write_folder(tmp_path / "rice", files)
    else:
        path = data_files.write_zip(tmp_path / "rice.zip", files, "")
    with pytest.raises(UserError, match=fault) as error:
        archive.open_archive(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_two_class_folders_of_one_name_in_two_unicode_forms_are_refused(tmp_path, kind):
    files = {"Rose\u0301/1.png": b"x", "Ros\u00e9/2.png": b"x", "Tulip/1.png": b"x"}
    write = {"folder": data_files.write_folder, "zip": data_files.write_zip}[kind]
    with pytest.raises(UserError, match="two class folders called 'Rosé', in two Unicode forms"):
        archive.open_archive(write(tmp_path / "rice", files))


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_hidden_folders_with_images_are_named(tmp_path, kind, capsys):
    files = {f"{name}/1.png": b"x" for name in ("a", "b", ".A", "...", "__MACOSX")}
    files |= {".git/config": b"x", "a/.hidden.png": b"x"}
    write = {"folder": data_files.write_folder, "zip": data_files.write_zip}[kind]
    found = archive.open_archive(write(tmp_path / "rice", files))
    assert sorted(member.name for member in found.members) == ["a/1.png", "b/1.png"]
    said = capsys.readouterr().err
    assert "..." in said
    assert ".A'" in said
    assert "git" not in said
    assert "MACOSX" not in said


@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [
        ("train", "val", "test"),
        ("train", "validation", "test"),
        ("Training", "valid", "Testing"),
        ("TRAIN", "Val", "TEST"),
    ],
)
def test_folders_of_splits_make_a_split_of_its_own(tmp_path, train, validation, test):
    parts = (train, validation, test)
    files = {f"{part}/{name}": content for part in parts for name, content in FILES.items()}
    zipped = data_files.write_zip(tmp_path / "rice.zip", files, "deep/er/")
    for path in (zipped, data_files.write_folder(tmp_path / "rice", files)):
        opened = archive.open_archive(path)
        assert read_all(opened) == files  # the same file name may be in each
        assert archive.classes(opened) == ("Arborio", "Basmati")
        splits = {member.name.partition("/")[0]: member.split for member in opened.members}
        assert splits == {train: "train", validation: "validation", test: "test"}


@pytest.mark.parametrize("other", ["val", "test"])
def test_a_split_of_its_own_may_lack_one(tmp_path, other):
    files = {f"{part}/{name}": b"x" for part in ("train", other) for name in FILES}
    opened = archive.open_archive(data_files.write_folder(tmp_path, files))
    assert {member.split for member in opened.members} == {
        "train",
        {"val": "validation"}.get(other, other),
    }


@pytest.mark.parametrize("above", ["", "train/"])
def test_folders_in_a_class_folder_are_of_that_class(tmp_path, above):
    names = ["zero/a/1.png", "zero/b/1.png", "zero/1.png", "one/a/deep/er/1.png"]
    files = {f"{above}{name}": b"x" for name in names}
    files |= {f"test/{label}/1.png": b"x" for label in ("zero", "one") if above}
    opened = archive.open_archive(data_files.write_folder(tmp_path, files))
    assert read_all(opened) == files
    assert archive.classes(opened) == ("one", "zero")
    labels = {member.name.removeprefix(above): member.label for member in opened.members}
    assert {name: labels[name] for name in names} == {
        name: name.partition("/")[0] for name in names
    }


def test_other_files_are_counted_by_kind(tmp_path, capsys):
    others = ("a.txt", "Arborio/b.TXT", "Arborio/c.heic", "Basmati/README", "Arborio/.DS_Store")
    files = FILES | dict.fromkeys(others, b"x")
    archive.open_archive(data_files.write_folder(tmp_path / "rice", files))
    archive.open_archive(data_files.write_zip(tmp_path / "rice.zip", files, ""))
    folder, zipped = capsys.readouterr().err.splitlines()
    counted = "2 .txt, 1 .heic, 1 without suffix"
    assert folder == f"{tmp_path / 'rice'}: left out 4 other files: {counted}"
    assert "5 other files: 3 .txt" in zipped  # with the one that such a zip has


def test_a_licence_beside_the_images_is_nothing_to_tell(tmp_path, capsys):
    licences = ("LICENCE.txt", "license", "Arborio/License.md")
    files = FILES | dict.fromkeys(licences, b"x")
    archive.open_archive(data_files.write_folder(tmp_path / "rice", files))
    assert capsys.readouterr().err == ""
    more = files | {"licence_plates.csv": b"x"}
    archive.open_archive(data_files.write_folder(tmp_path / "more", more))
    assert "left out 1 other file: 1 .csv" in capsys.readouterr().err


@pytest.mark.parametrize("inner", ["", "steam/"])
def test_classes_may_be_called_as_splits_are(tmp_path, inner):
    files = {name.replace("Arborio/", f"train/{inner}"): FILES[name] for name in FILES}
    opened = archive.open_archive(data_files.write_folder(tmp_path, files))
    assert archive.classes(opened) == ("Basmati", "train")
    assert {member.split for member in opened.members} == {""}


@pytest.mark.parametrize("part", ["train/", ""])
def test_an_empty_class_folder_is_told(tmp_path, part):
    splits = ("train/", "val/", "test/") if part else ("",)
    files = {split + name: content for split in splits for name, content in FILES.items()}
    folder = data_files.write_folder(tmp_path / "rice", files)
    (folder / part / "Ipsala").mkdir()
    with pytest.raises(UserError, match=f"class folder '{part}Ipsala' has no images"):
        archive.open_archive(folder)
    zipped = data_files.write_zip(tmp_path / "rice.zip", files, "")
    with zipfile.ZipFile(zipped, "a") as opened:
        opened.mkdir(f"{part}Ipsala")
    with pytest.raises(UserError, match=f"class folder '{part}Ipsala' has no images"):
        archive.open_archive(zipped)
