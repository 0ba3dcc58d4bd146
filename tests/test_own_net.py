"""A net of one's own through the commands: the two examples, small."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import commands
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from data_files import picture
from flax import nnx

from rice_jax import config as configuration
from rice_jax import data, identity, nets, ops, own_net, profile, train
from rice_jax.commands import named, settings
from rice_jax.errors import UserError
from rice_jax.models.own import Own
from rice_jax.models.own_nnx import OwnNNX
from rice_jax.run import Run
from rice_jax.stages import run_stages

pytestmark = pytest.mark.usefixtures("drawn_small")

EXAMPLES = Path(__file__).parents[1] / "examples"
NARROW = {
    "resnet18": {"stages": ((8,),)},
    "mobilenetv2": {"blocks": ((2, 8, 1, 2),), "multiplier": 0.25, "last": 8},
}
SMALL = {
    **{"data.image_size": 16, "data.path": "synthetic", "data.synthetic_per_class": 10},
    **{"train.schedule": "study", "train.epochs": 1, "train.batch_size": 16},
}

HASTY = ("--criterion=l1", "--images=clean")
"""What a pruning of few images compiles least for."""


def run(command, *arguments):
    done = commands.run(command, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Trains the net of a file, of a few images for an epoch; the run's folder."""
    cache = str(tmp_path_factory.mktemp("cache"))

    def trained(path, **widths):
        config = named.load(str(path))
        config.update_from_flattened_dict(SMALL | {"data.cache_dir": cache})
        config.model.update(widths)
        folder = str(tmp_path_factory.mktemp(path.stem) / "run")
        run_stages(config, folder, ["train"])
        return folder

    return trained


@pytest.mark.parametrize("name", NARROW)
@pytest.mark.one_in(2)
def test_an_example_trains(name, trained):
    net = train.load(Run(trained(EXAMPLES / f"{name}.py", **NARROW[name])))
    assert net.config.model.name == name
    assert len(net.classes) == net.config.model.classes == 5


EXAMPLE_COSTS = [("resnet18", 1.81), ("resnet18_nnx", 1.81), ("mobilenetv2", 0.30)]


@pytest.mark.parametrize(("name", "billions"), EXAMPLE_COSTS)
def test_an_example_is_the_published_net(name, billions):
    """Multiply-adds at 224 x 224, of 1,000 classes, as the papers have them, in a short file."""
    assert len((EXAMPLES / f"{name}.py").read_text().splitlines()) < 60
    config = named.load(str(EXAMPLES / f"{name}.py"))
    config.model.classes = 1000
    counted = profile.count(train.build(config), (224, 224, 3))
    assert counted.flops.formula / 2e9 == pytest.approx(billions, abs=0.005)


def test_dropout_of_flax_goes_by_the_images_index():
    class Dropped(nn.Module):
        classes: int = 48

        @nn.compact
        def __call__(self, x, train):
            return nn.Dropout(0.5, deterministic=not train)(x.reshape(len(x), -1))

    net, x = Own.of(Dropped), jnp.ones((4, 4, 4, 3))
    rngs = {"dropout": jax.random.key(0)}
    whole = net.apply({}, x, train=True, rngs=rngs)
    part = net.clone(first_image=2).apply({}, x[2:], train=True, rngs=rngs)
    np.testing.assert_array_equal(part, whole[2:])
    assert 0.3 < float(np.mean(np.asarray(whole) == 0)) < 0.7
    np.testing.assert_array_equal(net.apply({}, x, train=False), x.reshape(4, -1))


class Depthwise(nn.Module):
    classes: int = 3

    @nn.compact
    def __call__(self, x):
        return nn.Conv(3, (3, 3), feature_group_count=3)(x).mean((1, 2))


class DepthwiseNNX(nnx.Module):
    def __init__(self, classes=3, *, rngs):
        self.conv = nnx.Conv(3, 3, (3, 3), feature_group_count=3, rngs=rngs)

    def __call__(self, x):
        return self.conv(x).mean((1, 2))


@pytest.mark.parametrize("net", [Own.of(Depthwise), OwnNNX.of(DepthwiseNNX)], ids=["linen", "nnx"])
@pytest.mark.usefixtures("on_the_cpu")
def test_gradients_of_a_depthwise_convolution_are_no_convolutions_in_groups(net):
    """Which XLA's CPU backend is slow at; the forward pass, which is one, is not asked for."""
    params = net.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    loss = jax.grad(lambda params, x: net.apply(params, x, train=True).sum(), argnums=(0, 1))
    lowered = jax.jit(loss).lower(params, jnp.zeros((2, 8, 8, 3))).as_text()
    assert "group_count = 3" not in lowered
    with ops.plain():
        lowered = jax.jit(loss).lower(params, jnp.zeros((3, 8, 8, 3))).as_text()
    assert "feature_group_count = 3" in lowered
    assert "batch_group_count = 3" in lowered


class Small(nn.Module):
    classes: int = 3

    @nn.compact
    def __call__(self, x):
        return nn.Conv(3, (3, 3))(nn.relu(nn.Conv(8, (5, 5), 2)(x))).mean((1, 2))


class SmallNNX(nnx.Module):
    def __init__(self, classes=3, *, rngs):
        self.first = nnx.Conv(3, 8, (5, 5), 2, rngs=rngs)
        self.second = nnx.Conv(8, 3, (3, 3), rngs=rngs)

    def __call__(self, x):
        return self.second(nnx.relu(self.first(x))).mean((1, 2))


@pytest.mark.parametrize("net", [Own.of(Small), OwnNNX.of(SmallNNX)], ids=["linen", "nnx"])
@pytest.mark.usefixtures("compiled_well", "on_the_cpu")
@pytest.mark.one_in(2)
def test_a_map_smaller_than_its_window_is_no_window_itself(net):
    """As which XLA's CPU backend, which makes images filters then, is slower by factors."""
    params = net.init(jax.random.key(0), jnp.zeros((1, 4, 4, 3)))

    def learnt(params, x):
        return jax.grad(lambda params: net.apply(params, x, train=True).sum())(params)

    def answered(params, x):
        with ops.inference():
            return net.apply(params, x, train=False)

    for function in (learnt, answered):
        compiled = jax.jit(function).lower(params, jnp.zeros((2, 4, 4, 3))).compile().as_text()
        assert "->f01b" not in compiled  # the batch of its result is the filters


MISTAKES = {
    "what no call is given": ("Asking", "Asking is not called with mask: give it a default"),
    "an instance": ("Net()", "is no class of Linen or NNX"),
    "a name that is taken": ("Net, 'final'", "'final' is taken"),
    "no such field": ("Net, widht=3", "cannot have widht="),
    "what is no number": ("Net, width=None", "field width=None"),
    "no such recipe": ("Net, recipe={'train.rate': 1}", "config.train.rate is no field"),
    "a bad recipe": ("Net, recipe={'train.epochs': 0}", "config.train.epochs=0: give"),
    "a variable": ("Counting", "training does not carry, counts"),
    "several answers": ("Giving, what='two'", "say which are the logits with output=, a key"),
    "no such answer": ("Giving, what='two', output='logits'", "no output is 'logits': the net"),
    "the other answer": ("Giving, what='two', output=1", "Giving gives an array (1, 16, 16, 3)"),
    "no answer": ("Giving, what='none'", "configuration(Giving): the net gives no array"),
    "a map": ("Giving, what='map'", "Giving gives an array (1, 16, 16, 5) of 1 images"),
    "a logit too many": ("Giving, what='more'", "Giving gives an array (1, 6) of 1 images"),
    "a map in NNX": ("GivingNNX", "GivingNNX gives an array (1, 16, 16, 5) of 1 images"),
    "short parameters": ("Giving, what='short'", "head/kernel is bfloat16: parameters learn in"),
    "no parameters": ("Giving, what='nothing'", "the net has no parameters: there is nothing"),
}
SOURCE = """
import flax.linen as nn
from flax import nnx
from rice_jax.own_net import configuration

class Net(nn.Module):
    width: int = 4
    classes: int = 5
    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Conv(self.width, (3, 3), 2, name="conv")(x)
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9, name="norm")(x)
        return nn.Dense(self.classes, name="head")(nn.relu(x).mean((1, 2)))

class NNXNet(nnx.Module):
    def __init__(self, width: int = 4, classes: int = 5, *, rngs):
        self.conv = nnx.Conv(3, width, (3, 3), 2, rngs=rngs)
        self.norm = nnx.BatchNorm(width, momentum=0.9, rngs=rngs)
        self.head = nnx.Linear(width, classes, rngs=rngs)
    def __call__(self, x):
        return self.head(nnx.relu(self.norm(self.conv(x))).mean((1, 2)))

class Counting(nn.Module):
    classes: int = 5
    @nn.compact
    def __call__(self, x):
        self.variable("counts", "calls", lambda: 0.0)
        return nn.Dense(self.classes)(x.mean((1, 2)))

class Giving(nn.Module):
    what: str = ""
    classes: int = 5
    @nn.compact
    def __call__(self, x):
        means = x.mean((1, 2))
        if self.what == "nothing":
            return means.sum(1, keepdims=True).repeat(self.classes, 1)
        short = {{"param_dtype": "bfloat16"}} if self.what == "short" else {{}}
        head = nn.Dense(self.classes + (self.what == "more"), name="head", **short)
        logits = head(x if self.what == "map" else means)
        return {{"two": (logits, x), "none": ()}}.get(self.what, logits)

class Asking(Net):
    def __call__(self, x, mask, train, *more, scale=1, **others):
        return x

class GivingNNX(nnx.Module):
    def __init__(self, classes=5, *, rngs):
        self.head = nnx.Linear(3, classes, rngs=rngs)
    def __call__(self, x):
        return self.head(x)

def get_config():
    return configuration({})
"""


def first_maps(folder):
    """What the first convolution of a run's net makes of all images that it was trained on."""
    net = train.load(Run(folder))
    source = identity.load_own(net.config, Run(folder)).splits["train"]
    records = [source[index] for index in range(len(source))]
    images = np.stack([data.decode(record["image"], 16) for record in records]) / np.float32(255)
    return np.asarray(nn.Conv(4, (3, 3), 2).apply({"params": net.params["conv"]}, images))


@pytest.mark.parametrize("kind", ["Net", "NNXNet"])
@pytest.mark.parametrize(("frozen", "still"), [((), 0), (("conv/bias",), 4), (("norm",), 8)])
@pytest.mark.one_in(3)
def test_a_norms_statistics_and_what_is_frozen_are_not_trainable(kind, frozen, still, tmp_path):
    mine = tmp_path / "mine.py"
    mine.write_text(SOURCE.format(kind))
    config = named.load(str(mine))
    config.update_from_flattened_dict(SMALL | {"train.frozen": frozen})
    run_stages(config, str(tmp_path / "run"), ["profile"])
    totals = json.loads((tmp_path / "run" / "profile.json").read_text())["totals"]
    conv, norm, head = 3 * 3 * 3 * 4 + 4, 4 * 4, 4 * 5 + 5
    assert totals["params"] == conv + norm + head
    assert totals["trainable_params"] == conv + norm // 2 + head - still


@pytest.mark.parametrize("kind", ["Net", "NNXNet"])
@pytest.mark.one_in(2)
def test_a_pruned_run_of_ones_own_net_is_a_run_as_any_other(kind, trained, tmp_path, monkeypatch):
    """Where its file is given; nothing that the folder names is imported."""
    mine, out = tmp_path / "mine.py", str(tmp_path / "half")
    mine.write_text(SOURCE.format(kind))
    whole, own = trained(mine), f"--config={mine}"
    norm, maps = train.load(Run(whole)).params["norm"], first_maps(whole)
    np.testing.assert_allclose(norm["running_mean"], maps.mean((0, 1, 2)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(norm["running_var"], maps.var((0, 1, 2)), rtol=1e-4)
    run("prune", own, f"--workdir={whole}", f"--out={out}", "--max_filters=2", *HASTY)
    smaller = train.load(Run(out))
    assert smaller.params["conv"]["kernel"].shape[-1] == 2
    assert smaller.params["norm"]["running_mean"].shape == (2,)
    assert np.any(smaller.params["norm"]["running_mean"])
    assert Run(out).has("dead_filters.json")
    again, _ = settings.chosen(str(mine), out, ["--config.train.epochs=2"])
    assert again.model == smaller.config.model
    photograph = tmp_path / "grain.jpg"
    photograph.write_bytes(picture(shade=170, size=30, suffix=".jpg"))
    said = run("predict", own, f"--workdir={out}", "--json", photograph)
    assert json.loads(said)["class"] in smaller.classes
    exported = tmp_path / "half.stablehlo"
    run("export", own, f"--workdir={out}", f"--out={exported}")
    assert exported.exists()
    monkeypatch.setattr(nets, "_OWN", {})
    done = commands.run("predict", f"--workdir={out}", photograph)
    assert done.returncode == 1
    assert f"'{kind.lower()}' is none of the package's" in done.stderr
    assert "--config=FILE" in done.stderr


@pytest.mark.thorough
def test_a_pruning_that_removes_nothing_leaves_each_weight_to_the_bit(trained, tmp_path):
    """Norms measured on augmented images, which the run did not learn from, would be others."""
    mine = tmp_path / "mine.py"
    mine.write_text(SOURCE.format("Net"))
    whole = trained(mine)
    before = train.load(Run(whole)).params
    for number, asked in enumerate(["--drop_layers=auto", "--max_filters=4"]):
        out = str(tmp_path / str(number))
        where = (f"--config={mine}", f"--workdir={whole}", f"--out={out}")
        run("prune", *where, asked, "--config.train.augment=true", "--images=clean")
        jax.tree.map(np.testing.assert_array_equal, train.load(Run(out)).params, before)


class Rates(nn.Module):
    said: float = 0
    kept: float = 0.25
    few: Sequence[float] = (0, 1)
    mixed: Any = (0, 0.5)
    width: int = 8
    classes: int = 5


class RatesNNX(nnx.Module):
    def __init__(self, said: "float" = 0, kept=0.25, few: "list[float]" = (0, 1), *,
                 mixed=(0, 0.5), width=8, classes=5, rngs):  # fmt: skip
        pass


@pytest.mark.parametrize("net", [Rates, RatesNNX])
def test_a_field_of_any_number_takes_any_also_where_it_is_a_whole_one_at_first(net):
    made = own_net.configuration(net, "rates", kept=0, recipe={"train.learning_rate": 1})
    given = {"model.said": 0.5, "model.kept": 0.5, "model.few": (0.5,), "model.mixed": (1.0, 0.5)}
    given |= {"train.learning_rate": 0.5}
    texts = [f"--config.{name}={str(value).strip('()')}" for name, value in given.items()]
    assert settings.set_fields(made, texts, configuration.fields("rates")) == given
    with pytest.raises(UserError, match=r"width=0\.5: give a whole number"):
        settings.set_fields(made, ["--config.model.width=0.5"], configuration.fields("rates"))


def test_every_field_of_a_recipe_is_the_configuration_s():
    for name, field in configuration.FIELDS.items():
        value = ("conv",) if name == "train.frozen" else field.default
        made = own_net.configuration(Rates, "rates", recipe={name: value})
        part = made
        for section in name.split("."):
            part = part[section]
        assert part == value
    with pytest.raises(UserError, match="told twice"):
        own_net.configuration(Rates, "rates", recipe={"train.frozen": ("a",)}, frozen=("b",))


@pytest.mark.parametrize("frozen", ["conv", (1,), ("conv", None), {"conv": True}])
def test_frozen_paths_are_several(frozen):
    """Of a text its letters would be the paths."""
    with pytest.raises(UserError, match=r"frozen=.*: give any number of: a path"):
        own_net.configuration(Rates, "rates", frozen=frozen)
    assert own_net.configuration(Rates, "rates", frozen=["conv"]).train.frozen == ("conv",)


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_ones_own_file_is_told_in_a_line(name, tmp_path):
    given, message = MISTAKES[name]
    own = tmp_path / "mine.py"
    own.write_text(SOURCE.format(given))
    small = ("--config.data.path=synthetic", "--config.data.image_size=16")
    where = (f"--config.data.cache_dir={tmp_path}", f"--workdir={tmp_path / 'run'}")
    done = commands.run("train", f"--config={own}", *small, *where)
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.strip().splitlines()[-1].count(message) == 1
    assert "Traceback" not in done.stderr
