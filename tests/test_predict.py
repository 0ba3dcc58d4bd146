"""Classes of image files, as a function and as a command."""

import csv
import dataclasses
import io
import json
import os

import commands
import cv2
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_training

from rice_jax import data, explanation, train
from rice_jax import prediction as predicting
from rice_jax.config import to_json
from rice_jax.data import loader
from rice_jax.errors import UserError
from rice_jax.prediction import find_images, predict
from rice_jax.run import Run

CLASSES = list(tiny_training.CLASSES)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A trained run."""
    run = Run(tmp_path_factory.mktemp("run"))
    config = tiny_training.config(epochs=1)
    run.write_json("config.json", {"config": to_json(config), "data": None})
    train.train(config, run, tiny_training.dataset())
    return run


@pytest.fixture(scope="module")
def trained(run):
    return train.load(run)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Ten images in two folders, and files beside them that are none."""
    folder = tmp_path_factory.mktemp("images")
    source = tiny_training.Images(10, seed=5)
    for index in range(10):
        place = folder / ("a" if index % 2 else "b/deeper") / f"{index}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(source[index]["image"])
    (folder / "a" / "notes.txt").write_text("no image")
    (folder / "a" / ".hidden.png").write_bytes(b"")
    return folder


@pytest.fixture(scope="module")
def refused(tmp_path_factory):
    """Files that are no images, with the reason that is to be given."""
    folder = tmp_path_factory.mktemp("refused")
    whole = cv2.imencode(".jpg", np.zeros((40, 40, 3), np.uint8))[1].tobytes()
    contents = {
        "text.jpg": (b"hello", "not a JPEG"),
        "empty.png": (b"", "not a JPEG"),
        "cut.jpg": (whole[:-200], "does not decode"),
        "deep.tif": (cv2.imencode(".tif", np.zeros((9, 9), np.float32))[1].tobytes(), "32-bit"),
    }
    for name, (content, _) in contents.items():
        (folder / name).write_bytes(content)
    os.mkfifo(folder / "pipe.png")
    reasons = {str(folder / name): reason for name, (_, reason) in contents.items()} | {
        str(folder / "absent.png"): "No such file",
        str(folder): "directory",
        str(folder / "pipe.png"): "a pipe or a device",
        "web://host/x.png": "web:// cannot be read",
    }
    return reasons


def probabilities(trained, path):
    """Of one image, computed by itself."""
    image = data.decode(path.read_bytes(), tiny_training.SIZE)
    logits = trained.module.apply({"params": trained.params}, image[None] / np.float32(255))
    exponentials = np.exp(np.asarray(logits[0], np.float64))
    return exponentials / exponentials.sum()


@pytest.mark.parametrize("batch_size", [1, 3, 64])
@pytest.mark.one_in(2)
def test_each_image_gets_its_own_probabilities(batch_size, trained, folder):
    paths = find_images([str(folder)])
    found = list(predict(trained, paths, batch_size=batch_size))
    assert [prediction.image for prediction in found] == paths
    for prediction, path in zip(found, sorted(folder.glob("**/[0-9].png")), strict=True):
        np.testing.assert_allclose(
            prediction.probabilities, probabilities(trained, path), atol=1e-5
        )


@pytest.mark.parametrize("batch_size", [2, 64])
def test_what_is_no_image_is_named_and_the_rest_goes_on(batch_size, trained, folder, refused):
    good = find_images([str(folder)])
    paths = [path for pair in zip(good, refused, strict=False) for path in pair]
    found = list(predict(trained, paths, batch_size=batch_size))
    assert [prediction.image for prediction in found] == paths
    for prediction in found:
        if prediction.image in refused:
            assert refused[prediction.image] in prediction.error
            assert prediction.probabilities is None
        else:
            assert not prediction.error
            assert prediction.probabilities.sum() == pytest.approx(1, abs=1e-5)


def test_images_of_folders_files_and_standard_input(folder, tmp_path):
    inside = sorted(str(path) for path in folder.glob("**/[0-9].png"))
    assert find_images([str(folder)]) == inside
    assert find_images(["x.gif", str(folder / "a")]) == ["x.gif", *inside[:5]]
    lines = [f"{folder}\n", "\n", "-\n", " \n", " one image.jpg \n", "a\r\n", "\tb"]
    named = [" one image.jpg ", "a", "\tb"]  # blanks are of the name
    assert find_images(["first.png", "-"], lines) == ["first.png", *inside, *named]
    with pytest.raises(UserError, match=r"holds no image \(\.jpg, "):
        find_images([str(tmp_path)])


ODD = (
    *("error", "image", "class", "probability", "né \U0001f33e\n", 'a,"b"'),
    *("class image", "class class", "class class image", "classic", "class photo"),
)
"""Classes called as columns are, and in letters that not all encodings have."""


@pytest.fixture
def answered(run, monkeypatch):
    """Prints what a net of odd classes, whose last is all but sure, says of an image: the bytes."""

    def answer(
        form,
        encoding,
        probabilities=(0.0, 2e-9, 0.0, 0.0, 0.0, 0.9999, 0.01, 0.02, 0.03, 0.04, 0.05),
        image="é.png",
        errors="backslashreplace",
    ):
        net = dataclasses.replace(train.load(run), classes=ODD)
        said = predicting.Prediction(image, np.array(probabilities, np.float32))
        monkeypatch.setattr(train, "load", lambda run: net)
        monkeypatch.setattr(predicting, "predict", lambda *args, **kwargs: iter([said]))
        file = io.TextIOWrapper(io.BytesIO(), encoding, errors, newline="")
        monkeypatch.setattr(predicting.sys, "stdout", file)
        predicting.answer(run, ["é.png"], [], form=form)
        file.flush()
        return file.buffer.getvalue().decode(encoding)

    return answer


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_json_is_json_in_whatever_encoding(answered, encoding):
    (line,) = answered("json", encoding).splitlines()
    told = json.loads(line)
    assert told["image"] == "é.png"
    assert tuple(told["probabilities"]) == ODD
    assert ("é" in line) == (encoding == "utf-8")
    assert told["probabilities"]["image"] == pytest.approx(2e-9)  # small, not nothing


@pytest.mark.parametrize("errors", ["backslashreplace", "surrogateescape"])
def test_json_of_a_name_that_is_no_utf_8_is_json(answered, errors):
    """In the C locale Python writes such bytes as they came, which no reader of JSON takes."""
    image = os.fsdecode(b"\xff.png")
    assert json.loads(answered("json", "utf-8", image=image, errors=errors))["image"] == image


def test_columns_of_csv_have_names_of_their_own(answered):
    text = answered("csv", "utf-8")
    (row,) = csv.DictReader(io.StringIO(text, newline=""))
    assert len(row) == 4 + len(ODD)
    assert (row["image"], row["error"], row["class"]) == ("é.png", "", 'a,"b"')
    assert float(row["class image"]) == pytest.approx(2e-9)
    assert float(row["class error"]) == 0
    assert float(row["class class image"]) == pytest.approx(0.01)
    assert float(row["class class class image"]) == pytest.approx(0.03)
    assert (float(row["classic"]), float(row["class photo"])) == (0.04, 0.05)
    assert float(row['a,"b"']) == pytest.approx(0.9999)


def test_of_no_image_nothing_is_said(trained):
    assert list(predict(trained, [])) == []


@pytest.mark.parametrize(("most", "ahead"), [(10**9, 3 + 2), (4 * 16 * 16 * 3, 2), (0, 1)])
def test_batches_that_wait_take_a_bounded_room(most, ahead, trained, folder, monkeypatch):
    """A batch has 2 * 16 * 16 * 3 bytes of pixels; three threads would be five ahead."""
    seen, in_order = [], predicting.in_order
    monkeypatch.setattr(
        predicting,
        "in_order",
        lambda *args, ahead: (seen.append(ahead), in_order(*args, ahead=1))[1],
    )
    monkeypatch.setattr(loader, "threads", lambda: 3)
    monkeypatch.setattr(loader, "_MOST_READY", most)
    assert len(list(predict(trained, find_images([str(folder)]), batch_size=2))) == 10
    assert seen == [ahead]


def test_batches_that_no_memory_holds_are_refused(trained):
    config = trained.config.copy_and_resolve_references()
    config.data.image_size = 4096
    large = dataclasses.replace(trained, config=config)
    with pytest.raises(UserError, match=r"take 15,099.5 GB, .* smaller batches \(--batch_size\)"):
        next(predict(large, ["x.png"] * 100_000, batch_size=100_000))


def test_an_answer_that_is_no_number_is_refused(trained, folder):
    broken = jax.tree.map(lambda array: array * np.nan, trained.params)
    net = dataclasses.replace(trained, params=broken)
    images = find_images([str(folder)])
    for found in predict(net, images):
        assert found.probabilities is None
        assert found.error == "the net's answer is no number"


def test_a_name_does_not_steer_the_terminal(run, folder, tmp_path, capfd):
    name = tmp_path / "ev\x1b[31mil\nname.png"
    name.write_bytes(next(folder.glob("**/0.png")).read_bytes())
    done = commands.run("predict", f"--workdir={run}", str(name))
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    assert done.stdout.splitlines()[-1].endswith(r"ev\x1b[31mil\nname.png")


def test_what_is_not_plain_rgb_is_told_once(run, tmp_path):
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    pictures = {"a.png": grey, "b.tif": grey, "deeper/c.JPG": np.dstack([grey] * 3)}
    for name, picture in pictures.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(cv2.imencode(name[-4:], picture)[1].tobytes())
    (tmp_path / "notes.TXT").write_text("none")
    done = commands.run("predict", f"--workdir={run}", tmp_path)
    assert done.returncode == 0, done.stderr
    assert [line.split()[-1] for line in done.stdout.splitlines()[1:]] == [
        str(tmp_path / name) for name in ("a.png", "b.tif", "deeper/c.JPG")
    ]
    assert f"{tmp_path}: left out 1 other file: 1 .txt" in done.stderr
    assert "2 images were made plain 8-bit RGB: 2 grey" in done.stderr


def test_json_of_a_list(run, trained, folder, refused):
    paths = [str(folder / "a" / "1.png"), next(iter(refused)), str(folder / "b/deeper/2.png")]
    done = commands.run("predict", "-", "--json", f"--workdir={run}", stdin="\n".join(paths))
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["image"] for line in lines] == paths
    assert "not a JPEG" in lines[1]["error"]
    for line in (lines[0], lines[2]):
        expected = dict(
            zip(trained.classes, probabilities(trained, folder / line["image"]), strict=True)
        )
        assert line["probabilities"] == pytest.approx(expected, abs=1e-5)
        assert line["class"] == max(expected, key=expected.get)
        assert line["probability"] == line["probabilities"][line["class"]]
    assert done.returncode == 1
    assert f"error: {paths[1]}: not a JPEG" in done.stderr
    assert done.stderr.splitlines()[-1] == "error: 1 of 3 images could not be classified"


def test_table_and_feature_maps(run, trained, folder, tmp_path):
    path = folder / "a" / "3.png"
    done = commands.run("predict", f"--workdir={run}", path, f"--explain={tmp_path / 'maps'}")
    assert done.returncode == 0, done.stderr
    header, row = (line.split() for line in done.stdout.splitlines())
    expected = probabilities(trained, path)
    assert header == ["class", *CLASSES, "image"]
    assert (row[0], row[-1]) == (CLASSES[int(expected.argmax())], str(path))
    np.testing.assert_allclose([float(cell) for cell in row[1:-1]], expected, atol=1e-4)
    assert sorted(file.name for file in (tmp_path / "maps").iterdir()) == [
        "conv1.png",
        "explained.json",
        "saliency.png",
    ]
    assert cv2.imread(str(tmp_path / "maps" / "conv1.png")).std() > 0
    told = json.loads((tmp_path / "maps" / "explained.json").read_text())
    assert (told["image"], next(iter(told["probabilities"]))) == (str(path), row[0])
    np.testing.assert_allclose([told["probabilities"][name] for name in CLASSES], expected, 1e-5)
    again = commands.run(
        "predict", f"--workdir={run}", folder / "a" / "1.png", f"--explain={tmp_path / 'maps'}"
    )
    assert again.returncode == 0, again.stderr


class Twice(nn.Module):
    """Its last convolution is called twice, and what the two calls give meets without maps."""

    @nn.compact
    def __call__(self, images, train=False):
        conv, last = nn.Conv(4, (3, 3), name="first"), nn.Conv(4, (3, 3), name="last")
        wide = conv(images)
        parts = [last(wide).mean((1, 2)), last(wide[:, ::2, ::2]).mean((1, 2))]
        return nn.Dense(len(CLASSES))(jnp.concatenate(parts, axis=-1))


class Apart(nn.Module):
    """A way around the last convolution."""

    @nn.compact
    def __call__(self, images, train=False):
        maps = nn.Conv(4, (3, 3), name="conv")(images)
        return nn.Dense(len(CLASSES))(jnp.concatenate([maps.mean((1, 2)), images.mean((1, 2))], -1))


class NoMaps(nn.Module):
    @nn.compact
    def __call__(self, images, train=False):
        return nn.Dense(len(CLASSES))(images.mean((1, 2)))


@pytest.mark.parametrize(
    ("module", "layers"),
    [(Twice(), {"first", "last", "last@2"}), (Apart(), {"conv"}), (NoMaps(), set())],
)
def test_maps_are_shown_where_none_can_be_weighed_by_a_class(
    module, layers, run, trained, folder, tmp_path, capsys
):
    side = trained.config.data.image_size
    params = module.init(jax.random.key(0), np.zeros((1, side, side, 3), np.float32))["params"]
    net = dataclasses.replace(trained, module=module, params=params)
    said = predicting.Prediction(str(folder / "a" / "1.png"), np.eye(len(CLASSES))[0])
    out = tmp_path / "maps"
    if not layers:
        with pytest.raises(UserError, match="no convolution"):
            explanation.into(str(out), run)(net, said)
        assert not out.exists()
        return
    out.mkdir()
    for name in ("explained.json", "saliency.png"):  # of an image before
        (out / name).write_text("{}")
    explanation.into(str(out), run)(net, said)
    assert {file.name for file in out.iterdir()} == {
        "explained.json",
        *(f"{name}.png" for name in layers),
    }
    heard = capsys.readouterr().err
    assert "There is no saliency.png: not all that the net knows of an image passes" in heard
    number = f"{len(layers)} layer{'s' * (len(layers) > 1)}"
    assert f"The feature maps of {number} are in {out}\n" in heard


@pytest.mark.parametrize("name", ["conv1.png", "saliency.png"])
def test_pictures_of_anothers_are_not_written_over(name, run, folder, tmp_path):
    (tmp_path / name).write_text("mine")
    done = commands.run(
        "predict", f"--workdir={run}", folder / "a" / "3.png", f"--explain={tmp_path}"
    )
    assert done.returncode == 1
    assert f"has a {name} that shows no image explained" in done.stderr
    assert [file.name for file in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"


def test_csv_is_what_a_spreadsheet_reads(run, trained, folder, refused):
    bad = next(iter(refused))
    paths = [folder / "a" / "1.png", bad]
    done = commands.run("predict", f"--workdir={run}", "--csv", *paths)
    assert done.returncode == 1
    good, failed = csv.DictReader(io.StringIO(done.stdout))
    expected = probabilities(trained, paths[0])
    assert list(good) == ["image", "class", "probability", *CLASSES, "error"]
    assert good["image"] == str(paths[0])
    assert good["class"] == CLASSES[int(expected.argmax())]
    assert float(good["probability"]) == pytest.approx(expected.max(), abs=1e-5)
    np.testing.assert_allclose([float(good[name]) for name in CLASSES], expected, atol=1e-5)
    assert good["error"] == ""
    assert failed["image"] == bad
    assert "not a JPEG" in failed["error"]
    assert {failed[name] for name in ("class", "probability", *CLASSES)} == {""}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["x.png"], "--workdir is missing"),
        (["--workdir={run}"], "no image given"),
        (["--workdir={run}", "--explain=maps", "x.png", "y.png"], "a single image, not 2"),
        (["--workdir={run}", "--explain", __file__], f"give --explain=FOLDER {__file__}"),
        (["--workdir={run}", "--json", "--csv", "x.png"], "--json and --csv"),
        (["--workdir={folder}", "x.png"], "config.json is missing"),
    ],
)
def test_mistakes(arguments, message, run, folder):
    arguments = [argument.format(run=run, folder=folder) for argument in arguments]
    done = commands.run("predict", *arguments)
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert message in line
