"""A net of one's own in NNX, as training, pruning and export call it."""

import functools
import math
import types

import jax
import jax.numpy as jnp
import nets_in_both
import numpy as np
import prunable
import pytest
from flax import nnx, traverse_util

from rice_jax import nets, ops, own_net, profile, train
from rice_jax.errors import UserError
from rice_jax.export.folding import folded
from rice_jax.graph import narrowed
from rice_jax.graph.fronts import front
from rice_jax.models.own_nnx import OwnNNX
from rice_jax.prune import certify, prune

SHAPE = nets_in_both.SHAPE
NAMES = {"mean": "running_mean", "var": "running_var"}


@functools.cache
def built(name):
    """The class in a Linen module, a module of it, and the same variables as training has them."""
    _, module, _ = nets_in_both.built(name)
    flat = traverse_util.flatten_dict(front(module).variables)
    params = {(*path[1:-1], NAMES.get(path[-1], path[-1])): leaf for path, leaf in flat.items()}
    net = OwnNNX.of(nets_in_both.NETS[name][1])
    return net, module, {"params": traverse_util.unflatten_dict(params)}


@pytest.mark.parametrize("name", ["batch norm", "sequential and list"])
def test_it_has_the_logits_and_the_rows_of_the_module(name):
    net, module, variables = built(name)
    x = nets_in_both.images()
    both = prunable.compiled(lambda x: (net.apply(variables, x), module(x)), x)
    np.testing.assert_allclose(*both(x), atol=1e-6)
    drawn = jax.eval_shape(lambda: net.init(jax.random.key(0), jnp.zeros(SHAPE)))
    assert jax.tree.map(jnp.shape, drawn) == jax.tree.map(jnp.shape, variables)
    one, other = (profile.count(each, SHAPE[1:]) for each in (net, module))
    layers = {row.path: row.flops for row in other.rows if "norm" not in row.path}
    assert layers == {row.path: row.flops for row in one.rows if "norm" not in row.path}
    assert list(layers)


@pytest.mark.parametrize("name", ["depthwise", "group and layer norm"])
@pytest.mark.one_in(2)
def test_its_half_is_the_half_of_the_module(name):
    net, module, variables = built(name)
    x = nets_in_both.images()
    budgets = {"filters": sum(row.filters for row in profile.count(module, SHAPE[1:]).rows) // 2}
    asked = {"budgets": budgets, "criterion": "l1", "on_unknown": "keep"}
    cut, other = prune(net, variables, [x], **asked), prune(module, [x], **asked)
    assert cut.removed == other.removed != {}
    got, wanted = prunable.compiled(
        lambda x: (cut.module.apply(cut.variables, x), other.module(x)), x
    )(x)
    np.testing.assert_allclose(got, wanted, atol=1e-5)
    again = OwnNNX.of(net.made.cls, narrowed=narrowed.to_text(cut.module))
    assert again == cut.module
    drawn = jax.eval_shape(lambda: again.init(jax.random.key(0), x))
    assert jax.tree.map(jnp.shape, drawn) == jax.tree.map(jnp.shape, cut.variables)


class Splitting(nnx.Module):
    """Picks channels by their place; its kernels begin as ones."""

    def __init__(self, classes=3, *, rngs):
        ones = functools.partial(nnx.Conv, kernel_init=nnx.initializers.ones_init(), rngs=rngs)
        self.stem = ones(3, 6, (3, 3), strides=4)
        self.left = ones(3, 4, (1, 1))
        self.head = nnx.Linear(4, classes, rngs=rngs)

    def __call__(self, x):
        one, two = jnp.split(nnx.relu(self.stem(x)), 2, axis=-1)
        return self.head(nnx.relu(self.left(one) + two.sum(-1, keepdims=True)).mean((1, 2)))


def test_channels_picked_by_their_place_keep_it_and_a_narrower_net_can_begin_anew():
    net, x = OwnNNX.of(Splitting), nets_in_both.images()
    variables = jax.jit(lambda: net.init(jax.random.key(0), x))()
    cut = prune(net, variables, [x], filters={"stem": [0, 1]}, on_unknown="keep")
    kernel = variables["params"]["stem"]["kernel"].at[..., :2].set(0)
    stem = {**variables["params"]["stem"], "kernel": kernel}
    masked = {"params": {**variables["params"], "stem": stem}}
    got, wanted = prunable.compiled(
        lambda x: (cut.module.apply(cut.variables, x), net.apply(masked, x)), x
    )(x)
    np.testing.assert_allclose(got, wanted, atol=1e-5)
    drawn = jax.jit(lambda: cut.module.init(jax.random.key(0), x))()["params"]
    np.testing.assert_allclose(drawn["stem"]["kernel"], np.ones((3, 3, 3, 4)))
    np.testing.assert_allclose(drawn["left"]["kernel"], np.full((1, 1, 1, 4), math.sqrt(3)))


class Dropping(nnx.Module):
    def __init__(self, classes=3, *, rngs):
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return self.dropout(x.reshape(len(x), -1))


def test_dropout_goes_by_the_images_index_and_the_key():
    net, x = OwnNNX.of(Dropping), jnp.ones((4, 4, 4, 3))

    def given(key, first=0):
        rngs = {"dropout": jax.random.key(key)}
        return net.clone(first_image=first).apply({}, x[first:], train=True, rngs=rngs)

    whole = given(0)
    np.testing.assert_array_equal(given(0, 2), whole[2:])
    assert 0.3 < float(np.mean(np.asarray(whole) == 0)) < 0.7
    assert np.any(given(1) != whole)
    np.testing.assert_array_equal(net.apply({}, x), x.reshape(4, -1))


class Followed(nnx.Module):
    """Norms that follow a layer with a bias, one without, and none."""

    def __init__(self, classes=3, *, rngs):
        self.biased = nnx.Conv(3, 4, (3, 3), 2, rngs=rngs)
        self.biased_norm = nnx.BatchNorm(4, rngs=rngs)
        self.bare = nnx.Linear(4, 5, use_bias=False, rngs=rngs)
        self.bare_norm = nnx.BatchNorm(5, use_scale=False, rngs=rngs)
        self.lone_norm = nnx.BatchNorm(5, use_bias=False, rngs=rngs)
        self.head = nnx.Linear(5, classes, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.biased_norm(self.biased(x)))
        x = nnx.relu(self.bare_norm(self.bare(x)))
        return self.head(self.lone_norm(x).mean((1, 2)))


def test_folded_norms_change_no_logit_but_by_rounding():
    net, x, rng = OwnNNX.of(Followed), nets_in_both.images(), np.random.default_rng(2)
    shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), x))["params"]
    params = jax.tree.map(lambda a: rng.uniform(0.3, 1.5, a.shape).astype(np.float32), shapes)
    config = types.SimpleNamespace(data=types.SimpleNamespace(image_size=8))
    lighter = folded(train.Trained(config, net, params, ("a", "b", "c"), 1))
    assert dict(lighter.module.folded) == {"biased_norm": False, "bare_norm": True}
    assert set(lighter.params["bare_norm"]) == {"bias"}
    assert "biased_norm" not in lighter.params
    pair = lighter.module, {"params": lighter.params}
    same = certify((net, {"params": params}), pair, [x], proven=True)
    assert same.proven
    assert same.max_relative_logit_difference < 1e-5


def test_a_batch_is_computed_in_parts_that_go_by_the_maps():
    """As many images as make a convolution's map of half a megabyte: one of 256 x 256 x 8."""
    net = OwnNNX.of(Wide)
    images = jax.ShapeDtypeStruct((4, 256, 256, 3), np.float32)
    variables = jax.eval_shape(lambda: net.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3))))
    assert ops.part_size(net, variables, images, "cpu") == 1
    assert ops.part_size(net, variables, images, "gpu") == 4


class Handed(nnx.Module):
    """Draws from what its call is given, which tells it also whether it learns."""

    def __init__(self, classes=3, *, rngs):
        self.dropout = nnx.Dropout(0.5)
        self.head = nnx.Linear(48, classes, rngs=rngs)

    def __call__(self, x, *, rngs: nnx.Rngs | None):
        x = self.dropout(x.reshape(len(x), -1), rngs=rngs)
        if rngs is None:
            return self.head(x)
        return self.head(x) + jax.random.uniform(rngs.noise(), (1, 3)) * 0


class HandedMaybe(Handed):
    def __call__(self, x, rngs=None):
        return super().__call__(x, rngs=rngs)


class HandedAKey(Handed):
    def __call__(self, x, rngs: jax.Array, train: bool = False):
        if not train:
            return super().__call__(x, rngs=None)
        return super().__call__(x, rngs=nnx.Rngs(rngs))


@pytest.mark.parametrize("kind", [Handed, HandedMaybe, HandedAKey])
def test_a_call_is_handed_rngs_to_draw_from_as_it_learns(kind, monkeypatch):
    monkeypatch.setattr(nets, "_OWN", {})
    net = train.build(own_net.configuration(kind, "handed", classes=3))
    x = jnp.ones((4, 4, 4, 3))
    variables = net.init(jax.random.key(0), x)

    @jax.jit
    def learning(key):
        return net.apply(variables, x, train=True, rngs={"dropout": key})

    one, same, other = (learning(jax.random.key(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 0.01
    head = variables["params"]["head"]
    plain = x.reshape(4, -1) @ head["kernel"] + head["bias"]
    np.testing.assert_allclose(net.apply(variables, x), plain, atol=1e-5)
    assert np.abs(one - plain).max() > 0.01
    counted = profile.count(net, (4, 4, 3), train=True)  # no stream is given where one counts
    assert counted.params == 48 * 3 + 3


class Wide(nnx.Module):
    def __init__(self, classes=3, *, rngs):
        self.conv = nnx.Conv(3, 8, (3, 3), rngs=rngs)
        self.head = nnx.Linear(8, classes, rngs=rngs)

    def __call__(self, x):
        return self.head(self.conv(x).mean((1, 2)))


class Counting(nnx.Module):
    def __init__(self, classes=3, *, rngs):
        self.head = nnx.Linear(3, classes, rngs=rngs)
        self.calls = nnx.Variable(jnp.zeros(()))

    def __call__(self, x):
        return self.head(x.mean((1, 2)))


class Unseeded(nnx.Module):
    def __init__(self, classes=3):
        self.classes = classes


def test_what_cannot_be_trained_is_said_in_a_line():
    with pytest.raises(UserError, match="variables that training does not carry"):
        OwnNNX.of(Counting).init(jax.random.key(0), jnp.zeros(SHAPE))
    with pytest.raises(UserError, match="Unseeded is made without rngs="):
        own_net.configuration(Unseeded)
    with pytest.raises(UserError, match="Dropping takes no dtype="):
        OwnNNX.of(Dropping, dtype=jnp.bfloat16)


def test_fields_of_the_configuration_are_what_the_class_is_made_with(monkeypatch):
    monkeypatch.setattr(nets, "_OWN", {})
    config = own_net.configuration(Splitting, "splitting", classes=4)
    assert config.model.classes == 4
    assert set(config.model) == {"name", "weights", "classes", "narrowed", "grid"}
    assert train.build(config).made.fields == {"classes": 4}
