"""The whole job, from the command to the pictures, on a few small grains."""

import csv
import json
import re
import shutil
import signal
from pathlib import Path

import data_files
import numpy as np
import pytest
import report_runs
from processes import ended, start_two
from small_run import read, small

from rice_jax import config, data, stages
from rice_jax.data import loader
from rice_jax.errors import UserError
from rice_jax.report import writing
from rice_jax.stages import run_stages

pytestmark = pytest.mark.usefixtures("drawn_small")

FILES = [
    "config.json",
    "history.csv",
    "evaluation.json",
    "profile.json",
    "dead_filters.json",
    "summary.json",
    "report.md",
    "report.html",
    "feature_maps.json",
    "curves.png",
    "confusion_matrix_clean.png",
    "confusion_matrix_augmented.png",
    "classes.png",
    "dead_filters.png",
]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def finished(cache, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "cnn_light"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(workdir.parent)  # relative, as the default folder is
        run_stages(
            small("cnn_light", cache), workdir.name, ["train", "evaluate", "profile", "inspect"]
        )
    return workdir


def test_every_file_of_a_run_is_there(finished):
    assert [name for name in FILES if not (finished / name).is_file()] == []
    maps = {path.name for path in (finished / "feature_maps").iterdir()}
    assert maps == {f"conv{number}.png" for number in (1, 2)}
    assert not list(finished.rglob("*.partial"))


@pytest.mark.parametrize("restart", [False, True])
def test_what_a_run_leaves_is_not_written_over_where_another_made_it(
    restart, finished, cache, tmp_path
):
    """In a folder without config.json, which a run has from its beginning to its end."""
    left = [path for path in finished.iterdir() if path.name not in ("checkpoints", ".lock")]
    for number, path in enumerate(path for path in left if path.name != "config.json"):
        theirs = tmp_path / str(number) / path.name
        (theirs if path.is_dir() else theirs.parent).mkdir(parents=True)
        if not path.is_dir():
            theirs.write_text("theirs")
        settings = small("cnn_light", cache)
        with pytest.raises(UserError, match=f"has a {path.name} that no run made"):
            run_stages(settings, str(theirs.parent), ["train"], restart=restart)
        assert [path.name for path in theirs.parent.iterdir()] == [theirs.name]
        assert path.is_dir() or theirs.read_text() == "theirs"


def test_files_hold_what_they_are_named_for(finished):
    saved = read(finished, "config.json")
    assert saved["data"]["synthetic"] is True
    assert saved["data"]["images"] == {"train": 40, "validation": 5, "test": 5}
    assert len(saved["data"]["classes"]) == 5
    with (finished / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert list(rows[0]) == [
        *("epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy"),
        *("learning_rate", "seconds", "images_per_second", "seed", "image_size"),
        *("compiling_seconds", "decoding_seconds", "feeding_seconds", "step_seconds"),
        *("validation_seconds", "saving_seconds", "drawing_seconds"),
    ]
    evaluation = read(finished, "evaluation.json")
    for kind in ("clean", "augmented"):
        assert evaluation[kind]["images"] == 5
        assert np.sum(evaluation[kind]["confusion_matrix"]) == 5
        assert set(evaluation[kind]["per_class"]) == set(saved["data"]["classes"])
    dead = read(finished, "dead_filters.json")
    assert [layer["filters"] for layer in dead["layers"]] == [8, 16]
    assert dead["images"] == 5
    totals = read(finished, "profile.json")["totals"]
    assert totals["params"] == 224 + 1168 + (2 * 2 * 16 * 16 + 16) + (16 * 5 + 5)
    assert totals["xla_measured"] == pytest.approx(totals["flops"]["xla"], rel=1e-6)
    assert read(finished, "summary.json")["dataset"]["synthetic"] is True


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), UserError("no space left")])
@pytest.mark.parametrize("place", ["stage", "report"])
def test_what_fails_is_not_under_way_for_ever(
    failure, place, finished, cache, tmp_path, monkeypatch
):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    seen = []

    def failing(job):
        seen.append("Under way" in (run / "report.html").read_text())
        raise failure

    done = {"stage": failing, "report": lambda job: None}[place]
    monkeypatch.setitem(stages.STAGES, "evaluate", done)
    monkeypatch.setattr(writing, "write", failing)
    with pytest.raises(type(failure)):
        run_stages(small("cnn_light", cache), str(run), ["evaluate"])
    assert seen == [True]
    assert "Under way" not in (run / "report.html").read_text()


def test_a_ctrl_c_that_comes_again_leaves_no_page_under_way(finished, cache, tmp_path, monkeypatch):
    """The first ends the stage, the next comes as the page is written."""
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    watch = writing.watch

    def watched(target, doing):
        if not doing:
            signal.raise_signal(signal.SIGINT)
        watch(target, doing)

    def stopped(job):
        raise KeyboardInterrupt

    monkeypatch.setattr(writing, "watch", watched)
    monkeypatch.setitem(stages.STAGES, "evaluate", stopped)
    with pytest.raises(KeyboardInterrupt):
        run_stages(small("cnn_light", cache), str(run), ["evaluate"])
    assert "Under way" not in (run / "report.html").read_text()


def test_the_report_links_what_exists_and_says_synthetic(finished):
    report = (finished / "report.md").read_text()
    links = re.findall(r"\]\(([^)]+)\)", report)
    assert len(links) > 8
    assert [link for link in links if not (finished / link).is_file()] == []
    assert "synthetic" in report.lower()


def test_a_finished_run_is_not_trained_again(finished, cache):
    before = (finished / "history.csv").read_text()
    first = read(finished, "evaluation.json")
    settings = small("cnn_light", cache, **{"train.save_seconds": 5.0})
    run_stages(settings, str(finished), ["train", "evaluate"])
    assert (finished / "history.csv").read_text() == before
    assert read(finished, "evaluation.json") == first


@pytest.mark.thorough
def test_two_processes_leave_the_run_that_one_does(finished, cache, tmp_path):
    settings = config.to_json(small("cnn_light", cache))
    fields = [
        f"--config.{part}.{name}={settings[part][name]}"
        for part, names in {
            "data": ("path", "image_size", "synthetic_per_class", "cache_dir", "keep_decoded"),
            "train": ("epochs", "batch_size"),
        }.items()
        for name in names
    ]
    file = Path(__file__).parent.parent / "configs" / "cnn_light.py"
    first, second = start_two(
        *("-m", "rice_jax.main", f"--config={file}", f"--workdir={tmp_path}", *fields)
    )
    with first, second:
        said, silence = ended(first), ended(second)
    assert "epoch   2/2" in said
    assert "accuracy" not in silence
    assert [name for name in FILES if not (tmp_path / name).is_file()] == []
    ours, theirs = (read(run, "evaluation.json") for run in (tmp_path, finished))
    for kind in ("clean", "augmented"):
        assert ours[kind]["images"] == theirs[kind]["images"]
        assert ours[kind]["loss"] == pytest.approx(theirs[kind]["loss"], abs=1e-4)
    ours, theirs = (read(run, "dead_filters.json") for run in (tmp_path, finished))
    assert ours["images"] == theirs["images"]
    for mine, other in zip(ours["layers"], theirs["layers"], strict=True):
        assert mine["dead_clean"] == other["dead_clean"]
        assert mine["zero_fraction"] == pytest.approx(other["zero_fraction"], abs=1e-2)


@pytest.mark.parametrize("change", [{"train.learning_rate": 0.1}, {"seed": 3}, {"model.dense": 8}])
def test_another_run_in_the_same_folder_is_refused(finished, cache, change):
    before = (finished / "config.json").read_text()
    with pytest.raises(UserError, match=next(iter(change))):
        run_stages(small("cnn_light", cache, **change), str(finished), ["evaluate"])
    assert (finished / "config.json").read_text() == before


def test_other_images_in_the_same_folder_are_refused(finished, cache):
    with pytest.raises(UserError, match="other images"):
        run_stages(
            small("cnn_light", cache, **{"data.synthetic_per_class": 12}), str(finished), ["train"]
        )


FIVE = data_files.CLASSES
GIVEN = {
    "other grains": None,
    "other images": FIVE,
    "a renamed class": ("Zerde", *FIVE[1:]),
    "a sixth class": (*FIVE, "Bomba"),
    "a subset": FIVE[:3],
}


@pytest.mark.parametrize("stage", ["evaluate", "inspect"])
@pytest.mark.parametrize("given", GIVEN)
@pytest.mark.one_in(2)
def test_stages_refuse_images_that_the_run_was_not_trained_on(
    finished, cache, tmp_path, stage, given
):
    fields = {"data.synthetic_per_class": 12}
    now = r"synthetic grains \(60 images in 5 classes"
    if classes := GIVEN[given]:
        files = data_files.pictures(10, classes)
        fields = {"data.path": str(data_files.write_folder(tmp_path / "mine", files))}
        now = rf"mine \({len(files)} images in {len(classes)} classes: {sorted(classes)[0]}"
    before = {path: path.read_bytes() for path in finished.glob("*.json")}
    said = rf"is of synthetic grains \(50 images .* given now is {now}.*eval\.path"
    with pytest.raises(UserError, match=said):
        run_stages(small("cnn_light", cache, **fields), str(finished), [stage])
    assert {path: path.read_bytes() for path in finished.glob("*.json")} == before


def test_a_run_of_real_images_is_not_evaluated_on_grains_drawn_for_want_of_them(
    finished, cache, tmp_path, monkeypatch
):
    monkeypatch.delenv("RICE_IMAGE_DATASET", raising=False)
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    saved = read(run, "config.json")
    saved["data"] |= {"name": "rice.zip", "synthetic": False, "fingerprint": "0123"}
    (run / "config.json").write_text(json.dumps(saved))
    with pytest.raises(UserError, match=r"is of rice\.zip .* RICE_IMAGE_DATASET"):
        run_stages(small("cnn_light", cache), str(run), ["evaluate", "inspect"])


def test_a_folder_of_some_classes_is_evaluated_by_their_names(finished, cache, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    some = FIVE[3:1:-1]
    where = data_files.write_folder(tmp_path / "mine", data_files.pictures(3, some))
    run_stages(small("cnn_light", cache, **{"eval.path": str(where)}), str(run), ["evaluate"])
    found = read(run, "evaluation.json")["clean"]["per_class"]
    support = {name: row["support"] for name, row in found.items()}
    assert support == {name: 3 if name in some else 0 for name in FIVE}
    data_files.write_folder(where, data_files.pictures(1, ("Zerde",)))
    with pytest.raises(UserError, match="does not know: Zerde; it knows Arborio"):
        run_stages(small("cnn_light", cache, **{"eval.path": str(where)}), str(run), ["evaluate"])


def test_images_are_evaluated_by_as_many_threads_as_are_asked_for(
    finished, cache, tmp_path, monkeypatch
):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    asked, in_order = [], loader.in_order

    def watched(*args, workers, **more):
        asked.append(workers)
        return in_order(*args, workers=workers, **more)

    monkeypatch.setattr(loader, "in_order", watched)
    run_stages(small("cnn_light", cache, **{"data.workers": 2}), str(run), ["evaluate"])
    assert asked == [2, 2]  # clean and augmented


def test_a_folder_of_ones_own_is_evaluated_instead_of_the_split(finished, cache, tmp_path):
    dataset = data.load("synthetic", str(cache), seed=0, synthetic_per_class=10, keep_decoded=False)
    for index in range(3):
        record = dataset.splits["validation"][index]
        for number, name in enumerate(dataset.classes):
            (tmp_path / name).mkdir(exist_ok=True)
            if number == record["label"]:
                (tmp_path / name / f"{index}.jpg").write_bytes(record["image"])
    for name in dataset.classes:  # a class folder may not be empty
        if not any((tmp_path / name).iterdir()):
            (tmp_path / name / "x.jpg").write_bytes(dataset.splits["test"][0]["image"])
    before = (finished / "evaluation.json").read_text()
    try:
        run_stages(
            small("cnn_light", cache, **{"eval.path": str(tmp_path)}), str(finished), ["evaluate"]
        )
        images = len(list(tmp_path.rglob("*.jpg")))
        assert read(finished, "evaluation.json")["clean"]["images"] == images
    finally:
        (finished / "evaluation.json").write_text(before)


@pytest.mark.parametrize(("taken", "kept"), [("train", 3), ("train", 0), ("validation", 3)])
@pytest.mark.one_in(2)
def test_images_of_a_folder_that_a_run_has_learned_from_are_counted(
    finished, cache, tmp_path, capfd, taken, kept
):
    """Not those that it was validated or tested on; that of another class folder too."""
    run, where = tmp_path / "run", tmp_path / "mine"
    shutil.copytree(finished, run)
    dataset = data.load("synthetic", str(cache), seed=0, synthetic_per_class=10, keep_decoded=False)
    files = data_files.pictures(2, FIVE)
    files |= {
        f"{name}/own{number}.jpg": dataset.splits[taken][number]["image"]
        for number, name in enumerate(FIVE[:kept])
    }
    data_files.write_folder(where, files)
    run_stages(small("cnn_light", cache, **{"eval.path": str(where)}), str(run), ["evaluate"])
    learned = kept if taken == "train" else 0
    evaluation = read(run, "evaluation.json")
    assert (evaluation["in_training"], evaluation["clean"]["images"]) == (learned, 10 + kept)
    told = [
        line for line in capfd.readouterr().err.splitlines() if "training images of the" in line
    ]
    assert len(told) == bool(learned)
    if learned:
        assert f"{where}: 3 of 13 images" in told[0]
        assert f"own0.jpg and {dataset.splits['train'][0]['name']}; " in told[0]


@pytest.mark.parametrize(("made", "learned"), [("", 3), ("prune.json", 40)])
def test_only_what_a_run_has_learned_from_is_counted(made, learned, finished, cache, tmp_path):
    """Of 40 images for training; a pruned net's parent may have learned from the others too."""
    run, where = tmp_path / "run", tmp_path / "mine"
    shutil.copytree(finished, run)
    settings = small("cnn_light", cache, **{"eval.path": str(where), "train.images": 3})
    saved = read(run, "config.json")
    saved["config"]["train"]["images"] = 3
    (run / "config.json").write_text(json.dumps(saved))
    if made:
        (run / made).write_text(json.dumps(report_runs.PRUNED))
    dataset = data.load("synthetic", str(cache), seed=0, synthetic_per_class=10, keep_decoded=False)
    files = data_files.pictures(2, FIVE)
    for number, record in enumerate(dataset.splits["train"]):
        files[f"{dataset.classes[record['label']]}/own{number}.jpg"] = record["image"]
    data_files.write_folder(where, files)
    run_stages(settings, str(run), ["evaluate"])
    assert read(run, "evaluation.json")["in_training"] == learned


def test_what_weights_learned_from_that_were_taken_as_they_are_is_not_known(
    finished, cache, tmp_path
):
    where = data_files.write_folder(tmp_path / "mine", data_files.pictures(2, FIVE))
    run, named = tmp_path / "run", {"eval.path": str(where), "model.weights": str(finished)}
    run_stages(small("cnn_light", cache, **named), str(run), ["evaluate"])
    assert "in_training" not in read(run, "evaluation.json")
    run_stages(small("cnn_light", cache, **named), str(run), ["train", "evaluate"])
    assert read(run, "evaluation.json")["in_training"] == 0


def test_where_a_run_s_own_images_are_gone_it_is_not_known_what_it_learned_from(
    finished, cache, tmp_path, monkeypatch
):
    monkeypatch.delenv("RICE_IMAGE_DATASET", raising=False)
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    saved = read(run, "config.json")
    saved["data"] |= {"name": "rice.zip", "fingerprint": "0123"}
    (run / "config.json").write_text(json.dumps(saved))
    where = data_files.write_folder(tmp_path / "mine", data_files.pictures(2, FIVE))
    run_stages(small("cnn_light", cache, **{"eval.path": str(where)}), str(run), ["evaluate"])
    assert "in_training" not in read(run, "evaluation.json")


@pytest.mark.parametrize("classes", [3, 7])
@pytest.mark.one_in(2)
def test_images_that_are_not_the_run_s_own_leave_its_net_as_it_is(
    classes, finished, cache, tmp_path
):
    """Those given beside a folder to be evaluated: they are only asked what the run learned of."""
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    where = data_files.write_folder(tmp_path / "mine", data_files.pictures(2, FIVE))
    names = [f"class {number}" for number in range(classes)]
    others = data_files.write_folder(tmp_path / "others", data_files.pictures(10, names))
    paths = {"eval.path": str(where), "data.path": str(others)}
    run_stages(small("cnn_light", cache, **paths), str(run), ["evaluate", "profile"])
    assert "in_training" not in read(run, "evaluation.json")
    assert read(run, "profile.json")["totals"] == read(finished, "profile.json")["totals"]
