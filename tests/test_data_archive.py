"""Folders and zips as class folders, and what is refused."""

import os
import stat
import zipfile

import data_files
import pytest
from data_files import read_all
from hypothesis import given, settings
from hypothesis import strategies as st

from rice_jax import data
from rice_jax import files as places
from rice_jax.data import archive
from rice_jax.errors import UserError

FILES = data_files.pictures(3, ("Arborio", "Basmati"))


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


@pytest.mark.parametrize("own", ["", "train/"])
@pytest.mark.parametrize("written", ["./{}", "././{}", "rice//{}", "rice/./{}", ".\\{}"])
def test_a_zip_whose_names_go_roundabout_ways_holds_the_same(tmp_path, written, own, capsys):
    """As bsdtar writes './Arborio/1.jpg'."""
    files = {own + name: content for name, content in FILES.items()}
    files |= {name.replace("train", "test"): content for name, content in files.items()}
    zipped = data_files.write_zip(
        tmp_path / "rice.zip", {written.format(name): files[name] for name in files}
    )
    with zipfile.ZipFile(zipped, "a") as opened:
        for folder in sorted({"./", written.format(""), written.format(f"{own}Arborio/")}):
            opened.writestr(folder, b"")
    opened = archive.open_archive(zipped)
    assert read_all(opened) == files
    assert {member.name for member in opened.members} == files.keys()
    assert "without suffix" not in capsys.readouterr().err  # './' is no file


def test_a_remote_folder_or_zip_is_read_through_epath(tmp_path, monkeypatch):
    """Local paths stand in for gs://, taken the way that remote ones take."""
    monkeypatch.setattr(archive.files, "is_remote", lambda path: True)
    monkeypatch.setattr(os, "scandir", None)
    folder = data_files.write_folder(tmp_path / "rice", FILES)
    assert read_all(archive.open_archive(folder)) == FILES
    zipped = data_files.write_zip(tmp_path / "rice.zip", FILES)
    assert read_all(archive.open_archive(zipped)) == FILES


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


@pytest.mark.parametrize("path", ["nowhere", "./nowhere/", "FOLDER/nowhere", "../in/nowhere"])
@pytest.mark.parametrize("field", ["data", "eval"])
def test_images_that_are_gone_are_told_in_full_with_what_names_others(
    path, field, tmp_path, monkeypatch
):
    """A run that was moved tells its images as they were given then, maybe from another folder."""
    (tmp_path / "in").mkdir()
    monkeypatch.chdir(tmp_path / "in")
    reads = {"data": lambda path: data.load(path, "cache"), "eval": lambda p: data.folder(p, [])}
    with pytest.raises(UserError) as told:
        reads[field](path.replace("FOLDER", str(tmp_path / "in")))
    assert str(told.value).startswith(f"{tmp_path / 'in' / 'nowhere'} does not exist: give ")
    assert str(told.value).endswith(f"folder of class folders as --config.{field}.path")
    assert not os.listdir()


def test_images_that_are_gone_from_a_bucket_are_told_as_they_are_named(monkeypatch):
    class Gone:
        def __fspath__(self):
            return "gs://rice/nowhere"

        def exists(self):
            return False

        is_dir = exists

    monkeypatch.setattr(places, "reached", lambda path: Gone())
    monkeypatch.setattr(places, "require_content", lambda path: None)
    with pytest.raises(UserError, match=r"^gs://rice/nowhere does not exist: give the Kaggle zip"):
        archive.open_archive("gs://rice/nowhere")


def test_a_file_that_is_no_zip_is_told(tmp_path):
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


@settings(max_examples=150)
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
