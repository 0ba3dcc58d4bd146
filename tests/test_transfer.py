"""Training starts from the layers of a Flax checkpoint that fit, in whatever form it is."""

import json

import flax.linen as nn
import h5py
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import prunable
import pytest
from etils import epath
from flax import nnx, serialization, traverse_util
from safetensors.flax import save_file

from rice_jax import nets, own_net, train
from rice_jax.errors import UserError
from rice_jax.models import flax_checkpoint
from rice_jax.records import WeightsTold
from rice_jax.run import Run
from rice_jax.stages import run_stages
from rice_jax.train import given, weights


class Net(nn.Module):
    classes: int = 3
    width: int = 4

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Conv(self.width, (3, 3), 2, use_bias=False, name="conv")(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, name="norm")(x))
        return nn.Dense(self.classes, name="head")(x.mean((1, 2)))


class NetNNX(nnx.Module):
    def __init__(self, classes=3, *, rngs):
        self.conv = nnx.Conv(3, 4, (3, 3), 2, use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.head = nnx.Linear(4, classes, rngs=rngs)

    def __call__(self, x):
        return self.head(nnx.relu(self.norm(self.conv(x))).mean((1, 2)))


def variables(classes=7):
    """Flax's own of the net."""
    x = jnp.zeros((1, 8, 8, 3))
    shapes = jax.eval_shape(lambda: Net(classes).init(jax.random.key(0), x))
    return prunable.random_variables(shapes, 1)


def named(sep, tree):
    flat = traverse_util.flatten_dict(tree["params"] | {"norm": norm(tree)}, sep=sep)
    return {f"backbone{sep}{name}": array for name, array in flat.items()}


def norm(tree):
    return tree["params"]["norm"] | tree["batch_stats"]["norm"]


def state(tree):
    moments = jax.tree.map(np.zeros_like, tree["params"])
    return tree | {"opt_state": {"0": {"mu": moments}}, "step": np.array(3, np.int32)}


def as_nnx(tree):
    module = NetNNX(classes=7, rngs=nnx.Rngs(0))
    filled = tree["params"] | {"norm": norm(tree)}
    nnx.update(module, nnx.State(filled))
    return nnx.state(module)


def orbax(path, tree):
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path, tree)


FORMS = {
    "weights.msgpack": lambda path, tree: path.write_bytes(serialization.to_bytes(tree)),
    "checkpoint_3": lambda path, tree: path.write_bytes(serialization.to_bytes(state(tree))),
    "dots.safetensors": lambda path, tree: save_file(named(".", tree), path),
    "slashes.safetensors": lambda path, tree: save_file(named("/", tree), path),
    "orbax": lambda path, tree: orbax(path, state(tree)),
    "step/12/default": orbax,
    "nnx": lambda path, tree: orbax(path, as_nnx(tree)),
}


@pytest.fixture
def config(monkeypatch):
    monkeypatch.setattr(nets, "_OWN", {})

    def config(weights, kind=Net, **fields):
        config = own_net.configuration(kind, "mine", classes=3, **fields)
        with config.unlocked():
            config.data.image_size = 8
            config.model.weights = str(weights)
        return config

    return config


@pytest.mark.parametrize(
    ("form", "kind"), [*((form, Net) for form in FORMS), ("nnx", NetNNX), ("orbax", NetNNX)]
)
@pytest.mark.one_in(2)
def test_layers_that_fit_are_taken_and_the_rest_begins_at_random(
    form, kind, config, tmp_path, capsys
):
    path, tree = tmp_path / form, variables()
    FORMS[form](path, tree)
    settings = config(tmp_path / "step" if form.startswith("step") else path, kind)
    params = train.initial_params(settings, train.build(settings))
    np.testing.assert_array_equal(params["conv"]["kernel"], tree["params"]["conv"]["kernel"])
    stats = tree["batch_stats"]["norm"]
    np.testing.assert_array_equal(params["norm"]["running_mean"], stats["mean"])
    np.testing.assert_array_equal(params["norm"]["running_var"], stats["var"])
    np.testing.assert_array_equal(params["norm"]["scale"], tree["params"]["norm"]["scale"])
    assert params["head"]["kernel"].shape == (4, 3)
    taken, anew = capsys.readouterr().out.splitlines()
    assert "2 of 3 layers are taken, conv, norm" in taken.replace("norm, conv", "conv, norm")
    assert anew == "1 begin at random: head (kernel is (4, 7) there, (4, 3) here)" or (
        anew == "1 begin at random: head (bias is (7,) there, (3,) here)"
    )
    assert given.about(settings) == WeightsTold(source=settings.model.weights)


def test_a_checkpoint_in_halves_becomes_whole_numbers_of_the_net(config, tmp_path, capsys):
    tree = jax.tree.map(lambda array: array.astype(jnp.bfloat16), variables(classes=3))
    save_file(named(".", tree), tmp_path / "half.safetensors")
    settings = config(tmp_path / "half.safetensors")
    params = train.initial_params(settings, train.build(settings))
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype("float32")}
    np.testing.assert_array_equal(
        params["head"]["bias"], tree["params"]["head"]["bias"].astype(np.float32)
    )
    assert "begin at random" not in capsys.readouterr().out


def test_nothing_is_drawn_where_all_is_given(config, tmp_path, monkeypatch):
    """Drawing is compiled, for longer than weights are read."""
    tree = variables(classes=3)
    save_file(named(".", tree), tmp_path / "whole.safetensors")
    settings = config(tmp_path / "whole.safetensors")
    monkeypatch.setattr(weights.once, "jit", lambda function: pytest.fail("drawn"))
    params = train.initial_params(settings, train.build(settings))
    np.testing.assert_array_equal(params["head"]["kernel"], tree["params"]["head"]["kernel"])


def test_where_nothing_fits_or_can_be_read_a_line_says_so(config, tmp_path):
    path = tmp_path / "weights.msgpack"
    FORMS[path.name](path, variables())
    settings = config(path, width=5)
    with pytest.raises(UserError, match=r"none of its layers \(.*conv.*\) fits one of the net's"):
        train.initial_params(settings, train.build(settings))
    for name in ("weights.msgpack", "weights.safetensors"):
        (tmp_path / name).write_bytes(b"\x81\xa6params\xc7")
        settings = config(tmp_path / name)
        with pytest.raises(UserError, match="cannot be read as Flax's weights") as told:
            train.initial_params(settings, train.build(settings))
        assert "\n" not in str(told.value)
    (tmp_path / "empty").mkdir()
    settings = config(tmp_path / "empty")
    with pytest.raises(UserError, match=r"config\.json"):
        train.initial_params(settings, train.build(settings))


def test_a_file_is_read_once_when_a_training_begins(
    config, tmp_path, monkeypatch, capsys, drawn_small
):
    path, tree = tmp_path / "weights.msgpack", variables()
    FORMS[path.name](path, tree)
    settings = config(path)
    settings.data.update(path="synthetic", synthetic_per_class=10, cache_dir=str(tmp_path))
    settings.train.update(epochs=1, batch_size=16, frozen=("conv",))
    read, load = [], flax_checkpoint.load
    monkeypatch.setattr(flax_checkpoint, "load", lambda *args: read.append(args) or load(*args))
    run_stages(settings, str(tmp_path / "run"), ["train"])
    assert len(read) == 1
    assert capsys.readouterr().out.count("1 begin at random: head") == 1
    params = train.load(Run(tmp_path / "run")).params
    np.testing.assert_array_equal(params["conv"]["kernel"], tree["params"]["conv"]["kernel"])


@pytest.mark.parametrize("frozen", [("head",), ("conv", "head")])
def test_what_does_not_learn_does_not_begin_at_random(frozen, config, tmp_path):
    path = tmp_path / "weights.msgpack"
    FORMS[path.name](path, variables())
    settings = config(path)
    settings.train.frozen = frozen
    with pytest.raises(UserError, match=r"has nothing for head, which config\.train\.frozen"):
        train.given_params(settings, train.build(settings))
    settings.train.frozen = ("conv",)
    given = train.given_params(settings, train.build(settings))
    assert train.at_random(given) == ["head"]


def test_a_net_that_begins_at_random_in_part_is_not_evaluated(config, tmp_path):
    """Its weights would be told of as those of the file, as they are."""
    path = tmp_path / "weights.msgpack"
    FORMS[path.name](path, variables())
    settings = config(path)
    settings.data.update(path="synthetic", synthetic_per_class=10, cache_dir=str(tmp_path))
    with pytest.raises(UserError, match="has nothing for head: train the net") as told:
        run_stages(settings, str(tmp_path / "run"), ["evaluate"])
    assert "\n" not in str(told.value)
    assert not (tmp_path / "run" / "config.json").exists()


class Sized(nn.Module):
    """A net of images of 8 x 8 pixels and no others."""

    classes: int = 3

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.classes, name="head")((x * jnp.ones((8, 8, 3))).mean((1, 2)))


def test_a_file_of_keras_may_fill_a_net_of_one_size_alone(config, tmp_path):
    kernel = np.arange(9, dtype=np.float32).reshape(3, 3)
    with h5py.File(tmp_path / "x.weights.h5", "w") as file:
        file["layers/dense/vars/0"], file["layers/dense/vars/1"] = kernel, kernel[0]
    settings = config(tmp_path / "x.weights.h5", Sized)
    params = train.initial_params(settings, train.build(settings))
    np.testing.assert_array_equal(params["head"]["kernel"], kernel)


def layers(seed=0):
    random = np.random.default_rng(seed)
    shapes = {"query": (4, 2), "value": (4, 2), "head": (2, 3)}
    return {
        name: {
            "kernel": random.random(shape, np.float32),
            "bias": random.random(shape[1], np.float32),
        }
        for name, shape in shapes.items()
    }


def taken(path, tree, write=None):
    """What a net of these layers takes of a tree in a file, or a folder of Orbax's."""
    (write or (lambda path, tree: path.write_bytes(serialization.to_bytes(tree))))(path, tree)
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), layers())
    return flax_checkpoint.load(epath.Path(path), shapes)


def alike(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


AS_NNX = jax.tree.map(lambda leaf: {"value": leaf}, layers())


@pytest.mark.parametrize("tree", [layers(), {"params": layers()}, {"model": AS_NNX}])
def test_a_layer_may_be_called_value_as_in_attention(tree, tmp_path):
    alike(taken(tmp_path / "x.msgpack", tree), layers())


@pytest.mark.parametrize("name", ["opt", "opt_state", "optimizer", "optimiser_state", "moments"])
def test_an_optimisers_moments_are_no_weights(name, tmp_path):
    """They have the names and shapes of parameters, and a shorter path here."""
    tree = {"trained": {"model": {"net": layers()}}, name: [{"mu": layers(1), "nu": layers(2)}]}
    alike(taken(tmp_path / "x.msgpack", tree), layers())


@pytest.mark.parametrize(
    "others", [{"ema_params": layers(1)}, {"ema": {"of": layers(1)}}, {"params": layers()}]
)
@pytest.mark.parametrize("before", [(), ("state",)])
def test_of_a_net_and_what_is_within_it_the_net_is_taken(before, others, tmp_path):
    tree = {"params": layers(), **others}
    for name in before:
        tree = {name: tree}
    alike(taken(tmp_path / "x.msgpack", tree), layers())


@pytest.mark.parametrize("names", [("pupil", "teacher"), ("mu", "nu"), ("a/params", "a")])
def test_of_two_nets_neither_is_guessed(names, tmp_path):
    trees = {name: layers(seed) for seed, name in enumerate(names)}
    tree = traverse_util.unflatten_dict(traverse_util.flatten_dict(trees, sep="/"), sep="/")
    with pytest.raises(UserError, match="with other numbers") as told:
        taken(tmp_path / "x.msgpack", tree)
    assert "\n" not in str(told.value)
    assert jax.tree.leaves(taken(tmp_path / "y.msgpack", dict.fromkeys(names, layers())))


@pytest.mark.parametrize("number", [np.float32("nan"), np.float64(1e300), np.float16("inf")])
def test_numbers_that_are_not_finite_are_damage(number, tmp_path):
    tree = layers()
    tree["head"]["bias"] = np.full(3, number)
    with pytest.raises(UserError, match=r"is damaged: 'head/bias' .* not finite"):
        taken(tmp_path / "x.msgpack", tree)


def plainly(path, tree):
    """Without Orbax's data base, so that each array has a file that tells its shape."""
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_ocdbt=False)) as checkpointer:
        checkpointer.save(path, ocp.args.PyTreeSave(tree))


def claiming(array, **claims):
    """Writes a checkpoint in which an array says something else of itself than is true."""

    def write(path, tree):
        plainly(path, tree)
        told = path / array / ".zarray"
        told.write_text(json.dumps(json.loads(told.read_text()) | claims))

    return write


def test_of_orbax_only_what_can_be_of_use_is_read(tmp_path):
    """What else is there may be a text, or claim more memory than any machine has."""
    tree = {"params": layers(), "huge": np.ones((2, 2), np.float32), "note": "of mine", "step": 3}
    alike(taken(tmp_path / "x", tree, claiming("huge", shape=[10**7, 10**7])), layers())


def test_a_piece_of_an_array_is_no_larger_than_it(tmp_path):
    """Whoever reads one is given memory for it, and the process ends where there is none."""
    with pytest.raises(UserError, match=r"a piece \(10000000, 10000000\) of an array \(2, 3\)"):
        taken(tmp_path / "x", layers(), claiming("head.kernel", chunks=[10**7, 10**7]))


@pytest.mark.parametrize("item", ["model", "12/model"])
def test_an_item_of_orbax_may_have_any_name(item, tmp_path):
    taken_of = taken(tmp_path, layers(), lambda path, tree: orbax(path / item, tree))
    alike(taken_of, layers())
    assert flax_checkpoint.is_one(epath.Path(tmp_path))
    orbax(tmp_path / item.replace("model", "another"), layers(1))
    assert not flax_checkpoint.is_one(epath.Path(tmp_path))
