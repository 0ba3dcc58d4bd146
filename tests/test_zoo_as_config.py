"""A net of the zoo as a configuration: --config=zoo:NAME."""

import re
import shlex

import commands
import jax
import numpy as np
import pytest

from rice_jax import config as configuration
from rice_jax import first_run, train, zoo
from rice_jax.commands import named, settings
from rice_jax.errors import UserError
from rice_jax.run import Run
from rice_jax.train.origin import changes


@pytest.mark.parametrize("name", zoo.names())
def test_it_is_the_net_of_the_card_with_its_weights(name, capsys):
    card, found = zoo.card(name), named.load(f"zoo:{name}")
    configuration.check(found)
    assert found.model.weights == f"zoo:{name}"
    assert found.data.image_size == card.image_size
    assert found.train.augment == card.config["train"]["augment"]
    assert train.used_otherwise(found) == []
    params = train.initial_params(found, train.build(found))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == card.params
    usual = configuration.default(card.model["name"])
    for told in ("data.path", "data.cache_dir", "train.teacher", "seed"):
        *section, last = told.split(".")
        ours, theirs = (getattr(c, section[0]) if section else c for c in (found, usual))
        assert ours[last] == theirs[last]


@pytest.mark.parametrize("name", ["final_grid56_long", "vgg_custom_light"])
def test_without_images_it_is_trained_on_a_little(name):
    found = named.load(f"zoo:{name}")
    said = first_run.settle(found)
    assert f"from zoo:{name} weights" in said
    assert train.planned(found.train)[1] == first_run.FINE_TUNING["train.learning_rate"]


def test_its_run_goes_where_its_name_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = commands.run(
        "train",
        "--config=zoo:nano",
        "--stages=evaluate",
        "--config.data.path=synthetic",
        "--config.data.synthetic_per_class=10",
        "--config.data.cache_dir=cache",
    )
    assert done.returncode == 0, done.stderr
    assert "suits it better" not in done.stderr
    assert configuration.read(Run("runs/nano")).config["model"]["weights"] == "zoo:nano"


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ("zoo:nan", "no net called 'nan'; it has .*; nearest is nano"),
        ("zoo:", "no net called ''; it has "),
        ("vgg_custom_light", "give --config=zoo:vgg_custom_light "),
        ("finall", r"give --config=final \(there are .*, and zoo:NAME for those of `rice-jax zoo`"),
    ],
)
def test_what_is_not_there_is_named_with_what_is(config, told):
    with pytest.raises(UserError, match=told):
        named.load(config)


@pytest.mark.usefixtures("drawn_small")
@pytest.mark.parametrize("name", ["vgg_custom_light", "final_grid56_long"])
@pytest.mark.one_in(2)
def test_weights_that_need_another_net_tell_how_to_get_it(name, tmp_path):
    """vgg_custom's kernels are wider; final's are the same, of images that are not averaged."""
    small = ("--config.data.path=synthetic", "--config.data.synthetic_per_class=10")
    done = commands.run(
        "train",
        f"--config={zoo.card(name).model['name']}",
        f"--config.model.weights=zoo:{name}",
        "--stages=profile",
        "--config.data.image_size=64",
        *small,
        f"--config.data.cache_dir={tmp_path / 'cache'}",
        f"--workdir={tmp_path / 'run'}",
    )
    assert f"--config=zoo:{name} " in done.stderr


def test_images_of_other_classes_are_told_what_to_do_and_that_does():
    found = named.load("zoo:nano")
    found.model.classes = 3
    with pytest.raises(UserError, match="is a net of 5 classes, and there are 3 here: ") as refused:
        train.initial_params(found, train.build(found))
    frozen, random = re.findall(r"--config\.\S+=\S+", str(refused.value))
    assert random == "--config.model.weights=random"
    settings.set_fields(found, [frozen], configuration.fields("nano"))
    begun = train.initial_params(found, train.build(found))
    theirs = zoo.load("nano").variables["params"]
    assert begun.pop("head")["kernel"].shape == (32, 3)
    jax.tree.map(np.testing.assert_array_equal, begun, {name: theirs[name] for name in begun})


def test_weights_of_other_widths_and_classes_are_of_another_net():
    found = configuration.default("micro")
    found.model.update(weights="zoo:nano", classes=3)
    with pytest.raises(UserError, match="is of another net: "):
        train.initial_params(found, train.build(found))


TRAINED = [name for name in zoo.names() if zoo.card(name).command.startswith("python")]


@pytest.mark.parametrize("name", TRAINED)
def test_the_command_of_a_card_gives_its_recipe(name):
    card = zoo.card(name)
    fields, rest = settings.split(shlex.split(card.command))
    [config] = [each for each in rest if each.startswith("--config=")]
    fields = [each for each in fields if not each.startswith("--config.data.path=")]
    found, _ = settings.chosen(config.removeprefix("--config=configs/")[:-3], None, fields)
    told = configuration.from_json(configuration.completed(card.config))
    for each in (found, told):
        each.data.split_seed = configuration.split_seed(each)
        if each.model.weights:  # then none is drawn
            each.train.initializer = "own"
    assert changes(configuration.to_json(told), configuration.to_json(found)) == []
