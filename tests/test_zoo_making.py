"""The scripts that make the sample and the zoo out of the whole data set and of runs."""

import dataclasses
import json
import random
import zipfile
from pathlib import Path

import commands
import jax
import numpy as np
import pytest
import report_runs
import tiny_training

from rice_jax import config as configuration
from rice_jax import data, records, train, zoo
from rice_jax.data.layout import Member
from rice_jax.data.split import split
from rice_jax.errors import UserError
from rice_jax.run import Run

SCRIPTS = Path(__file__).parents[1] / "scripts"
SAMPLE, ZOO = (commands.imported(SCRIPTS / f"{name}.py") for name in ("make_sample", "make_zoo"))


TWICE = {"in_training": {"validation": 1, "test": 2}, "in_two_classes": 0}
"""How many images of the fixture's run are there more than once."""


class Archive:
    """Members whose content is their name, but for some that have another's."""

    def __init__(self, members, same_as=()):
        self.members, self._same_as = members, dict(same_as)

    def read(self, member):
        return self._same_as.get(member.name, member.name).encode()


def test_the_sample_is_of_the_test_split_and_the_same_whatever_the_order():
    members = [
        Member(label, f"{label}/{number}.jpg", "", 0, "")
        for label in "ab"
        for number in range(2100)
    ]
    chosen = list(SAMPLE.chosen(Archive(members)))
    tested = {member.name for member in split(members, 0)["test"]}
    assert {member.name for _, member in chosen} <= tested
    assert all(name.partition("/")[2] == member.name for name, member in chosen)
    for part, each in SAMPLE.EACH.items():
        for label in "ab":
            assert sum(name.startswith(f"{part}/{label}/") for name, _ in chosen) == each
    random.Random(0).shuffle(members)
    assert list(SAMPLE.chosen(Archive(members))) == chosen


@pytest.mark.parametrize("of", ["train", "validation", "test"])
def test_the_sample_has_no_photograph_that_the_data_set_holds_twice(of):
    members = [Member("a", f"a/{number}.jpg", "", 0, "") for number in range(3500)]
    parts = split(members, 0)
    first = [member.name for member in parts["test"]][:100:3]
    others = [member.name for member in parts[of]][-len(first) :]
    chosen = list(SAMPLE.chosen(Archive(members, zip(first, others, strict=True))))
    assert not {member.name for _, member in chosen} & {*first, *others}
    assert len(chosen) == sum(SAMPLE.EACH.values())


def test_the_packages_sample_is_as_the_script_makes_it():
    with zipfile.ZipFile(zoo.SAMPLE) as opened:
        names = [info.filename for info in opened.infolist()][1:]
        assert {info.compress_type for info in opened.infolist()} == {zipfile.ZIP_STORED}
        licence = opened.read("LICENCE.txt").decode()
    assert licence == zoo.SAMPLE.with_name("LICENCE.txt").read_text()
    for word in ("CC0", "Koklu, M., Cinar, I., & Taspinar, Y. S. (2021)", "10.1016/j.compag"):
        assert word in licence
    assert names == sorted(names)
    for part, each in SAMPLE.EACH.items():
        assert sum(name.startswith(f"{part}/") for name in names) == 5 * each
    pictures = [name.partition("/")[2] for name in names]
    assert len(set(pictures)) == len(pictures)


@pytest.fixture
def run(tmp_path):
    """A tiny net that learned for two epochs, in a folder of somebody's."""
    settings = tiny_training.config(augment=True)
    settings.data.update(path="/home/somebody/Rice_Image_Dataset/", cache_dir="/home/somebody/x")
    settings.eval.path = "/home/somebody/photographs"
    run = Run(tmp_path / "run")
    module = train.build(settings)
    params = train.initial_params(settings, module)
    train.begin(settings, run, tiny_training.dataset(), params)
    result = report_runs.result() | {"images": 20, "accuracy": 0.9}
    images = {"train": 100, "validation": 20, "test": 20}
    about = {"name": "rice", "synthetic": False, "fingerprint": "tiny", "skipped": 0}
    about["copies"] = {**TWICE, "pairs": [["a/1.jpg", "a/2.jpg"]] * 3}
    files = {
        "config.json": {
            "config": configuration.to_json(settings),
            "versions": {"jax": "1", "devices": "3 x abacus", "command": "/home/somebody"},
            "seed": 0,
            "data": about | {"classes": list(tiny_training.CLASSES), "images": images},
        },
        "evaluation.json": {"clean": result, "augmented": result, "path": "test split"},
    }
    for name, content in files.items():
        run.write_json(name, content)
    run.write_text("history.csv", "epoch,val_loss,val_accuracy\n1,0.2,0.5\n2,0.1,0.7\n3,0.3,0.9\n")
    return run


def test_a_run_becomes_a_net_of_the_zoo(run, tmp_path):
    trained = train.load(run)
    card = ZOO.card(run, trained)
    zoo.save("tiny", trained.params, card, tmp_path)
    entry = zoo.load("tiny", tmp_path)
    jax.tree.map(np.testing.assert_array_equal, entry.variables["params"], trained.params)
    card = entry.card
    assert card.data.copies == records.Copies(**TWICE)
    assert card.params == (27 * 4 + 4) + (4 * 8 + 8) + (8 * 5 + 5)
    assert (card.epochs, card.best_epoch) == (3, 2)
    assert dataclasses.asdict(card.accuracy) == {
        "validation": {"accuracy": 0.7, "images": 20},
        "clean": {"images": 20, "accuracy": 0.9},
        "augmented": {"images": 20, "accuracy": 0.9},
    }
    assert card.recipe == "study, augmented"
    assert card.machine == "3 x abacus"
    assert "somebody" not in json.dumps(records.plain(card))
    assert card.command.startswith("python -m rice_jax.main --config=configs/final.py ")
    for field in ("data.path=Rice_Image_Dataset", "train.augment=True", "train.epochs=3"):
        assert f"--config.{field}" in card.command


def test_images_that_the_environment_told_are_named_all_the_same(run):
    told = run.read_json("config.json")
    told["config"]["data"]["path"] = ""
    run.write_json("config.json", told)
    card = ZOO.card(run, train.load(run))
    assert card.config["data"]["path"] == "rice"
    assert "--config.data.path=rice" in card.command


def test_a_card_tells_of_all_clean_validation_images_whatever_was_validated_on(run, monkeypatch):
    told = run.read_json("config.json")
    told["config"]["train"] |= {"validation_augmented": True, "validation_images": 10}
    run.write_json("config.json", told)
    images = tiny_training.dataset()
    monkeypatch.setattr("rice_jax.identity.load_own", lambda *_: images)
    trained = train.load(run)
    card = ZOO.card(run, trained, command="rice-jax lighten")
    (batch,) = data.batches(images.splits["validation"], 20, image_size=tiny_training.SIZE)
    x = np.asarray(batch["image"], np.float32) / 255
    logits = trained.module.apply({"params": trained.params}, x)
    right = float(np.mean(np.argmax(logits, axis=1) == batch["label"]))
    assert dataclasses.asdict(card.accuracy.validation) == {"accuracy": right, "images": 20}
    assert card.command == "rice-jax lighten"


def test_a_net_in_half_precision_tells_what_it_does_so_rounded(run, tmp_path, monkeypatch):
    images = tiny_training.dataset()
    monkeypatch.setattr("rice_jax.identity.load_own", lambda *_: images)
    trained = ZOO.halved(train.load(run))
    card = ZOO.card(run, trained, measured=True)
    zoo.save("whole", trained.params, card, tmp_path)
    zoo.save("tiny", trained.params, card, tmp_path, half=True)
    whole, half = ((tmp_path / f"{name}.safetensors").stat().st_size for name in ("whole", "tiny"))
    assert whole - half == 2 * card.params
    entry = zoo.load("tiny", tmp_path)
    leaves = jax.tree.leaves(entry.variables)
    assert {leaf.dtype for leaf in leaves} == {np.dtype(np.float32)}
    for found, exact in zip(leaves, jax.tree.leaves(train.load(run).params), strict=True):
        np.testing.assert_allclose(found, exact, rtol=2**-11, atol=2**-24)
    for part, of in (("validation", "validation"), ("clean", "test")):
        (batch,) = data.batches(images.splits[of], 20, image_size=tiny_training.SIZE)
        logits = entry.module.apply(entry.variables, np.asarray(batch["image"], np.float32) / 255)
        right = float(np.mean(np.argmax(logits, axis=1) == batch["label"]))
        assert dataclasses.asdict(getattr(card.accuracy, part)) == {"accuracy": right, "images": 20}
    assert card.accuracy.augmented.images == 20


REFUSED = {
    "drawn": "not trained on photographs",
    "untrained": "not trained on photographs",
    "elsewhere": "evaluated on my/rice",
    "sample": r"seed 1, and so from some of the sample's",
}


@pytest.mark.parametrize("how", REFUSED)
def test_a_run_that_proves_nothing_is_refused(how, run):
    if how == "drawn":
        content = run.read_json("config.json")
        content["data"]["synthetic"] = True
        run.write_json("config.json", content)
    elif how == "untrained":
        (run.path / "history.csv").unlink()
    elif how == "sample":
        content = run.read_json("config.json")
        content["config"] |= {"seed": 1}  # and with it the splits
        run.write_json("config.json", content)
    else:
        run.write_json("evaluation.json", run.read_json("evaluation.json") | {"path": "my/rice"})
    with pytest.raises(UserError, match=REFUSED[how]):
        ZOO.card(run, train.load(run))
