"""The study's theory of nets that fail to learn, and where NaN first shows."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import prunable
import pytest
from flax import traverse_util
from tiny_training import SIZE

from rice_jax import models
from rice_jax.graph import once
from rice_jax.graph.trace import variable_shapes
from rice_jax.models.own import Own
from rice_jax.train import diagnosis

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.random((10, SIZE, SIZE, 3)).astype(np.float32)
LABELS = np.array([0, 1, 2, 3, 4, 0, 0, 1, 2, 0])
TINY = {
    "googlenet": {
        "stem": (4, 4, 4),
        "inceptions": (((2, 2, 2, 2, 2, 2),),),
        "dropout": 0.4,
    },
    "final": {"stages": ((3,), (4, 4)), "dense": 6},
    "cnn": {"stages": ((3,), (4,)), "dense": 6},
}


@pytest.fixture(autouse=True)
def _arrays_are_arguments(as_arguments):
    """No program here holds a batch as constants, which XLA would fold for minutes."""


@functools.cache
def built(name):
    module = models.build(name, **TINY[name])
    shapes = variable_shapes(module, IMAGES.shape)
    params = prunable.random_variables(shapes, 0)["params"]
    return module, jax.tree.map(lambda leaf: leaf if leaf.ndim > 1 else 0 * leaf, params)


def net(name):
    module, params = built(name)
    return module, jax.tree.map(np.array, params)


def kill(params, path):
    """Make every map of a convolution negative before its ReLU, whatever the image."""
    layer = params
    for name in path.split("/"):
        layer = layer[name]
    layer["kernel"][:] = 0
    layer["bias"][:] = -1


def look(module, params, **kwargs):
    return diagnosis.collapse(
        module, params, IMAGES, LABELS, loss=1.61, chance=math.log(5), **kwargs
    )


LAST = [f"inception3a/branch{number}/conv" for number in (1, 2, 3, 4)]


@pytest.mark.thorough
def test_dead_maps_into_the_head_leave_its_bias_alone_to_learn():
    module, params = net("googlenet")
    for path in LAST:
        kill(params, path)

    def loss(params, images):
        logits = module.apply({"params": params}, images)
        picked = jnp.take_along_axis(jax.nn.log_softmax(logits), LABELS[:, None], axis=1)
        return -picked.mean()

    value, gradients = once.jit(jax.value_and_grad(loss))(params, IMAGES)
    assert float(value) == pytest.approx(math.log(5), abs=1e-6)
    learning = {
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, gradient in jax.tree_util.tree_flatten_with_path(gradients)[0]
        if np.any(gradient)
    }
    assert learning == {"head/bias"}
    found = look(module, params)
    assert found.dead == LAST[0]
    layers = {name.rpartition("/")[0] for name in traverse_util.flatten_dict(params, sep="/")}
    assert set(found.silent) == layers - {"head"}
    assert "cannot learn" in str(found)


@pytest.mark.parametrize(("name", "dead"), [("final", "conv2"), ("cnn", "conv1"), ("cnn", "dense")])
@pytest.mark.one_in(2)
def test_the_first_dead_layer_is_named(name, dead):
    module, params = net(name)
    kill(params, dead)
    found = look(module, params)
    assert found.dead == dead
    assert dead in found.silent
    assert "head" not in found.silent


def test_a_net_in_health_is_said_to_be_so():
    module, params = net("final")
    found = look(module, params)
    assert (found.dead, found.silent) == ("", ())
    assert "may still begin to learn" in str(found)


@pytest.mark.parametrize("place", range(len(IMAGES)))
@pytest.mark.one_in(6)
def test_a_layer_that_lives_on_one_image_of_many_is_not_dead(place):
    module, params = net("final")
    images = np.zeros_like(IMAGES)
    images[place] = 1
    for name in params.keys() - {"head"}:
        kernel = params[name]["kernel"]
        kernel[:], params[name]["bias"][:] = 1 / kernel[..., 0].size, 0  # averages
    params["conv2"]["bias"][:] = -0.5  # dark images give less
    rest = np.delete(images, place, axis=0)
    on_all, on_the_rest = (
        diagnosis.collapse(module, params, some, LABELS[: len(some)], loss=1.61, chance=1.61)
        for some in (images, rest)
    )
    assert (on_all.dead, on_all.silent) == ("", ())
    assert (on_the_rest.dead, "conv2" in on_the_rest.silent) == ("conv1", True)


def test_images_that_are_all_the_same_are_the_reason_said():
    module, params = net("final")
    kill(params, "conv2")
    same = np.broadcast_to(IMAGES[:1], IMAGES.shape)
    found = diagnosis.collapse(module, params, same, LABELS, loss=1.61, chance=math.log(5))
    assert found.alike
    assert "no net can learn from them" in str(found)
    assert not look(module, params).alike


class Pair(nn.Module):
    """A layer that gives more than an array."""

    @nn.compact
    def __call__(self, x, _=None):
        return nn.Dense(4, name="inner")(x), None


class Unusual(nn.Module):
    """No convolution, no rectifier; a block that Flax traces by itself, or of several outputs."""

    block: str
    classes: int = 5

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Dense(4, name="first")(x.mean((1, 2)))
        if self.block == "several outputs":
            x, _ = Pair(name="block")(x)
        elif self.block == "recomputed":
            x, _ = nn.remat(Pair)(name="block")(x)
        elif self.block == "scanned":
            scan = nn.scan(Pair, variable_axes={"params": 0}, split_rngs={"params": True}, length=2)
            x, _ = scan(name="block")(x, None)
        elif self.block == "mapped":  # image by image
            each = nn.vmap(nn.Dense, variable_axes={"params": None}, split_rngs={"params": False})
            x = each(4, name="block")(x)
        return nn.Dense(self.classes, name="head")(nn.gelu(x))


BLOCKS = ["none", "several outputs", "recomputed", "scanned", "mapped"]


@functools.cache
def unusual(block):
    module = Own.of(Unusual, block=block)
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), IMAGES))
    return module, prunable.random_variables(shapes, 0)["params"]


@pytest.mark.parametrize("block", BLOCKS)
def test_any_net_that_rests_at_chance_is_looked_at(block):
    module, params = unusual(block)
    found = look(module, params)
    assert (found.dead, found.silent) == ("", ())
    cut_off = {"head": jax.tree.map(np.zeros_like, params["head"])}
    assert "first" in look(module, params | cut_off).silent


@pytest.mark.parametrize("block", BLOCKS)
def test_where_nan_first_shows_in_any_net(block):
    module, params = unusual(block)
    params = params | {"head": jax.tree.map(lambda leaf: np.full_like(leaf, 3e38), params["head"])}
    params["first"] = jax.tree.map(np.ones_like, params["first"])
    found = diagnosis.first_not_finite(module, params, 99 * IMAGES, LABELS, jax.random.key(0))
    assert found == "head"


def test_frozen_layers_are_no_news():
    module, params = net("final")
    kill(params, "conv3")
    assert "conv1" not in look(module, params, frozen=("conv1", "conv2")).silent


def test_chance_is_the_entropy_of_the_classes():
    assert diagnosis.chance(np.diag([7] * 5)) == pytest.approx(math.log(5))
    assert diagnosis.chance(np.array([[1, 2], [0, 1]])) == pytest.approx(
        -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    )
    assert diagnosis.rests_at(math.log(5), 1.6096, 1.6105), "the study's own case"
    assert not diagnosis.rests_at(math.log(5), 1.6096, 1.55)


@pytest.mark.parametrize("images", [[7, 0], [0, 1], [3]])
def test_a_net_without_a_mistake_on_images_of_one_class_has_learned(images):
    chance = diagnosis.chance(np.diag(images))
    assert chance == 0
    assert not diagnosis.rests_at(chance, 0.0, 0.0)


def broken(params, path, leaf, value):
    params[path][leaf][..., 0] = value
    return params


@pytest.mark.parametrize(
    ("path", "leaf", "value", "where"),
    [
        ("conv2", "kernel", np.nan, "the parameters of conv2"),
        ("conv2", "kernel", 3e38, "conv2"),
        ("head", "bias", np.inf, "the parameters of head"),
        ("head", "bias", 3e38, "the loss"),
    ],
)
def test_where_nan_first_shows(path, leaf, value, where):
    module, params = net("final")
    params["conv1"]["bias"][:] = 1
    params = broken(params, path, leaf, value)
    found = diagnosis.first_not_finite(module, params, IMAGES, LABELS, jax.random.key(0))
    assert found == where


def test_a_gradient_that_overflows_is_found_from_the_end():
    module, params = net("final")
    params["head"]["kernel"][:] = np.where(RANDOM.random((6, 5)) < 0.5, 1e20, -1e20)
    params["dense"]["kernel"][:] = 1e-30
    params["conv3"]["bias"][:] = 1e20
    found = diagnosis.first_not_finite(module, params, IMAGES, LABELS, jax.random.key(0))
    assert found.startswith("the gradient of")
