"""Weights that stages begin from, and those that nothing throws away."""

import json
import shutil
import sys
import unittest.mock

import data_files
import jax
import numpy as np
import pytest
from small_run import read, small

from rice_jax import first_run, stages, train
from rice_jax.errors import UserError
from rice_jax.run import Run
from rice_jax.stages import run_stages

pytestmark = pytest.mark.usefixtures("drawn_small")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def finished(cache, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "cnn_light"
    run_stages(small("cnn_light", cache), str(workdir), ["train", "evaluate"])
    return workdir


def test_weights_are_evaluated_without_training(finished, cache, tmp_path):
    workdir = tmp_path / "run"
    settings = small("cnn_light", cache, **{"model.weights": str(finished)})
    run_stages(settings, str(workdir), ["evaluate", "profile", "inspect"])
    assert not (workdir / "history.csv").exists()
    ours, theirs = (read(run, "evaluation.json") for run in (workdir, finished))
    for kind in ("clean", "augmented"):
        assert ours[kind]["confusion_matrix"] == theirs[kind]["confusion_matrix"]
    second_line = (workdir / "report.md").read_text().splitlines()[1]
    assert f"`{finished}`" in second_line
    assert "as they are" in second_line
    about = read(workdir, "summary.json")["weights"]
    assert (about["source"], about["images"]) == (str(finished), 40)
    saved = read(workdir, "config.json")
    saved["config"]["train"]["images"] = 3
    (workdir / "config.json").write_text(json.dumps(saved))
    named = small("cnn_light", cache, **{"model.weights": str(workdir)})
    assert train.about(named).images == 3, "it learned from some"
    # A run as any other: its net is its own from now on.
    jax.tree.map(
        np.testing.assert_array_equal, *(train.load(Run(run)).params for run in (workdir, finished))
    )


def test_how_kernels_are_drawn_is_refused_where_every_layer_is_given(finished, cache, tmp_path):
    fields = {"model.weights": str(finished), "train.initializer": "he", "train.epochs": 1}
    run = tmp_path / "run"
    with pytest.raises(UserError, match=r"train.initializer changes nothing: .* has every layer"):
        run_stages(small("cnn_light", cache, **fields), str(run), ["train"], ["train.initializer"])
    assert not (run / "config.json").exists()
    folder = data_files.write_folder(tmp_path / "two", data_files.pictures(10, ("a", "b")))
    fields |= {
        "data.path": str(folder),
        "train.frozen": ("conv1", "conv2", "dense"),
    }  # the head is drawn
    run_stages(small("cnn_light", cache, **fields), str(run), ["train"], ["train.initializer"])


@pytest.mark.parametrize("classes", [data_files.CLASSES, tuple("abcde")])
def test_a_head_that_learns_other_classes_is_told(classes, finished, cache, tmp_path, capsys):
    folder = data_files.write_folder(tmp_path / "images", data_files.pictures(10, classes))
    fields = {"model.weights": str(finished), "data.path": str(folder), "train.epochs": 1}
    run_stages(small("cnn_light", cache, **fields), str(tmp_path / "run"), ["train"])
    warned = [line for line in capsys.readouterr().err.splitlines() if "WARNING" in line]
    other = (
        f"WARNING: {finished} tells {', '.join(data_files.CLASSES)} apart: from these its head "
        "learns to tell a, b, c, d, e"
    )
    assert warned == ([] if classes == data_files.CLASSES else [other])


@pytest.mark.parametrize("told", [True, False])
def test_weights_of_other_classes_are_not_evaluated(told, finished, cache, tmp_path):
    """The checkpoint knows them too, where config.json does not tell."""
    if not told:
        finished = shutil.copytree(finished, tmp_path / "untold")
        content = read(finished, "config.json") | {"data": None}
        (finished / "config.json").write_text(json.dumps(content))
    folder = data_files.write_folder(tmp_path / "rice", data_files.pictures(10, tuple("abcde")))
    fields = {"model.weights": str(finished), "data.path": str(folder)}
    with pytest.raises(UserError, match=r"is a net for Arborio, .*; the images are of a, b"):
        run_stages(small("cnn_light", cache, **fields), str(tmp_path / "run"), ["evaluate"])
    assert not (tmp_path / "run").exists()


def test_what_a_run_did_otherwise_is_told(finished, cache):
    settings = small("cnn_light", cache, **{"model.weights": str(finished)})
    assert train.used_otherwise(settings) == []
    settings.model.strides = 1
    assert train.used_otherwise(settings) == ["strides=2 (here 1)"]


@pytest.mark.parametrize("weights", ["", "random"])
def test_nothing_trained_is_not_evaluated(weights, cache, tmp_path):
    settings = small("cnn_light", cache, **{"model.weights": weights})
    with pytest.raises(UserError):
        run_stages(settings, str(tmp_path / "run"), ["evaluate"])
    run_stages(settings, str(tmp_path / "run"), ["profile"])
    with pytest.raises(UserError, match=r"has no trained net: rice-jax train trains it"):
        run_stages(settings, str(tmp_path / "run"), ["evaluate"])


def test_vgg16_without_weights_says_where_they_are_to_be_had(cache, tmp_path):
    with pytest.raises(UserError, match="kernels_notop"):
        run_stages(small("vgg16", cache), str(tmp_path / "run"), ["train"])


def test_a_run_begins_anew_where_that_is_asked_for(finished, cache, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    for checkpoint in (run / "checkpoints").iterdir():
        shutil.rmtree(checkpoint / "state")  # none is whole: training does not begin by itself
    others = ("profile.json", "dead_filters.json", "feature_maps.json")  # of the other stages
    others += ("dead_filters.png", "flops.png", "roofline.png")
    for name in others:
        (run / name).write_text("{}")
    of_the_old = {"evaluation.json", "confusion_matrix_clean.png", *others}
    assert of_the_old <= {path.name for path in run.iterdir()}
    other = small("cnn_light", cache, **{"seed": 5, "train.epochs": 1})
    with pytest.raises(UserError, match=r"holds a run with seed=0.*or --restart"):
        run_stages(other, str(run), ["train"], restart=False)
    for asked, offered in ((["train"], None), (["evaluate"], False)):  # where it is not to be had
        with pytest.raises(UserError, match=r"not 5: give the same, or another folder$"):
            run_stages(other, str(run), asked, restart=offered)
    with pytest.raises(UserError, match="have train among the --stages"):
        run_stages(other, str(run), ["evaluate"], restart=True)
    assert (run / "evaluation.json").exists()
    run_stages(other, str(run), ["train"], restart=True)
    assert read(run, "config.json")["config"]["seed"] == 5
    assert len((run / "history.csv").read_text().splitlines()) == 2
    assert of_the_old.isdisjoint(path.name for path in run.iterdir())
    assert train.load(Run(run)).epoch == 1


SAID = "training begins anew in "
"""Where a run that was stopped goes on without --restart."""


@pytest.mark.parametrize("killed", ["identity.record", "stages.train_stage.examples"])
@pytest.mark.one_in(2)
def test_a_run_that_was_killed_as_it_began_anew_begins_anew(
    killed, finished, cache, tmp_path, monkeypatch, capsys
):
    """Between what goes and what comes its folder is a run's all the same."""
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    other = {"seed": 5, "train.epochs": 1}

    def begin():
        run_stages(small("cnn_light", cache, **other), str(run), ["train"], restart=True)

    with monkeypatch.context() as patch:
        patch.setattr(f"rice_jax.{killed}", unittest.mock.Mock(side_effect=SystemExit))
        with pytest.raises(SystemExit):
            begin()
    now = read(run, "config.json")["config"]["seed"] == 5
    assert (f"{SAID}{run}" in capsys.readouterr().out) == now
    for name in ("history.csv", "curves.png", "summary.json", "report.md"):
        assert (finished / name).exists()
        assert not (run / name).exists()
    begin()
    assert read(run, "config.json")["config"]["seed"] == 5
    assert train.load(Run(run)).epoch == 1


MISTAKES = {
    "a layer": ({"train.frozen": ("conv9",)}, "conv9"),
    "a size": ({"data.image_size": 3}, "image_size=3 is too small for this net"),
    "a teacher": ({"train.teacher": "RUN"}, "is the run itself"),
    "a teacher by a link": ({"train.teacher": "LINK"}, "is the run itself"),
    "no teacher": ({"train.teacher": "RUN/checkpoints"}, "config.json is missing"),
    "event files": ({"train.tensorboard": True}, "needs a package that is not installed"),
    "weights": ({"model.weights": "RUN"}, "whose weights --restart removes"),
    "weights by a link": ({"model.weights": "LINK/"}, "whose weights --restart removes"),
    "a checkpoint": ({"model.weights": "RUN/checkpoints/8/state"}, "--restart removes"),
    "no weights": ({"model.weights": "RUN/history.csv"}, "history.csv"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_another_mistake_stops_is_not_begun_anew(
    mistake, finished, cache, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    (tmp_path / "link").symlink_to(run)
    fields, said = MISTAKES[mistake]
    places = {"RUN": str(run), "LINK": str(tmp_path / "link")}
    for name, place in places.items():
        fields = {f: v.replace(name, place) if isinstance(v, str) else v for f, v in fields.items()}
    kept = ("checkpoints/**/*", "*.json", "*.csv", "*.png")

    def left():
        paths = [path for pattern in kept for path in run.glob(pattern) if path.is_file()]
        return {path: path.read_bytes() for path in paths}

    before = left()
    with pytest.raises(UserError, match=said):
        run_stages(small("cnn_light", cache, **fields), str(run), ["train"], restart=True)
    assert left() == before


@pytest.mark.parametrize("at", ["stages.job.load_images", "train.check", "train.given_params"])
def test_what_is_stopped_before_it_is_begun_anew_is_as_it_was(
    at, finished, cache, tmp_path, monkeypatch, capsys
):
    """Images may be prepared for minutes; nor is the older run's page said to be under way."""
    run, pages = tmp_path / "run", []
    shutil.copytree(finished, run)

    def stopped(*_, **__):
        pages.append((run / "report.html").read_text())
        raise KeyboardInterrupt

    monkeypatch.setattr(f"rice_jax.{at}", stopped)
    with pytest.raises(KeyboardInterrupt):
        run_stages(small("cnn_light", cache), str(run), ["train"], restart=True)
    assert SAID not in capsys.readouterr().out
    assert pages == [(finished / "report.html").read_text()]
    assert (run / "history.csv").read_text() == (finished / "history.csv").read_text()


@pytest.mark.parametrize("made", ["prune.json", "lighten.json", "step.json", ""])
@pytest.mark.one_in(3)  # of what made them, and of none
def test_weights_that_are_nowhere_else_are_not_thrown_away(made, finished, cache, tmp_path):
    run, settings = Run(tmp_path / "run"), small("cnn_light", cache)
    whole, dataset = train.load(Run(finished)), stages.Job(Run(finished), settings).dataset
    train.begin(settings, run, dataset, whole.params)
    content = (finished / "config.json").read_text()
    (tmp_path / "run" / "config.json").write_text(content)
    if made:
        (tmp_path / "run" / made).write_text("{}")
    with pytest.raises(UserError, match="its checkpoints alone hold"):
        run_stages(settings, str(run), ["train"], restart=True)
    with pytest.raises(UserError, match=r"not 5: give the same, or another folder$"):  # not that
        run_stages(small("cnn_light", cache, seed=5), str(run), ["train"], restart=False)
    jax.tree.map(np.testing.assert_array_equal, train.load(run).params, whole.params)


@pytest.mark.parametrize("stage", ["train", "evaluate", "inspect"])
@pytest.mark.parametrize("made", ["prune.json", "lighten.json", "step.json"])
def test_weights_that_are_gone_are_not_made_up_for_by_random_ones(
    made, stage, finished, cache, tmp_path
):
    run, settings = Run(tmp_path / "run"), small("cnn_light", cache)
    run.create()
    (tmp_path / "run" / "config.json").write_text((finished / "config.json").read_text())
    (tmp_path / "run" / made).write_text("{}")
    with pytest.raises(UserError, match="which alone held its weights, are gone: make it of that"):
        run_stages(settings, str(run), [stage])
    assert not train.has_checkpoints(run)


@pytest.mark.parametrize("left", [True, False])
def test_what_is_left_of_another_net_is_not_called_random(
    left, finished, cache, tmp_path, monkeypatch, capsys
):
    """`prune` has what remains trained: its weights are in the run's checkpoints alone."""
    monkeypatch.setattr(first_run, "settle", lambda *_: "from random weights")
    run, settings = Run(tmp_path / "run"), small("cnn_light", cache, **{"train.epochs": 1})
    if left:
        dataset = stages.Job(Run(finished), settings).dataset
        train.begin(settings, run, dataset, train.load(Run(finished)).params)
        shutil.copy(finished / "config.json", tmp_path / "run")
    run_stages(settings, str(run), ["train"])
    assert ("from random weights" in capsys.readouterr().out) != left
