"""Folders that are evaluated as they are: classes by name, every image once."""

import io

import data_files
import pytest
from PIL import Image

from rice_jax import data
from rice_jax.errors import UserError


def test_a_folder_to_evaluate_is_matched_by_name(tmp_path, capsys):
    files = data_files.spoiled(200, 1)
    where = data_files.write_folder(tmp_path / "rice", files)
    source = data.folder(where, ("b", "a"))
    assert len(source) == 198
    labels = {record["name"]: record["label"] for record in (source[i] for i in range(198))}
    assert labels["a/a (2).png"] == 1
    assert labels["b/b (2).png"] == 0
    assert source[0]["image"] == files[source[0]["name"]]
    assert [each["name"] for each in source.skipped] == ["a/a (1).png", "b/b (1).png"]
    assert "left out 2 of 200 images: a/a (1).png: not a JPEG" in capsys.readouterr().err


@pytest.mark.parametrize("parts", [("train", "val", "test"), ("train", "test"), ()])
def test_a_split_that_is_evaluated_as_a_whole_is_said(tmp_path, capsys, parts):
    files = data_files.pictures(1, "ab")
    spread = {f"{part}/{name}": files[name] for part in parts for name in files} or files
    where = data_files.write_folder(tmp_path / "rice", spread)
    assert len(data.folder(where, "ab")) == len(spread)
    told = capsys.readouterr().err
    names = ", ".join(parts).replace("val", "validation")
    assert (f"{where}: {names} are evaluated together" in told) == bool(parts)
    if parts:
        assert len(data.folder(where / "test", "ab")) == 2
        assert "together" not in capsys.readouterr().err


def test_a_folder_is_known_by_its_images_and_not_by_its_place(tmp_path):
    classes = ("a", "b")
    places = [tmp_path / name for name in ("one", "two", "less", "other")]
    for place, number in zip(places, (3, 3, 2, 3), strict=True):
        data_files.write_folder(place, data_files.pictures(number, classes))
    image = next((places[-1] / "a").iterdir())
    image.write_bytes(next((places[-1] / "b").iterdir()).read_bytes())
    one, two, *others = (data.folder(place, classes).fingerprint for place in places)
    assert one == two
    assert len({one, *others}) == 3


@pytest.mark.parametrize("some", [data_files.CLASSES, ("Jasmine", "Basmati"), ("Jasmine",)])
def test_a_folder_to_evaluate_may_lack_classes(some, tmp_path):
    names = ("Bomba", *data_files.CLASSES[::-1])
    source = data.folder(data_files.write_folder(tmp_path, data_files.pictures(2, some)), names)
    records = [source[index] for index in range(len(source))]
    assert {names[each["label"]] for each in records} == set(some)
    assert all(each["name"].startswith(names[each["label"]]) for each in records)


def test_a_folder_with_an_unknown_class_is_refused(tmp_path):
    folder = data_files.write_folder(tmp_path, data_files.pictures(1))
    with pytest.raises(UserError, match="does not know: Arborio; it knows Basmati"):
        data.folder(folder, data_files.CLASSES[1:])


@pytest.mark.parametrize("kind", [".png", ".gif"])
@pytest.mark.parametrize("change", [None, b"no image any more"])
def test_an_image_that_is_removed_or_changed_while_it_is_evaluated_is_named(tmp_path, kind, change):
    pixels = data_files.pictures(1, "ab")
    files = {name.replace(".png", kind): _as(kind, image) for name, image in pixels.items()}
    source = data.folder(data_files.write_folder(tmp_path, files), "ab")
    first = tmp_path / source[0]["name"]
    first.write_bytes(change) if change else first.unlink()
    with pytest.raises(UserError, match=rf"^a/.*{kind}: "):
        list(data.batches(source, 2, image_size=8))


def _as(kind, image):
    made = io.BytesIO()
    Image.open(io.BytesIO(image)).save(made, kind[1:])
    return made.getvalue()
