"""Removal for real: the smaller net computes what the whole one does with channels at zero."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import prunable
import pytest
from flax import traverse_util
from hypothesis import given, settings
from hypothesis import strategies as st

from rice_jax import models, prune
from rice_jax.errors import UserError
from rice_jax.graph.trace import variable_shapes
from rice_jax.prune import surgery


def some_channels(graph, seed, share):
    """A random set of channels that leaves each group one at least."""
    rng = np.random.default_rng(seed)
    removed = rng.random(graph.channels) < share
    for group in np.flatnonzero(graph.sizes(removed) == 0):
        removed[rng.choice(np.flatnonzero(graph.group == group))] = False
    return removed


@pytest.mark.parametrize("name", prunable.NETS)
@pytest.mark.one_in(5)
def test_the_smaller_net_equals_the_whole_one_with_those_channels_at_zero(name):
    """After one round and, of what is left then, after another."""
    module = prunable.NETS[name]()
    graph = prune.dependencies(module, prunable.SHAPE)
    whole = prunable.silencer(module, graph)

    @settings(max_examples=1, database=None)
    @given(st.integers(0, 2**16), st.sampled_from([0.2, 0.5, 0.9]))
    def check(seed, share):
        variables, x = prunable.random_variables(whole.shapes, seed), prunable.images(seed)
        cut = surgery.remove(module, variables, graph, some_channels(graph, seed, share))
        assert_equal(cut, x, whole(variables, x, cut.removed))
        left = prune.dependencies(cut.module, prunable.SHAPE)
        again = some_channels(left, seed + 1, 0.4)
        twice = surgery.remove(cut.module, cut.variables, left, again)
        removed = {
            path: [
                *cut.removed.get(path, ()),
                *(cut.kept[path][index] for index in twice.removed.get(path, ())),
            ]
            for path in cut.kept
        }
        assert_equal(twice, x, whole(variables, x, removed))

    check()


def assert_equal(cut, x, wanted):
    got = prunable.compiled(cut.module.apply, cut.variables, x)(cut.variables, x)
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())


def remove(module, shape, filters, seed=0, **options):
    graph = prune.dependencies(module, shape)
    variables = prunable.random_variables(variable_shapes(module, shape), seed)
    return variables, surgery.remove(module, variables, graph, graph.select(filters), **options)


def tiny(**fields):
    return models.build("final", stages=((3,), (2,)), dense=4, **fields)


SMALL = (1, 8, 8, 3)


def test_kernels_biases_and_the_rows_that_read_them_are_cut_by_index():
    variables, cut = remove(tiny(), SMALL, {"conv1": [1], "dense": [0, 3]})
    before, after = variables["params"], cut.variables["params"]
    np.testing.assert_array_equal(after["conv1"]["kernel"], before["conv1"]["kernel"][..., [0, 2]])
    np.testing.assert_array_equal(after["conv1"]["bias"], before["conv1"]["bias"][[0, 2]])
    np.testing.assert_array_equal(after["conv2"]["kernel"], before["conv2"]["kernel"][:, :, [0, 2]])
    np.testing.assert_array_equal(after["dense"]["kernel"], before["dense"]["kernel"][:, [1, 2]])
    np.testing.assert_array_equal(after["head"]["kernel"], before["head"]["kernel"][[1, 2]])
    assert cut.removed == {"conv1": [1], "dense": [0, 3]}
    assert cut.kept == {
        "conv1": [0, 2],
        "conv2": [0, 1],
        "dense": [1, 2],
        "head": [0, 1, 2, 3, 4],
    }


def test_a_rebuilt_module_takes_the_same_variables():
    def rebuild(widths):
        assert widths == {"conv1": 2, "conv2": 2, "dense": 4, "head": 5}
        return models.build("final", stages=((2,), (2,)), dense=4)

    _, cut = remove(tiny(), SMALL, {"conv1": [0]}, rebuild=rebuild)
    _, narrowed = remove(tiny(), SMALL, {"conv1": [0]})
    x = prunable.images(0, SMALL)
    np.testing.assert_array_equal(
        cut.module.apply(cut.variables, x), narrowed.module.apply(narrowed.variables, x)
    )


def test_a_rebuilt_module_of_other_widths_is_refused():
    with pytest.raises(UserError, match=r"does not fit: params/conv1/bias should be \(2,\)"):
        remove(tiny(), SMALL, {"conv1": [0]}, rebuild=lambda widths: tiny())


def test_a_layer_never_loses_its_last_filter():
    with pytest.raises(UserError, match="conv2 would be left without a filter: keep at least one"):
        remove(tiny(), SMALL, {"conv2": [0, 1]})


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"head": [0]}, "filter 0 of head cannot be removed: it ends in the net's output"),
        ({"conv1": [3]}, "conv1 has filters 0 to 2, none is 3"),
        ({"conv1": [-1]}, "conv1 has filters 0 to 2, none is -1"),
        ({"conv1": 1}, "filters of conv1: give a list of their numbers, from 0, not 1"),
        ({"conv1": [1.5]}, "filters of conv1: give a list of their numbers"),
        ({"conv1": [True, False, True]}, "filters of conv1: give a list of their numbers"),
        ({"conv1": np.ones(3, bool)}, "filters of conv1: give a list of their numbers"),
        ({"conv1": "12"}, "filters of conv1: give a list of their numbers"),
        ({"conv9": [0]}, "there is no layer 'conv9' with filters; there are conv1, conv2, dense"),
    ],
)
def test_what_cannot_be_removed_is_named(filters, message):
    with pytest.raises(UserError, match=message):
        remove(tiny(), SMALL, filters)


class Compressed(nn.Module):
    """Layers whose widths are told by what they get, as in DenseNet's transitions."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(8, (3, 3), name="stem")(x))
        x = nn.relu(nn.Conv(x.shape[-1] // 2, (1, 1), name="half")(x))
        groups = x.shape[-1]
        x = nn.relu(nn.Conv(2 * groups, (3, 3), feature_group_count=groups, name="double")(x))
        return nn.Dense(3, name="head")(x.mean((1, 2)))


@pytest.mark.parametrize("filters", [{"stem": [0, 3, 7]}, {"stem": [1], "half": [0, 2]}])
def test_a_layer_keeps_its_width_where_its_input_loses_channels(filters):
    variables, cut = remove(Compressed(), SMALL, filters)
    half = 4 - len(filters.get("half", ()))
    widths = {"stem": 8 - len(filters["stem"]), "half": half, "double": 2 * half, "head": 3}
    assert {path: len(kept) for path, kept in cut.kept.items()} == widths
    x = prunable.images(0, SMALL)
    layers = {"stem": ("stem", 8), "half": ("half", 4), "double": ("double", 8)}
    whole = prunable.Silencer(Compressed(), layers, SMALL)
    np.testing.assert_allclose(
        cut.module.apply(cut.variables, x), whole(variables, x, cut.removed), atol=1e-5
    )


class Handmade(nn.Module):
    """Makes its own weight, of a width that no field tells."""

    @nn.compact
    def __call__(self, x):
        weight = self.param("weight", nn.initializers.normal(), (x.shape[-1], 4))
        return nn.Dense(2, name="head")(nn.relu(x @ weight).mean((1, 2)))


def test_a_layer_that_cannot_be_narrowed_asks_for_a_rebuilt_module():
    told = (
        r"no field 'features'; leave it whole with on_unknown='keep' .*or in Python pass rebuild="
    )
    with pytest.raises(UserError, match=told):
        remove(Handmade(), SMALL, {"": [1]})


class Beside(nn.Module):
    """Hand-made maps, alone or added to a layer's, and a layer that is cut by its field."""

    inside: bool
    added: bool

    @nn.compact
    def __call__(self, x):
        if self.inside:
            made = Product(name="made")(x)
        else:
            made = x @ self.param("weight", nn.initializers.normal(), (x.shape[-1], 4))
        if self.added:
            made += nn.Conv(4, (1, 1), name="tied")(x)
        x = nn.relu(nn.Conv(4, (1, 1), name="free")(nn.relu(made)))
        return nn.Dense(2, name="head")(x.mean((1, 2)))


class Product(nn.Module):
    @nn.compact
    def __call__(self, x):
        return x @ self.param("weight", nn.initializers.normal(), (x.shape[-1], 4))


@pytest.mark.parametrize("added", [False, True])
@pytest.mark.parametrize("inside", [False, True])
def test_a_layer_that_cannot_be_narrowed_is_left_whole_where_that_is_asked_for(inside, added):
    module, x = Beside(inside, added), jax.random.uniform(jax.random.key(1), (4, *SMALL[1:]))
    drawn = jax.tree.map(jnp.abs, module.init(jax.random.key(0), x))
    flat = traverse_util.flatten_dict(drawn)
    weight = ("params", "made", "weight") if inside else ("params", "weight")
    flat[weight] = flat[weight].at[:, 1].set(0)  # dead, as filter 2 of the other
    if added:
        flat["params", "tied", "kernel"] = flat["params", "tied", "kernel"].at[..., 1].set(0)
    flat["params", "free", "bias"] = flat["params", "free", "bias"].at[2].set(-1e3)
    variables = traverse_util.unflatten_dict(flat)
    with pytest.raises(UserError, match="cannot be set"):
        prune.prune(module, variables, [x], drop="dead")
    cut = prune.prune(module, variables, [x], drop="dead", on_unknown="keep")
    assert cut.removed == {"free": [2]}
    name = "made" if inside else "the outermost module"
    assert cut.kept_whole == [f"{name}: its width cannot be set"]
    np.testing.assert_allclose(
        cut.module.apply(cut.variables, x), module.apply(variables, x), atol=1e-5
    )


def test_a_narrowed_net_initialises_and_trains_as_any_other():
    module = prunable.Residual()
    _, cut = remove(module, prunable.SHAPE, {"stem": [0, 2], "down": [1], "excite": [4]})
    shapes = variable_shapes(cut.module, prunable.SHAPE, train=False)
    assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(np.shape, cut.variables)
    keys = {"dropout": jax.random.key(0)}

    def loss(params):
        variables = {**cut.variables, "params": params}
        logits, updates = cut.module.apply(
            variables, prunable.images(0), train=True, rngs=keys, mutable=["batch_stats"]
        )
        return logits.sum(), updates

    gradients, updates = jax.eval_shape(jax.grad(loss, has_aux=True), cut.variables["params"])
    assert jax.tree.map(jnp.shape, gradients) == jax.tree.map(np.shape, cut.variables["params"])
    assert updates["batch_stats"]["stem_norm"]["mean"].shape == (4,)
