"""What a report says is so in every state of a run: of one image, of no filter, of no training."""

import flax.linen as nn
import numpy as np
import pytest
from report_runs import (
    DEAD,
    HISTORY,
    PRUNED,
    layer,
    make_run,
    profile,
    result,
    scored,
    table_rows,
    text_of,
)

from rice_jax import nets, own_net
from rice_jax.config import to_json
from rice_jax.report import record
from rice_jax.report.page.commands import stage_command

ONE = result(((1, 0), (0, 0)), ("a", "b"))


def test_of_one_image_the_words_are_of_one(tmp_path):
    evaluation = {"clean": ONE, "augmented": ONE, "path": "test split"}
    text = text_of(make_run(tmp_path, evaluation=evaluation, dead_filters=DEAD | {"images": 1}))
    assert "Of 1 image 100.00 % is right, at a mean" in text
    assert "on every pixel of the one clean image and 1 on the augmented one;" in text
    usual = text_of(make_run(tmp_path / "usual"))
    assert "Of 30 images 83.33 % are right, at a mean" in usual
    assert "on every pixel of all 30 clean images and 1 on the augmented ones;" in usual


@pytest.mark.parametrize(
    ("unseen", "said"),
    [
        ([], "The net has no convolution, and so no filters."),
        (["body"], "**Not looked at**, since they run inside a loop: the filters of `body`."),
    ],
)
def test_of_a_net_without_filters_none_is_said_to_be_dead(tmp_path, unseen, said):
    found = {"layers": [], "images": 30, "unseen": unseen}
    text = text_of(make_run(tmp_path, dead_filters=found))
    assert f"## Dead filters\n\n{said}\n\n##" in text


@pytest.mark.parametrize(
    ("bounds", "said"),
    [
        ("mm", " memory bounds all layers,"),
        ("cc", " arithmetic bounds all layers,"),
        ("mc", " memory bounds 1 of 2 layers and arithmetic the other,"),
        ("mcc", " memory bounds 1 of 3 layers and arithmetic the others,"),
        ("", None),
    ],
)
def test_what_bounds_how_many_layers_is_said(tmp_path, bounds, said):
    flops = {"m": 10, "c": 5000}
    rows = [layer(f"conv{place}", flops[each], 4) for place, each in enumerate(bounds)]
    text = text_of(make_run(tmp_path, profile=profile(layers=rows)))
    assert (f"100 GB/s{said}" in text) if said else "On a device of" not in text


@pytest.mark.parametrize("lacks", [False, True])
def test_a_share_of_the_work_is_of_what_is_counted(tmp_path, lacks):
    lacking = [{"layer": "odd", "operation": "sort"}] if lacks else []
    text = text_of(make_run(tmp_path, profile=profile(uncounted=lacking)))
    assert ("of the work that is counted (FLOPs" in text) == lacks
    assert ("of the work (FLOPs" in text) != lacks
    nothing = [layer("conv1", -1, 4)]  # its FLOPs in the study's convention are 0
    assert "alone does" not in text_of(
        make_run(tmp_path / "nothing", profile=profile(layers=nothing))
    )


@pytest.mark.parametrize("trained", [False, True])
def test_logits_are_those_of_before_a_training_where_there_was_one(tmp_path, trained):
    run = make_run(tmp_path, prune=PRUNED, history=HISTORY if trained else None)
    assert ("no logit of the net before training went on differs" in text_of(run)) == trained
    assert ("no logit of the net differs" in text_of(run)) != trained


RECIPE = {
    "epochs": 50,
    "learning_rate": 0.001,
    "augment": False,
    "quick": {"epochs": [4, 4], "peak_rate": 0.004},
    "distill": {"weight": 0.5},
}
BOTH, STUDY = {"train.augment"}, {"train.epochs", "train.learning_rate"}
QUICK, TAUGHT = {"train.quick.epochs", "train.quick.peak_rate"}, {"train.distill.weight"}


@pytest.mark.parametrize(
    ("told", "fields"),
    [
        ({}, BOTH | STUDY),  # of a version that had the one schedule
        ({"schedule": "study"}, BOTH | STUDY),
        ({"schedule": "quick"}, BOTH | QUICK),
        ({"schedule": "quick", "teacher": "runs/whole"}, BOTH | QUICK | TAUGHT),
    ],
)
def test_of_a_recipe_those_fields_are_told_that_had_a_part(tmp_path, told, fields):
    rows = table_rows(text_of(make_run(tmp_path, train=RECIPE | told)))
    found = {row[0] for row in rows if row[0].startswith("train.")}
    assert found - {"train.schedule", "train.teacher"} == fields


NOTHING = {"history": None, "evaluation": None, "profile": None, "dead_filters": None}


@pytest.mark.parametrize(
    ("weights", "parts", "trains"),
    [
        ("", {}, True),
        ("random", {"profile": profile()}, True),
        ("zoo:final", {}, False),  # they are taken as they are
        ("", {"history": HISTORY}, False),
        ("", {"prune": PRUNED}, False),
    ],
)
def test_a_net_that_is_not_there_yet_is_trained_before_more_is_asked_of_it(
    tmp_path, weights, parts, trains
):
    run = make_run(tmp_path, **NOTHING | parts)
    content = run.read_json("config.json")
    content["config"]["model"]["weights"] = weights
    run.write_json("config.json", content)
    text = text_of(run)
    for stage in ("evaluate", "inspect"):
        asked = f"--stages={'train,' if trains else ''}{stage}`"
        assert f"rice-jax train --workdir={tmp_path} {asked}" in text
    assert ("rice-jax predict" in text) == any(parts.get(each) for each in ("history", "prune"))


class Mine(nn.Module):
    widths: tuple = ((2, 2), (3,))
    classes: int = 5

    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dense(self.classes)(x.mean((1, 2)))


def test_commands_of_a_net_of_ones_own_have_what_was_set_over_its_file(tmp_path, monkeypatch):
    """`train` begins with the file, and would refuse the run as another's."""
    monkeypatch.setattr(nets, "_OWN", {})
    config = own_net.configuration(Mine, recipe={"train.schedule": "quick"})
    fields = {
        "data.image_size": 64,
        "data.path": "my images",
        "model.classes": 3,
        "model.widths": ((4,), (8, 8)),
        "train.augment": True,
        "train.quick.epochs": (1, 2),
        "train.frozen": ("conv1", "conv2"),
    }
    config.update_from_flattened_dict(fields)
    run = make_run(tmp_path, config.model.name)
    content = run.read_json("config.json")
    run.write_json("config.json", content | {"config": to_json(config)})
    command = stage_command(run, record.load(run), "evaluate")
    given = {
        "--config.data.image_size=64",
        "'--config.data.path=my images'",
        "'--config.model.widths=[[4], [8, 8]]'",
        "--config.train.augment=true",
        "--config.train.quick.epochs=1,2",
        "--config.train.frozen=conv1,conv2",
    }
    assert [each for each in given if f" {each}" not in command] == []
    assert command.count("--config.") == len(given)
    monkeypatch.setattr(nets, "_OWN", {})  # as where runs are compared, without its file
    command = stage_command(run, record.load(run), "evaluate")
    given = {each for each in given if "model." not in each} | {"--config.train.schedule=quick"}
    assert [each for each in given if f" {each}" not in command] == []
    assert command.count("--config.") == len(given)


@pytest.mark.parametrize(("absent", "said"), [(0, "mean of classes"), (1, "mean of classes that")])
def test_of_a_class_that_does_not_occur_nothing_is_told_but_that(tmp_path, absent, said):
    """As of a folder that has some of the classes: its F1 is 0 in the file alone."""
    names, matrix = ("a", "b", "c")[: 2 + absent], [[3, 1, 0], [0, 0, 0], [0, 0, 0]]
    half = result([row[: len(names)] for row in matrix[: len(names)]], names)
    evaluation = {"clean": half, "augmented": half, "path": "my_field"}
    rows = table_rows(text_of(make_run(tmp_path, classes=names, evaluation=evaluation)))
    by_class = {row[0]: row[1:] for row in rows if row[0] in names}
    assert by_class["b"][0] == "0.9000"  # no image's, and an answer
    assert by_class.get("c", []) == ["—", "—", "—", "0"] * absent
    assert any(row[0].startswith(said) for row in rows)


def test_the_worst_of_many_classes_are_of_those_that_occur(tmp_path):
    names = tuple(f"k{number:02}" for number in range(60))
    matrix = np.diag([0] * 55 + [2] * 5)
    half = result(matrix.tolist(), names)
    evaluation = {"clean": half, "augmented": half, "path": "my_field"}
    text = text_of(make_run(tmp_path, classes=names, evaluation=evaluation))
    rows = [row[0] for row in table_rows(text) if row[0] in names]
    assert rows[:5] == list(names[55:])


@pytest.mark.parametrize(
    ("recipe", "told"),
    [(None, True), ("study", True), ("quick, augmented", False), ("augmented, by hand", False)],
)
def test_weights_that_had_augmented_images_are_not_said_to_have_had_none(tmp_path, recipe, told):
    evaluation = {"clean": scored(990), "augmented": scored(660), "path": "test split"}
    run = make_run(tmp_path, evaluation=evaluation)
    weights = {"source": "zoo:final", "recipe": recipe}
    run.write_json("config.json", run.read_json("config.json") | {"weights": weights})
    assert ("Its training had none of the latter" in text_of(run)) == told
