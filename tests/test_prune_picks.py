"""Channels that a layer picks by number: those that are left are still the ones that it means."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import prunable
import pytest
from flax import nnx
from jax import lax

from rice_jax import prune
from rice_jax.graph.trace import variable_shapes
from rice_jax.prune.departure import departure
from rice_jax.prune.fitting import narrowed
from rice_jax.prune.surgery import cut

SHAPE = (2, 8, 8, 3)
IMAGES = prunable.images(0, SHAPE)
NUMBERS = lax.GatherDimensionNumbers(
    offset_dims=(0, 1, 2), collapsed_slice_dims=(3,), start_index_map=(3,)
)


def gathered(x, mode):
    where = np.array([[6], [1], [4]], np.int32)
    return lax.gather(x, where, NUMBERS, (*x.shape[:3], 1), mode=mode)


PICKS = {
    "slice": lambda x: x[..., 2:5],
    "slice with a step": lambda x: lax.slice_in_dim(x, 1, 8, 3, axis=3),
    "last ones": lambda x: x[..., -3:],
    "window": lambda x: lax.dynamic_slice_in_dim(x, 2, 3, axis=3),
    "window at the end": lambda x: lax.dynamic_slice_in_dim(x, 7, 3, axis=3),
    "gather": lambda x: gathered(x, "promise_in_bounds"),
    "gather, clipped": lambda x: gathered(x, "clip"),
    "take": lambda x: jnp.take(x, np.array([6, 1, 4]), axis=-1),
    "split": lambda x: jnp.split(x, [2, 5], axis=-1)[1],
    "roll": lambda x: jnp.roll(x, 1, -1)[..., :3],
}
EACH_PICK = pytest.mark.parametrize("pick", PICKS.values(), ids=PICKS)


class Part(nn.Module):
    """Some channels of what it takes, and a variable of its own or none."""

    pick: object
    gain: str

    @nn.compact
    def __call__(self, x):
        ones = nn.initializers.ones
        if self.gain == "one":
            return self.param("gain", ones, ()) * self.pick(x)
        if self.gain == "one a channel":
            return self.pick(self.param("gain", ones, (x.shape[-1],)) * x)
        return self.pick(x)


class Picking(nn.Module):
    pick: object
    gain: str = "none"

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(8, (3, 3), name="stem")(x))
        some = Part(self.pick, self.gain, name="part")(x)
        x = jnp.concatenate([some, nn.Conv(4, (1, 1), name="side")(x)], -1)
        return nn.Dense(3, name="head")(nn.relu(x).mean((1, 2)))


class PartNNX(nnx.Module):
    def __init__(self, pick):
        self.pick = pick
        self.gain = nnx.Param(jnp.ones(()))

    def __call__(self, x):
        return self.gain[...] * self.pick(x)


class PickingNNX(nnx.Module):
    def __init__(self, pick, rngs):
        self.stem = nnx.Conv(3, 8, (3, 3), rngs=rngs)
        self.part = PartNNX(pick)
        self.side = nnx.Conv(8, 4, (1, 1), rngs=rngs)
        self.head = nnx.Linear(7, 3, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.stem(x))
        x = jnp.concatenate([self.part(x), self.side(x)], -1)
        return self.head(nnx.relu(x).mean((1, 2)))


def by_function(pick):
    """The same as a function of params, which can give no channel its place back."""

    def net(params, x):
        x = jax.nn.relu(lax.conv(x.transpose(0, 3, 1, 2), params["stem"], (1, 1), "SAME"))
        x = pick(x.transpose(0, 2, 3, 1)).mean((1, 2))
        return x @ params["head"]

    return net


def dying(module, dead):
    """Variables under which these filters of the stem are zero on every image, and no other."""
    variables = prunable.random_variables(variable_shapes(module, SHAPE), 0)
    stem = variables["params"]["stem"]
    stem["bias"][:] = 2
    stem["kernel"][..., dead] = 0
    stem["bias"][dead] = -1
    return variables


def assert_same_answers(one, other):
    """On images that nothing was judged by."""
    images = prunable.images(1, SHAPE)
    wanted, got = (net.apply(variables, images) for net, variables in (one, other))
    np.testing.assert_allclose(got, wanted, atol=1e-5 * float(jnp.abs(wanted).max()))


@EACH_PICK
@pytest.mark.parametrize("dead", [[0], [3, 7]])
@pytest.mark.parametrize("gain", ["none", "one"])
@pytest.mark.one_in(27)
def test_a_layer_that_is_not_narrow_itself_picks_what_it_did(pick, gain, dead):
    module = Picking(pick, gain)
    variables = dying(module, dead)
    result = prune.prune(module, variables, [IMAGES], drop="proven")
    assert result.removed.get("stem") == dead
    assert result.certificate.proven
    assert_same_answers((module, variables), (result.module, result.variables))


@EACH_PICK
@pytest.mark.one_in(6)
def test_a_layer_that_is_narrow_itself_picks_what_it_did_or_is_named(pick):
    module = Picking(pick, "one a channel")
    variables = dying(module, [0, 6])
    result = prune.prune(module, variables, [IMAGES], drop="dead")
    named = any(why.startswith("stem") for why in result.kept_whole)
    assert result.removed.get("stem") == [0, 6] or named
    assert_same_answers((module, variables), (result.module, result.variables))


@pytest.mark.parametrize("name", ["slice", "window", "gather", "take", "split", "roll"])
@pytest.mark.one_in(3)
def test_another_pick_is_a_departure(name):
    """Counted from the first channel, which is gone."""
    pick = PICKS[name]
    module = Picking(pick, "one a channel")
    graph = prune.dependencies(module, SHAPE)
    removed = graph.select({"stem": [0]})
    smaller = cut(dying(module, [0]), graph, removed)
    fit = narrowed(module, smaller, graph, removed)
    assert departure(graph, removed, fit.trace, fit.held) is not None


@EACH_PICK
@pytest.mark.one_in(6)
def test_an_nnx_layer_picks_what_it_did(pick):
    module = PickingNNX(pick, nnx.Rngs(0))
    module.stem.bias[...] = 2 * jnp.ones(8).at[0].set(-1)
    module.stem.kernel[...] = module.stem.kernel[...].at[..., 0].set(0)
    result = prune.prune(module, [IMAGES], drop="dead")
    assert result.removed["stem"] == [0]
    images = prunable.images(1, SHAPE)
    np.testing.assert_allclose(result.module(images), module(images), atol=1e-5)


@EACH_PICK
@pytest.mark.parametrize("dead", [0, 5])
@pytest.mark.one_in(6)
def test_a_function_picks_what_it_did_or_is_named(pick, dead):
    rng = np.random.default_rng(0)
    params = {
        "stem": rng.normal(size=(8, 3, 3, 3)).astype(np.float32),
        "head": rng.normal(size=(3, 3)).astype(np.float32),
    }
    params["stem"][dead] = -1  # of images without a negative pixel it makes nothing
    net = by_function(pick)
    result = prune.prune(net, params, [IMAGES], drop="dead")
    images = prunable.images(1, SHAPE)
    wanted, got = net(params, images), result.module(result.variables, images)
    np.testing.assert_allclose(got, wanted, atol=1e-5 * float(jnp.abs(wanted).max()))
    assert result.removed or result.kept_whole


@pytest.mark.parametrize("dead", [2, 7])
def test_a_channel_whose_slice_alone_is_gone_is_still_proven(dead):
    class Rolled(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = jnp.roll(nn.relu(nn.Conv(8, (3, 3), name="stem")(x)), 1, -1)
            x = nn.relu(nn.Conv(6, (3, 3), name="next")(x))
            return nn.Dense(3, name="head")(x.mean((1, 2)))

    variables = dying(Rolled(), [dead])
    result = prune.prune(Rolled(), variables, [IMAGES], drop="proven")
    assert result.removed == {"stem": [dead]}
    assert result.certificate.proven


class Takes(nn.Module):
    """A layer of one weight for each array."""

    @nn.compact
    def __call__(self, x, other):
        def product(name, array):
            draw = nn.initializers.lecun_normal()
            return array @ self.param(name, draw, (array.shape[-1], 4))

        return product("one", x) + product("two", other)


class OtherMethod(nn.Module):
    @nn.compact
    def encode(self, x):
        draw = nn.initializers.lecun_normal()
        return x @ self.param("kernel", draw, (x.shape[-1], 4))


UNPLACED = {
    "by keyword": lambda a, b: nn.Conv(4, (1, 1), name="layer")(inputs=a),
    "as another array than its first": lambda a, b: Takes(name="layer")(b, a),
    "another method than __call__": lambda a, b: OtherMethod(name="layer").encode(a),
}


@pytest.mark.parametrize("way", UNPLACED)
def test_channels_that_a_layer_takes_elsewhere_are_left_whole_and_it_is_told(way):
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            left, right = jnp.split(nn.Conv(8, (3, 3), name="stem")(x), 2, axis=-1)
            taken = UNPLACED[way](left, right)
            return nn.Dense(3, name="head")(jnp.concatenate([taken, right], -1).mean((1, 2)))

    module = Net()
    variables = prunable.random_variables(variable_shapes(module, SHAPE), 0)
    enough = {"params": 10**6}
    result = prune.prune(module, variables, [IMAGES], budgets=enough, criterion="l1")
    reason = next(each for each in result.kept_whole if each.startswith("stem: "))
    assert "channels are picked by their place, and layer takes them" in reason
    assert way in reason


def test_a_table_that_is_added_on_loses_its_columns():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Conv(4, (3, 3), name="stem")(x)
            row = nn.Embed(3, 4, name="table")(jnp.arange(1))
            return nn.Dense(3, name="head")(nn.relu(x + row).mean((1, 2)))

    module = Net()
    variables = prunable.random_variables(variable_shapes(module, SHAPE), 0)
    result = prune.prune(module, variables, [IMAGES], filters={"stem": [1]})
    assert result.variables["params"]["table"]["embedding"].shape == (3, 3)
    assert result.certificate.departure is None
