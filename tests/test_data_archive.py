"""Folders and zips as class folders, and what is refused."""

import os
import stat
import zipfile

import data_files
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rice_jax import files as places
from rice_jax.data import archive
from rice_jax.errors import UserError

FILES = data_files.pictures(3, ("Arborio", "Basmati"))


def read_all(opened):
    return {member.name: opened.read(member) for member in opened.members}


@pytest.mark.parametrize("root", ["", "Rice_Image_Dataset/", "a/b/"])
def test_a_zip_and_a_folder_hold_the_same(tmp_path, root):
    zipped = data_files.write_zip(tmp_path / "rice.zip", FILES, root)
    folder = data_files.write_folder(tmp_path / "rice" / root, FILES)
    assert read_all(archive.open_archive(zipped)) == FILES
    assert read_all(archive.open_archive(folder)) == FILES
    assert read_all(archive.open_archive(tmp_path / "rice")) == FILES


@pytest.mark.parametrize("part", ["", "train\\"])
def test_a_zip_whose_folders_are_parted_by_backslashes_holds_the_same(tmp_path, part):
    """As PowerShell's Compress-Archive made them."""
    files = {part + name.replace("/", "\\"): content for name, content in FILES.items()}
    files |= {name.replace("train", "test"): content for name, content in files.items()}
    zipped = data_files.write_zip(tmp_path / "rice.zip", files, "Rice\\")
    with zipfile.ZipFile(zipped, "a") as opened:
        opened.writestr("Rice\\", b"")
    opened = archive.open_archive(zipped)
    assert read_all(opened) == {name.replace("\\", "/"): files[name] for name in files}
    assert archive.classes(opened) == ("Arborio", "Basmati")
    assert {member.split for member in opened.members} == ({"train", "test"} if part else {""})


def test_a_remote_folder_or_zip_is_read_through_epath(tmp_path, monkeypatch):
    """Local paths stand in for gs://, taken the way that remote ones take."""
    monkeypatch.setattr(archive.files, "is_remote", lambda path: True)
    monkeypatch.setattr(os, "scandir", None)
    folder = data_files.write_folder(tmp_path / "rice", FILES)
    assert read_all(archive.open_archive(folder)) == FILES
    zipped = data_files.write_zip(tmp_path / "rice.zip", FILES)
    assert read_all(archive.open_archive(zipped)) == FILES


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


def test_links_to_class_folders_are_followed(tmp_path):
    store = data_files.write_folder(tmp_path / "store", FILES)
    (tmp_path / "linked").mkdir()
    for label in ("Arborio", "Basmati"):
        (tmp_path / "linked" / label).symlink_to(store / label)
    assert read_all(archive.open_archive(tmp_path / "linked")) == FILES


def test_a_link_in_a_circle_is_left_out(tmp_path, capsys):
    folder = data_files.write_folder(tmp_path, FILES)
    (folder / "Arborio" / "again").symlink_to(folder)
    assert read_all(archive.open_archive(folder)) == FILES
    assert "left out 'Arborio/again', a link to a folder above it" in capsys.readouterr().err


def test_what_bears_an_image_s_name_and_cannot_be_read_is_no_image_less(tmp_path):
    folder = data_files.write_folder(tmp_path / "rice", FILES)
    (folder / "Arborio" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    os.mkfifo(folder / "Basmati" / "pipe.png")
    opened = archive.open_archive(folder)
    assert len(opened.members) == len(FILES) + 2
    reasons = {}
    for each in opened.members:
        try:
            assert opened.read(each) == FILES[each.name]
        except UserError as error:
            reasons[each.name] = str(error)
    assert reasons == {
        "Arborio/gone.png": "cannot be read: No such file or directory",
        "Basmati/pipe.png": "cannot be read: it is a pipe or a device, neither a file nor a folder",
    }
    assert len(archive.within(places.named(folder))) == len(FILES) + 2


def test_the_key_changes_with_names_contents_and_number(tmp_path):
    def key(files):
        return archive.key(archive.open_archive(data_files.write_zip(tmp_path / "a.zip", files)))

    first = key(FILES)
    assert key(dict(reversed(FILES.items()))) == first
    names = sorted(FILES)
    assert key(FILES | {names[0]: FILES[names[1]]}) != first  # as many bytes, other content
    assert key({name: FILES[name] for name in names[1:]}) != first
    assert key({name.replace("(1)", "(7)"): FILES[name] for name in names}) != first


def test_the_key_of_a_folder_sees_a_file_rewritten_with_as_many_bytes(tmp_path):
    folder = data_files.write_folder(tmp_path, FILES)
    first = archive.key(archive.open_archive(folder))
    assert archive.key(archive.open_archive(folder)) == first
    file = folder / sorted(FILES)[0]
    file.write_bytes(file.read_bytes()[::-1])
    os.utime(file, ns=(1, 1))
    assert archive.key(archive.open_archive(folder)) != first


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


def test_a_missing_path_and_a_file_that_is_no_zip_are_told(tmp_path):
    with pytest.raises(UserError, match="nowhere does not exist: give the Kaggle zip"):
        archive.open_archive(tmp_path / "nowhere")
    (tmp_path / "rice.zip").write_text("<html>Sign in to download</html>")
    with pytest.raises(UserError, match=r"rice.zip is neither a folder nor a whole zip"):
        archive.open_archive(tmp_path / "rice.zip")


def member(name, mode=stat.S_IFREG | 0o644, method=zipfile.ZIP_STORED, flags=0):
    info = zipfile.ZipInfo(name)
    info.external_attr, info.compress_type, info.flag_bits = mode << 16, method, flags
    return info


HOSTILE = {
    "climbing": (member("../../etc/cron.d/a.png"), "leads out of the archive"),
    "climbing within": (member("Arborio/../../a.png"), "leads out of the archive"),
    "absolute": (member("/etc/a.png"), "leads out of the archive"),
    "a drive": (member("C:/Windows/a.png"), "leads out of the archive"),
    "backslashes": (member("..\\..\\a.png"), "leads out of the archive"),
    "a link": (member("Arborio/a.png", stat.S_IFLNK | 0o777), "is a link"),
    "lzma": (member("Arborio/a.png", method=zipfile.ZIP_LZMA), "packed by a method"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_members_are_refused(tmp_path, kind):
    info, fault = HOSTILE[kind]
    path = tmp_path / "rice.zip"
    path.write_bytes(data_files.zip_of([*FILES.items(), (info, b"/etc/passwd")]))
    with pytest.raises(UserError, match=fault):
        archive.open_archive(path)
    assert sorted(tmp_path.iterdir()) == [path]


def test_an_encrypted_member_is_refused(tmp_path):
    path = tmp_path / "rice.zip"
    content = bytearray(data_files.zip_of(FILES.items()))
    content[content.rindex(b"PK\x01\x02") + 8] |= 1  # the flag in the last directory entry
    path.write_bytes(content)
    with pytest.raises(UserError, match="is encrypted"):
        archive.open_archive(path)


def test_the_same_member_twice_is_refused(tmp_path):
    path = tmp_path / "rice.zip"
    with pytest.warns(UserWarning, match="Duplicate"):
        path.write_bytes(data_files.zip_of([*FILES.items(), *list(FILES.items())[:1]]))
    with pytest.raises(UserError, match="twice"):
        archive.open_archive(path)


def test_a_bomb_is_refused_unread_by_its_size(tmp_path, monkeypatch):
    bomb = FILES | {"Arborio/bomb.png": bytes(200_000)}
    path = data_files.write_zip(tmp_path / "rice.zip", bomb)
    monkeypatch.setattr(archive.images, "MAX_BYTES", 100_000)
    opened = archive.open_archive(path)
    found = {each.name: each for each in opened.members}
    with pytest.raises(UserError, match="larger than"):
        opened.read(found["Arborio/bomb.png"])
    monkeypatch.setattr(archive, "MAX_TOTAL", 100_000)
    with pytest.raises(UserError, match="too large"):
        archive.open_archive(path)


def test_a_member_that_grows_beyond_its_declared_size_is_refused(tmp_path):
    """The directory says 10 bytes where the packed stream holds a million."""
    path = data_files.write_zip(tmp_path / "rice.zip", FILES | {"Arborio/b.png": bytes(10**6)})
    content = bytearray(path.read_bytes())
    entry = (
        content.index(b"Arborio/b.png", content.index(b"PK\x01\x02"))
        - 46
        - len("Rice_Image_Dataset/")
    )
    content[entry + 24 : entry + 28] = (10).to_bytes(4, "little")
    path.write_bytes(content)
    opened = archive.open_archive(path)
    [grown] = [each for each in opened.members if each.name == "Arborio/b.png"]
    assert grown.size == 10
    with pytest.raises(UserError, match="damaged in the zip"):
        opened.read(grown)


@settings(max_examples=150, deadline=None)
@given(change=st.data())
def test_flipped_or_missing_bytes_of_a_zip_are_refused_or_read_but_nothing_else(
    tmp_path_factory, change
):
    pictures = data_files.pictures(2, ("a", "b"))
    content = bytearray(data_files.zip_of(pictures.items()))
    for _ in range(change.draw(st.integers(1, 6))):
        content[change.draw(st.integers(0, len(content) - 1))] = change.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "flipped.zip"
    path.write_bytes(content[: change.draw(st.integers(len(content) // 2, len(content)))])
    try:
        opened = archive.open_archive(path)
    except UserError:
        return
    for each in opened.members:
        try:
            found = opened.read(each)
        except UserError:
            continue
        assert found in pictures.values()


def test_the_class_folder_that_is_closed_is_named(tmp_path, monkeypatch):
    folder = data_files.write_folder(tmp_path, data_files.pictures(2))
    listed = os.scandir

    def closed(place):
        if os.path.basename(place) == "Basmati":  # the superuser would not be kept out
            raise PermissionError(13, "Permission denied", os.fspath(place))
        return listed(place)

    monkeypatch.setattr(os, "scandir", closed)
    with pytest.raises(UserError, match=r"cannot read .*/Basmati: Permission denied"):
        archive.open_archive(folder)
