"""Images that a data set holds more than once, byte for byte."""

import itertools
import random

import data_files
import pytest
from report_runs import make_run, text_of

from rice_jax import data
from rice_jax.data import learned

CLASSES = ("a", "b")
OWN = {
    "test images of training images": (
        {"train/a/1": 1, "train/a/2": 2, "train/b/1": 3, "validation/a/1": 4, "validation/b/1": 5}
        | {"test/a/1": 1, "test/a/2": 1, "test/a/3": 6, "test/b/1": 7},
        ({"validation": 0, "test": 2}, 0, {("test/a/1", "train/a/1"), ("test/a/2", "train/a/1")}),
        "the same as training images, byte for byte: 2 of the test images",
    ),
    "validation images of training images, and two classes": (
        {"train/a/1": 1, "train/b/1": 3, "train/b/2": 8, "validation/a/1": 8, "validation/b/1": 3}
        | {"test/a/1": 4, "test/b/1": 5},
        (
            {"validation": 2, "test": 0},
            2,
            {("train/b/2", "validation/a/1"), ("validation/a/1", "train/b/2")}
            | {("validation/b/1", "train/b/1")},
        ),
        "the same as training images, byte for byte: 2 of the validation images; "
        "the same in two classes, byte for byte: 2 images",
    ),
    "within a split, and between the others": (
        {"train/a/1": 1, "train/a/2": 1, "train/b/1": 3, "validation/a/1": 4, "validation/b/1": 5}
        | {"test/a/1": 4, "test/b/1": 6, "test/b/2": 6},
        ({"validation": 0, "test": 0}, 0, set()),
        "",
    ),
}


def write(folder, shades):
    """An image for each name, of the shade that it has."""
    return data_files.write_folder(
        folder, {f"{name}.png": data_files.picture(shade) for name, shade in shades.items()}
    )


@pytest.mark.parametrize(("shades", "expected", "line"), OWN.values(), ids=OWN)
def test_what_is_there_twice_is_counted_and_told(shades, expected, line, tmp_path, capfd):
    folder = write(tmp_path / "mine", shades)
    for _ in ("prepared", "out of the cache"):
        found = data.load(folder, tmp_path / "cache").copies
        in_training, in_two_classes, pairs = expected
        assert (found.in_training, found.in_two_classes) == (in_training, in_two_classes)
        assert {tuple(name.removesuffix(".png") for name in pair) for pair in found.pairs} == pairs
        said = [each for each in capfd.readouterr().err.splitlines() if "byte for byte" in each]
        shown = "; ".join(" and ".join(pair) for pair in found.pairs)
        assert said == ([f"mine: {line}. Such are {shown}"] if line else [])


@pytest.mark.parametrize("seed", range(4))
def test_the_counts_are_those_of_pairs(seed, tmp_path):
    """Of images that are cut into splits by their names; each pair is looked at by itself."""
    dice = random.Random(seed)
    names = [f"{label}/{number}" for label in CLASSES for number in range(30)]
    folder = write(tmp_path / "mine", {name: dice.randrange(40) for name in names})
    dataset = data.load(folder, tmp_path / "cache", seed=seed)
    images = [
        (split, record["label"], record["image"])
        for split, source in dataset.splits.items()
        for record in source
    ]
    in_training = {"validation": set(), "test": set()}
    in_two_classes = set()
    for (i, one), (j, other) in itertools.permutations(enumerate(images), 2):
        if one[2] == other[2] and (one[0], other[0]) in {
            ("test", "train"),
            ("validation", "train"),
        }:
            in_training[one[0]].add(i)
        if one[2] == other[2] and one[1] != other[1]:
            in_two_classes.update((i, j))
    assert dataset.copies.in_training == {name: len(each) for name, each in in_training.items()}
    assert dataset.copies.in_two_classes == len(in_two_classes) > 0


def test_of_images_that_are_made_others_the_bytes_are_those_found(tmp_path):
    """Two files of one picture are two: what made them differ is not known."""
    same, other = (data_files.picture(9, suffix=suffix) for suffix in (".bmp", ".png"))
    files = {"train/a/1.bmp": same, "validation/a/1.png": other, "test/a/1.bmp": same}
    for split in ("train", "validation", "test"):
        files[f"{split}/b/1.png"] = data_files.picture(len(split))
    folder = data_files.write_folder(tmp_path / "mine", files)
    assert data.load(folder, tmp_path / "cache").copies.in_training == {"validation": 0, "test": 1}


@pytest.mark.parametrize(
    ("pairs", "said"),
    [(120, "; 97 more pairs in config.json"), (4, "; 2 more pairs in"), (3, "; 1 more pair in")],
)
def test_many_pairs_are_not_all_shown(pairs, said, tmp_path, capfd):
    shades = {f"{split}/a/{n}": n for split in ("train", "test") for n in range(pairs)}
    shades |= {f"{split}/b/1": 200 + len(split) for split in ("train", "validation", "test")}
    folder = write(tmp_path / "mine", shades | {"validation/a/1": 210})
    found = data.load(folder, tmp_path / "cache").copies
    assert found.in_training == {"validation": 0, "test": pairs}
    assert len(set(found.pairs)) == len(found.pairs) == min(pairs + 1, 100)
    assert said in capfd.readouterr().err


@pytest.mark.parametrize("path", ["sample", "synthetic"])
def test_the_package_s_own_are_there_once(path, tmp_path):
    found = data.load(path, tmp_path, synthetic_per_class=20).copies
    assert not any(found.in_training.values())
    assert not found.in_two_classes


@pytest.mark.parametrize(("shades", "expected", "line"), OWN.values(), ids=OWN)
def test_a_report_tells_them(shades, expected, line, tmp_path):
    run = make_run(tmp_path)
    written = run.read_json("config.json")
    assert "byte for byte" not in text_of(run)
    copies = dict(zip(("in_training", "in_two_classes"), expected[:2], strict=True))
    run.write_json("config.json", written | {"data": written["data"] | {"copies": copies}})
    if line:
        assert f". {line.capitalize()}." in text_of(run)
    else:
        assert "byte for byte" not in text_of(run)


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        (0, ""),
        (1, "mine: 1 of 3 images is a training image of the run too, byte for byte (m0 and t0):"),
        (2, "mine: 2 of 3 images are training images of the run too, byte for byte (m0 and t0; "),
    ],
)
def test_images_that_were_learned_from_are_told_of(capsys, seen, said):
    def images(letter, contents):
        return [{"image": each, "name": f"{letter}{n}"} for n, each in enumerate(contents)]

    mine = [b"a", b"b", b"c"]
    training = images("t", [*mine[:seen], b"other"])
    assert learned.count_learned(images("m", mine), training, "mine") == seen
    told = [each for each in capsys.readouterr().err.splitlines() if "byte for byte" in each]
    assert [each[: len(said)] for each in told] == ([said] if said else [])
