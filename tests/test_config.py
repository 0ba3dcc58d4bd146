"""Every net has a configuration, and one that went through JSON is the one it was."""

import importlib.util
import json
from pathlib import Path

import pytest

from rice_jax import config, configs, models, nets, train
from rice_jax.errors import UserError
from rice_jax.run import Run
from rice_jax.train import state

FOLDER = Path(__file__).parent.parent / "configs"


def load(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_one_file_for_each_net():
    assert set(configs.names()) == set(models.NETS)
    assert FOLDER.resolve() == configs.FOLDER


@pytest.mark.parametrize("name", models.NETS)
def test_configuration_names_its_net_and_survives_json(name):
    made = load(name).get_config()
    assert made.model.name == name
    assert config.from_json(json.loads(json.dumps(config.to_json(made)))) == made
    fields = {key: made.model[key] for key in made.model if key not in ("name", "weights")}
    assert models.build(name, **fields) == models.build(name)


def test_an_unknown_net_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match="cnn_light"):
        config.default("resnet")


@pytest.mark.parametrize(("before", "now"), [(True, "stop"), (False, "warn")])
def test_an_older_version_s_configuration_keeps_its_meaning(tmp_path, before, now):
    content = config.to_json(config.default("final"))
    for name in ("on_collapse", "schedule", "quick"):
        del content["train"][name]
    content["train"]["stop_on_collapse"] = before
    run = Run(tmp_path)
    run.write_json("config.json", {"config": content})
    train = config.read(run).config["train"]
    assert (train["on_collapse"], train["schedule"]) == (now, "study")
    assert "stop_on_collapse" not in train


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("plateau_factor", 0.0),
        ("plateau_factor", -1.0),
        ("plateau_factor", float("nan")),
        ("plateau_min_delta", float("nan")),
        ("learning_rate", 0.0),
    ],
)
def test_a_recipe_by_which_nothing_learns_is_refused(field, value):
    made = config.default("final")
    made.train[field] = value
    with pytest.raises(UserError, match=rf"config\.train\.{field}={value}: give a number"):
        config.check(made)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, ""),
        ({"of_the_future": 1, "train": {}, "data": None}, ""),
        ({"model": {"name": "one's own", "stages": "many"}}, ""),
        ({"model": {}}, "config.model.name is missing"),
        ({"model": None}, "config.model.name is missing"),
        ({"model": {"name": 5}}, "config.model.name is missing"),
        ({"train": 5}, "config.train has no fields"),
        ({"data": ["x"]}, "config.data has no fields"),
        ({"train": {"quick": "x"}}, "config.train.quick has no fields"),
        ({"train": {"quick": {"epochs": ["x"]}}}, "config.train.quick.epochs is not"),
        ({"train": {"stop_patience": "x"}}, "config.train.stop_patience is not a whole number"),
        ({"seed": -1}, "config.seed is not a whole number"),
    ],
)
def test_what_cannot_be_in_a_configuration_of_any_version_is_named(change, said):
    found = config.mistake(config.to_json(config.default("final")) | change)
    assert found.startswith(said)
    assert bool(found) == bool(said)


OF_THE_STUDY = {
    *("train.epochs", "train.learning_rate", "train.plateau_patience", "train.plateau_factor"),
    *("train.plateau_min_delta", "train.stop_patience"),
}


@pytest.mark.parametrize("schedule", ["study", "quick"])
@pytest.mark.parametrize("teacher", ["", "zoo:micro"])
def test_fields_that_change_nothing_are_told(schedule, teacher):
    made = config.default("final")
    made.train.update(schedule=schedule, teacher=teacher)
    idle = {name for name in config.FIELDS if config.idle(made, [name])}
    others = {name for name in config.FIELDS if name.startswith("train.quick.")}
    distilling = {"train.distill.temperature", "train.distill.weight"}
    wanted = OF_THE_STUDY if schedule == "quick" else others
    assert idle == wanted | (set() if teacher else distilling)
    assert not config.idle(made, ["seed", "train.batch_size", "model.dropout"])


@pytest.mark.parametrize(
    ("shrink", "epochs", "given"),
    [((2, 1), (2,), "2,2"), ((4, 2, 1), (3, 5), "3,5,5"), ((1,), (4, 6), "4")],
)
def test_epochs_that_do_not_fit_the_sizes_are_told_with_what_does(shrink, epochs, given):
    made = config.default("final")
    made.train.quick.update(shrink=shrink, epochs=epochs)
    with pytest.raises(UserError, match=rf"differ in length.*--config.train.quick.epochs={given}$"):
        config.check(made)
    made.train.quick.epochs = tuple(map(int, given.split(",")))
    config.check(made)


@pytest.mark.parametrize("known", [(), ("first", "second")])
def test_a_run_of_an_unknown_net_says_what_its_file_has_to_do(tmp_path, monkeypatch, known):
    """One that was given and makes other nets is not asked for again."""
    monkeypatch.setattr(nets, "_OWN", dict.fromkeys(known, nets.get("final")))
    (tmp_path / "config.json").write_text('{"config": {"model": {"name": "third"}}}')
    with pytest.raises(UserError, match="'third' is none of the package's") as refused:
        config.read(Run(tmp_path))
    asked, makes = "--config=FILE" in str(refused.value), "nor first, second" in str(refused.value)
    assert (asked, makes) == (not known, bool(known))


@pytest.mark.parametrize("name", ["googlenet", "googlenet_light"])
@pytest.mark.parametrize(
    ("widths", "branches"),
    [
        ((0,) * 6, 0),
        ((0, 4, 0, 4, 0, 0), 0),  # two branches begin, none ends
        ((2, 0, 0, 0, 0, 0), 1),
        ((0, 0, 3, 0, 0, 0), 1),
        ((0, 4, 0, 0, 5, 0), 1),
        ((1, 0, 0, 0, 0, 6), 2),
    ],
)
def test_an_inception_has_a_branch(name, widths, branches):
    made = config.default(name)
    made.model.inceptions = (((1,) * 6,), (widths,))
    made.data.image_size = 32
    if not branches:
        with pytest.raises(UserError, match=r"config\.model\.inceptions=.*fifth and sixth not all"):
            config.check(made)
        return
    config.check(made)
    shapes = state.shapes(train.build(made), train.input_shape(made), ()).params
    assert len(shapes["inception4a"]) == branches
