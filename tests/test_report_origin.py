"""The second line of the page: where the weights are from, what the sample is, how to go on."""

import pytest
import report_runs

from rice_jax import nets
from rice_jax.profile import study
from rice_jax.report import reported
from rice_jax.report.page.provenance import origin
from rice_jax.report.record import load

ZOO = {
    "source": "zoo:final",
    "epochs": 7,
    "recipe": "study",
    "data": "Rice_Image_Dataset",
    "images": 60_000,
}


def told(tmp_path, weights=None, path="sample", lacking="", **parts):
    run = report_runs.make_run(tmp_path / "run", **parts)
    content = run.read_json("config.json")
    content["config"]["data"]["path"] = path
    content["data"]["images"].pop(lacking, None)
    run.write_json("config.json", content | {"weights": weights})
    return origin(load(run))


@pytest.mark.parametrize("name", ["final", "mine"])
def test_commands_of_a_net_of_ones_own_name_its_file(tmp_path, name):
    run = report_runs.make_run(tmp_path, name)
    text = report_runs.text_of(run)
    commands = [line for line in text.splitlines() if "rice-jax" in line and "--workdir=" in line]
    assert len(commands) >= 3
    assert {"--config=YOUR_NET.py" in line for line in commands} == {name == "mine"}


@pytest.mark.parametrize(
    ("within", "told", "out"),
    [
        ("run", ".", "--out=./../run_pruned"),
        ("run/checkpoints", "..", "--out=../../run_pruned"),
        (".", "run", "--out=run_pruned"),
        (".", "run/", "--out=run_pruned"),
    ],
)
def test_a_lighter_run_is_put_beside_the_run_however_that_is_told(
    within, told, out, tmp_path, monkeypatch
):
    run = report_runs.make_run(tmp_path / "run")
    (tmp_path / "run" / "checkpoints").mkdir(exist_ok=True)
    monkeypatch.chdir(tmp_path / within)
    lines = report_runs.text_of(type(run)(told)).splitlines()
    assert any("rice-jax prune" in line and f" {out} " in line for line in lines)


def test_a_first_run_says_where_it_comes_from_and_how_to_go_on(tmp_path):
    line = told(tmp_path, ZOO)
    assert "the zoo's `final` (recipe study, epoch 7, 60,000 images" in line
    assert "trained on here" in line
    assert "300 photographs" in line
    assert "240 for training, 30 for validation, 30 for the test" in line
    images = "--config.data.path=rice-image-dataset.zip"
    assert f"--config=final {images} --workdir=runs/final_all" in line  # runs/final is taken
    assert "\n" not in line


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_of_a_sample_without_one_of_its_splits_no_numbers_are_told(tmp_path, split):
    assert "photographs" not in told(tmp_path, lacking=split)


def test_weights_that_no_training_changed_are_said_to_be_so(tmp_path):
    assert "as they are" in told(tmp_path, ZOO, history=None)


def test_a_file_of_weights_is_named(tmp_path):
    assert told(tmp_path, {"source": "my/vgg16.h5"}, path="rice.zip") == (
        "The weights are those of `my/vgg16.h5`, trained on here."
    )


def test_random_weights_are_told_of_on_the_sample_alone(tmp_path):
    assert told(tmp_path).startswith("The net started from random weights. The images are")
    assert told(tmp_path, path="rice.zip") == ""


HES = "The net started from random weights, its kernels drawn by He's rule."


@pytest.mark.parametrize(
    ("schedule", "how", "by_he"),
    [
        ("study", "own", False),
        ("study", "auto", False),
        ("study", "he", True),
        ("quick", "own", False),
        ("quick", "auto", True),
        ("quick", None, False),  # of a version that drew all kernels by Glorot's rule
    ],
)
@pytest.mark.parametrize("path", ["sample", "rice.zip"])
def test_how_random_kernels_were_drawn_is_told(tmp_path, schedule, how, by_he, path):
    run = report_runs.make_run(tmp_path / "run")
    content = run.read_json("config.json")
    content["config"]["data"]["path"] = path
    recipe = content["config"]["train"]
    recipe["schedule"] = schedule
    recipe.pop("initializer", None)
    if how:
        recipe["initializer"] = how
    run.write_json("config.json", content | {"weights": None})
    line = origin(load(run))
    assert (HES in line) == by_he
    assert ("The net started from random weights. " in line) == (path == "sample" and not by_he)


@pytest.mark.parametrize(
    ("name", "side", "params", "told"),
    [
        ("googlenet", 56, 5_978_677, True),
        ("googlenet", 224, 5_978_677, False),  # the study's stand in the table
        ("googlenet", 56, 1_000, False),  # narrower: another net
        ("micro", 56, 9_457, False),  # none of the study's
    ],
)
def test_why_the_studys_figures_are_left_out_is_told(name, side, params, told):
    sentence = reported.of_other_images({"name": name}, params, side)
    assert ("--config.data.image_size=224" in sentence) == told


@pytest.mark.parametrize(
    ("name", "field"),
    [
        (name, field)
        for name in study.REPORTED
        for field in ("grid", "strides", "stem_stride")
        if field in nets.NETS[name].widths
    ],
)
def test_of_another_net_with_as_many_parameters_nothing_is_told(name, field):
    own = {"name": name, **nets.NETS[name].widths}
    params = study.REPORTED[name]["params"]
    assert "--config.data.image_size=224" in reported.of_other_images(own, params, 112)
    assert reported.of_other_images(own | {field: 3}, params, 112) == ""


@pytest.mark.parametrize("weights", [None, ZOO])
@pytest.mark.parametrize("history", [None, report_runs.HISTORY])
def test_of_a_pruned_net_its_parents_weights_are_told(tmp_path, weights, history):
    """It started neither from random weights nor from the zoo's as they are."""
    line = told(tmp_path, weights, history=history, prune=report_runs.PRUNED)
    assert line.startswith("The weights are what is left of those of `runs/final`")
    assert ("trained on here" in line) == (history is not None)
    assert "random" not in line
    assert "as they are" not in line
    assert "75,000" not in line  # the net of that name would be trained, not what is left of it


def test_what_trains_a_net_of_ones_own_on_all_images_names_its_file(tmp_path):
    line = told(tmp_path, name="mine")
    assert "--config=YOUR_NET.py --config.data.path=" in line
    assert "--workdir=runs/mine_all" in line


@pytest.mark.parametrize(
    ("source", "config"),
    [
        ("zoo:final", "final"),
        ("zoo:final_grid56", "zoo:final_grid56"),
        ("zoo:vgg_custom_light", "final"),  # another net's, for layers that do not learn
        ("zoo:no_longer_there", "final"),
        ("runs/final_grid56", "final"),
    ],
)
def test_what_trains_a_net_of_other_widths_on_all_images_names_the_zoo(tmp_path, source, config):
    line = told(tmp_path, ZOO | {"source": source})
    assert f"--config={config} --config.data.path=rice-image-dataset.zip" in line
