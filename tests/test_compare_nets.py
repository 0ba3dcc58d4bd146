"""Which runs of a comparison are seeds of one net, and what nets are called."""

import dataclasses
import math

import pytest
from compared_runs import read, run_of

from rice_jax import config as configuration
from rice_jax.records import PruneRequest
from rice_jax.report.comparison import choice, tables


def test_seeds_of_a_net_are_one_row_with_mean_and_sample_deviation(tmp_path):
    runs = [
        run_of(tmp_path / str(seed), "final", accuracy, 100, seed=seed)
        for seed, accuracy in enumerate((900, 920, 970))
    ]
    (net,) = read(*runs)
    spread = net.spread("augmented_accuracy")
    assert spread is not None
    assert spread.mean == pytest.approx(0.93)
    assert spread.deviation == pytest.approx(math.sqrt((0.03**2 + 0.01**2 + 0.04**2) / 2))
    assert tables.cell(net, "augmented_accuracy") == "93.00 % ± 3.61 %"
    assert tables.cell(net, "params") == "1,000"
    (row,) = tables.rows([net], choice.pareto_front([net]))
    assert (row["runs"], row["seeds"]) == (3, "0 1 2")


@pytest.mark.parametrize(
    "changed", [{"train": {"augment": True}}, {"fingerprint": "beef"}, {"prune": {"request": {}}}]
)
def test_runs_of_another_recipe_or_other_images_are_another_net(tmp_path, changed):
    found = read(
        run_of(tmp_path / "plain", "cnn", 900, 100),
        run_of(tmp_path / "other", "cnn", 910, 100, seed=1, **changed),
    )
    labels = {net.label for net in found}
    assert labels == (
        {"cnn", "cnn, pruned"} if "prune" in changed else {"cnn (plain)", "cnn (other)"}
    )


QUICK, TAUGHT = {"schedule": "quick"}, {"teacher": "runs/final"}
LEARNING = {
    "event files": ({}, {"tensorboard": True}, 1),
    "saved more often": ({}, {"save_seconds": 7.0}, 1),
    "told to stop": ({}, {"on_collapse": "stop"}, 1),
    "quick's epochs, by the study": ({}, {"quick": {"epochs": [3], "shrink": [1]}}, 1),
    "quick's rate, by no schedule of an older version": ({}, {"quick": {"peak_rate": 1.0}}, 1),
    "quick's epochs, by quick": (QUICK, {"quick": {"epochs": [3], "shrink": [1]}}, 2),
    "the study's epochs, by quick": (QUICK, {"epochs": 7}, 1),
    "the study's patience, by quick": (QUICK, {"plateau_patience": 7, "stop_patience": 9}, 1),
    "the study's epochs": ({}, {"epochs": 7}, 2),
    "the study's patience": ({}, {"stop_patience": 9}, 2),
    "a teacher's heat, without one": ({}, {"distill": {"temperature": 2.0}}, 1),
    "a teacher's heat": (TAUGHT, {"distill": {"temperature": 2.0}}, 2),
    "another teacher": (TAUGHT, {"teacher": "runs/vgg16"}, 2),
    "augmented": ({}, {"augment": True}, 2),
    "kernels as an older version drew them": ({}, {"initializer": "own"}, 1),
    "kernels as the study's schedule draws them": ({}, {"initializer": "auto"}, 1),
    "kernels by He's rule": ({}, {"initializer": "he"}, 2),
    "kernels as quick draws them": (QUICK, {"initializer": "auto"}, 2),
}


@pytest.mark.parametrize("case", LEARNING)
def test_a_setting_without_a_part_in_the_learning_makes_no_other_net(tmp_path, case):
    both, changed, nets = LEARNING[case]
    usual = {"epochs": 50, "stop_patience": 5, "quick": {"epochs": [4, 4], "shrink": [2, 1]}}
    usual |= {"distill": {"temperature": 4.0}, "tensorboard": False, "save_seconds": 120.0} | both
    found = read(
        run_of(tmp_path / "a", "cnn", 900, 100, train=usual),
        run_of(tmp_path / "b", "cnn", 910, 100, seed=1, train=usual | changed),
    )
    assert len(found) == nets


MISSING = {
    **{"model.grid": 56, "model.stem_stride": 1, "model.dropout": 0.5, "data.image_size": 64},
    **{"train.images": 7, "train.validation_images": 7, "train.validation_augmented": True},
    **{"train.frozen": ["conv1"], "train.dtype": "bfloat16", "train.initializer": "he"},
    **{"train.plateau_factor": 0.5, "train.batch_size": 7, "train.schedule": "quick"},
}


@pytest.mark.parametrize("field", MISSING)
@pytest.mark.parametrize("usual", [True, False], ids=["its default", "another"])
def test_what_an_older_version_did_not_tell_is_as_the_default_of_today(tmp_path, field, usual):
    section, _, name = field.partition(".")
    default = configuration.default("cnn").to_dict()[section][name]
    runs = [run_of(tmp_path / f"{seed}", "cnn", 900, 100, seed=seed) for seed in range(2)]
    for run, told in zip(runs, ({}, {name: default if usual else MISSING[field]}), strict=True):
        content = run.read_json("config.json")
        content["config"][section].pop(name, None)
        content["config"][section].update(told)
        run.write_json("config.json", content)
    assert len(read(*runs)) == (1 if usual else 2)


def test_a_net_that_is_not_known_here_is_compared_by_what_its_runs_tell(tmp_path):
    runs = [run_of(tmp_path / f"{seed}", "mine", 900, 100, seed=seed) for seed in range(2)]
    assert len(read(*runs)) == 1
    content = runs[1].read_json("config.json")
    content["config"]["model"]["width"] = 7
    runs[1].write_json("config.json", content)
    assert len(read(*runs)) == 2


@pytest.mark.parametrize(("teacher", "nets"), [("own", 1), ("", 1), ("another", 2)])
def test_prunings_that_their_whole_nets_taught_are_seeds_of_one_net(tmp_path, teacher, nets):
    found = read(
        *(
            run_of(
                tmp_path / f"{seed}",
                "cnn",
                900,
                100,
                seed=seed,
                prune={"request": {"parent": f"runs/{seed}"}},
                train={"teacher": f"runs/{seed}" if teacher == "own" else teacher and f"{seed}"},
            )
            for seed in range(2)
        )
    )
    assert len(found) == nets


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(PruneRequest)])
def test_prunings_that_were_asked_for_otherwise_are_no_seeds_of_one_net(tmp_path, field):
    """Also where both left the same widths; from where a run was pruned says nothing."""
    others = {
        **{"drop": "dead", "budgets": {"study": 3}, "only": ["conv1"], "skip": ["conv1"]},
        **{"drop_layers": ["conv2"], "kinds": ["clean"], "filters": {"conv1": [4]}},
    }
    default = getattr(PruneRequest(), field)
    other = others.get(field, "another" if isinstance(default, str) else 9)
    found = read(
        run_of(tmp_path / "a", "cnn", 900, 100, prune={"request": {}}),
        run_of(tmp_path / "b", "cnn", 800, 100, prune={"request": {field: other}}, seed=1),
    )
    assert [len(net.entries) for net in found] == ([2] if field == "parent" else [1, 1])


def test_nets_in_folders_of_one_name_are_told_apart_by_path(tmp_path):
    folders = tmp_path / "a" / "run", tmp_path / "b" / "run"
    found = read(
        run_of(folders[0], "cnn", 900, 100),
        run_of(folders[1], "cnn", 910, 100, train={"augment": True}),
    )
    assert {net.label for net in found} == {f"cnn ({folder})" for folder in folders}
