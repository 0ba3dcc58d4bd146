"""What never changes goes at no change to the logits; what can't go exactly stays, and is named."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import prunable
import pytest
from flax import traverse_util
from jax import lax

from rice_jax import models, prune
from rice_jax.errors import UserError
from rice_jax.graph.trace import variable_shapes

SHAPE = (4, 16, 16, 3)
INCEPTION = (3, 2, 4, 2, 2, 3)


def googlenet(first=INCEPTION):
    return models.build("googlenet", stem=(3, 2, 4), inceptions=((first, INCEPTION),))


def small():
    return models.build("final", stages=((3,), (2,)), dense=4)


def labelled(seed=0, shape=SHAPE):
    x = prunable.images(seed, shape)
    return [(x[:2], np.zeros(2, int)), (x[2:], np.zeros(2, int))]


def variables_of(module, seed=0, shape=SHAPE):
    """Variables under which no filter of these small nets is dead."""
    variables = prunable.random_variables(variable_shapes(module, shape), seed)
    return jax.tree.map(lambda a: np.abs(a) if a.ndim == 4 else np.abs(a) * 0.1, variables)


def kill(variables, path, filters):
    """Biases so low that no image in [0, 1] wakes these filters."""
    layer = variables["params"]
    for name in path.split("/"):
        layer = layer[name]
    layer["bias"][list(filters)] = -1e3


@pytest.mark.parametrize("drop", ["dead", "proven"])
def test_dead_filters_go_at_no_change_to_the_logits(drop):
    module = small()
    variables = variables_of(module)
    killed = {"conv1": [1], "conv2": [0]}
    for path, filters in killed.items():
        kill(variables, path, filters)
    result = prune.prune(module, variables, labelled(), drop=drop)
    assert result.removed == killed
    assert not result.spared
    assert not result.refused
    assert result.certificate.max_abs_logit_difference < 1e-5
    assert result.certificate.images == 4
    assert result.certificate.changed_predictions == 0
    assert result.certificate.proven == (drop == "proven")
    assert result.after["filters"] == result.before["filters"] - 2


def test_a_filter_that_these_images_do_not_wake_is_not_proven_dead():
    module = small()
    variables = variables_of(module)
    variables["params"]["conv1"]["kernel"][..., 0] = -1.0
    variables["params"]["conv1"]["bias"][0] = 0.5  # a black image wakes it
    bright = [(np.ones(SHAPE, np.float32), np.zeros(4, int))]
    assert prune.prune(module, variables, bright, drop="dead").removed["conv1"] == [0]
    assert "conv1" not in prune.prune(module, variables, bright, drop="proven").removed


class Through(nn.Module):
    """A function between two convolutions, each with a dead filter."""

    function: Callable

    @nn.compact
    def __call__(self, x):
        x = self.function(nn.relu(nn.Conv(3, (3, 3), name="before")(x)))
        return nn.Dense(2)(nn.relu(nn.Conv(3, (1, 1), name="after")(x)).mean((1, 2)))


@pytest.mark.parametrize(
    ("function", "unbounded"),
    [
        (nn.relu, None),
        (lambda x: x - jnp.sort(x, axis=1)[:, :1], "sort"),  # has no rule
        (lambda x: x / (x - x.mean((1, 2), keepdims=True) + 1e-3), "div"),  # by what may be 0
        (lambda x: nn.sigmoid(jnp.exp(99 * x)), "exp"),  # beyond float32
    ],
)
def test_operations_behind_which_nothing_is_proven_are_named(function, unbounded):
    module = Through(function)
    variables = variables_of(module)
    kill(variables, "before", [1])
    variables["params"]["after"]["kernel"] *= 0
    kill(variables, "after", [2])
    result = prune.prune(module, variables, labelled(), drop="proven", on_unknown="keep")
    assert ("after" in result.removed) == (unbounded is None)
    assert list(result.unbounded) == ([f"{unbounded} in the module itself"] if unbounded else [])
    assert result.to_json()["unbounded"] == result.unbounded
    measured = prune.prune(module, variables, labelled(), drop="dead", on_unknown="keep")
    assert not measured.unbounded


def rebuild(widths):
    def inception(name):
        parts = "branch1/conv branch2/reduce branch2/conv branch3/reduce branch3/conv branch4/conv"
        return tuple(widths[f"{name}/{part}"] for part in parts.split())

    stem = tuple(widths[f"conv{number}"] for number in (1, 2, 3))
    return models.build(
        "googlenet",
        stem=stem,
        inceptions=((inception("inception3a"), inception("inception3b")),),
    )


class Branches(nn.Module):
    """Two branches side by side, read by a pool and by a convolution; one of them may be absent."""

    one: int = 3
    reduce: int = 2
    wide: int = 4

    @nn.compact
    def __call__(self, x):
        parts = [nn.relu(nn.Conv(self.one, (1, 1), name="one")(x))]
        if self.wide:
            y = nn.relu(nn.Conv(self.reduce, (1, 1), name="reduce")(x))
            parts.append(nn.relu(nn.Conv(self.wide, (3, 3), name="wide")(y)))
        x = nn.max_pool(jnp.concatenate(parts, axis=-1), (3, 3), padding="SAME")
        x = nn.relu(nn.Conv(3, (1, 1), name="after")(x))
        return nn.Dense(2, name="head")(x.mean((1, 2)))


def without_branches(widths):
    return Branches(*(widths[name] for name in ("one", "reduce", "wide")))


@pytest.mark.parametrize(
    ("module", "layers", "rebuilt"),
    [
        (Branches(), ("reduce", "wide"), without_branches),
        pytest.param(
            googlenet(),
            ("inception3a/branch2/reduce", "inception3a/branch2/conv"),
            rebuild,
            marks=pytest.mark.thorough,
        ),
    ],
)
def test_a_branch_whose_reduce_filters_are_all_dead_is_folded_away(module, layers, rebuilt):
    """Its convolution then says its bias everywhere, which the next layers' biases take over."""
    reduce, last = layers
    variables = variables_of(module)
    kill(variables, reduce, [0, 1])
    flat = traverse_util.flatten_dict(variables["params"], sep="/")
    assert (flat[f"{last}/bias"] > 0).all()

    result = prune.prune(module, variables, labelled(), drop="proven")
    assert {path: result.kept[path] for path in layers} == {reduce: [0], last: [0]}
    assert result.spared == {reduce: [0], last: [0]}  # a layer can't be empty,
    assert result.certificate.max_abs_logit_difference < 1e-5

    whole = prune.prune(  # but a branch can be left out.
        module, variables, labelled(), drop="proven", rebuild=rebuilt, optional=[last]
    )
    left = traverse_util.flatten_dict(whole.variables["params"], sep="/")
    assert not [path for path in left if path.startswith((reduce, last))]
    assert whole.removed[last] == [0, 1, 2, 3]
    assert whole.certificate.max_abs_logit_difference < 1e-5


def test_a_constant_that_meets_padding_stays():
    module = small()
    variables = variables_of(module)
    variables["params"]["conv1"]["kernel"][..., 1] = 0
    variables["params"]["conv1"]["bias"][1] = 0.5
    result = prune.prune(module, variables, labelled(), drop="proven")
    assert result.refused == {"conv1": [1]}
    assert not result.removed


def test_a_constant_before_an_average_is_folded():
    module = small()
    variables = variables_of(module)
    variables["params"]["conv2"]["kernel"][..., 1] = 0
    variables["params"]["conv2"]["bias"][1] = 0.5
    result = prune.prune(module, variables, labelled(), drop="dead")
    assert result.removed == {"conv2": [1]}
    before, after = variables["params"]["dense"], result.variables["params"]["dense"]
    np.testing.assert_allclose(after["bias"], before["bias"] + 0.5 * before["kernel"][1], rtol=1e-6)
    assert result.certificate.max_abs_logit_difference < 1e-5


class Normed(nn.Module):
    """A constant map read by a convolution without a bias, then BatchNorm."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(3, (3, 3), name="first")(x))
        x = nn.Conv(2, (1, 1), use_bias=False, name="second")(x)
        x = nn.relu(nn.BatchNorm(use_running_average=True, name="norm")(x))
        return nn.Dense(2, name="head")(x.mean((1, 2)))


def test_a_constant_goes_into_the_mean_of_a_batch_norm():
    module = Normed()
    variables = variables_of(module)
    variables["params"]["first"]["kernel"][..., 2] = 0
    result = prune.prune(module, variables, labelled(), drop="proven")
    assert result.removed == {"first": [2]}
    assert result.certificate.max_abs_logit_difference < 1e-5
    constant = variables["params"]["first"]["bias"][2]
    shift = constant * variables["params"]["second"]["kernel"][0, 0, 2]
    means = (net["batch_stats"]["norm"]["mean"] for net in (variables, result.variables))
    before, after = means
    np.testing.assert_allclose(after, before - shift, rtol=1e-5)


def test_a_net_of_dead_filters_keeps_one_in_each_layer():
    module = small()
    variables = variables_of(module)
    kill(variables, "conv2", [0, 1])
    result = prune.prune(module, variables, labelled(), drop="proven")
    assert result.kept["conv2"] == [0]
    assert result.spared["conv2"] == [0]
    assert result.certificate.max_abs_logit_difference < 1e-5


def test_dead_filters_and_a_budget_in_one_go():
    module = small()
    variables = variables_of(module)
    kill(variables, "conv1", [1])
    result = prune.prune(
        module, variables, labelled(), drop="dead", budgets={"params": 100}, criterion="l1"
    )
    assert 1 in result.removed["conv1"]
    under = 100 - result.after["params"]
    assert result.budgets["params"] == {"asked": 100, "met": 100 - under, "under": under}
    assert under >= 0
    assert not result.certificate.proven


def test_mistakes_are_named():
    module = small()
    variables = variables_of(module)
    with pytest.raises(UserError, match="nothing says what to remove"):
        prune.prune(module, variables, labelled())
    with pytest.raises(UserError, match="drop='black': there are dead, proven"):
        prune.prune(module, variables, labelled(), drop="black")
    with pytest.raises(UserError, match="no images"):
        prune.prune(module, variables, [], drop="dead")


class Faint(nn.Module):
    """Filters of 1 x 1 that say little, which the next layer makes much of."""

    rectified: bool = True

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(3, (1, 1), name="faint")(x)
        x = nn.relu(x) if self.rectified else x
        x = nn.Conv(2, (1, 1), name="loud")(x)
        return nn.Dense(2, name="head")(nn.relu(x).mean((1, 2)))


@pytest.mark.parametrize(("rectified", "pixels"), [(True, (0.0, 1.0)), (False, (-0.5, 0.5))])
def test_what_an_image_changes_is_not_constant_however_faint_it_is(rectified, pixels):
    """Here the images alone would not tell: they are what the bounds have in their middle."""
    module, shape = Faint(rectified), (1, 4, 4, 1)
    variables = variables_of(module, shape=shape)
    layer = variables["params"]["faint"]
    layer["kernel"][..., :] = np.float32([9e-7, 0, 9e-7])
    layer["bias"][:] = np.float32([0, 4e-7, 0])
    variables["params"]["loud"]["kernel"] *= np.float32(1e6)
    grey = [np.full(shape, sum(pixels) / 2, np.float32)]
    result = prune.prune(module, variables, grey, drop="proven", pixels=pixels)
    assert result.removed == {"faint": [1]}
    assert result.certificate.proven
    other = prunable.images(1, shape) * (pixels[1] - pixels[0]) + pixels[0]
    np.testing.assert_allclose(
        result.module.apply(result.variables, other), module.apply(variables, other), rtol=1e-5
    )


MIX = np.float32([[0.6, -0.2, 0.1], [0.3, 0.5, -0.4], [-0.1, 0.2, 0.7]])
NUMBERS = ("NHWC", "HWIO", "NHWC")


@pytest.mark.parametrize(
    "fixed",
    [
        lambda x: x @ MIX,
        lambda x: jnp.einsum("cd,nhwd->nhwc", MIX, x),
        lambda x: lax.conv_general_dilated(
            x, MIX[None, None], (1, 1), "SAME", dimension_numbers=NUMBERS
        ),
        jax.checkpoint(lambda x: jnp.tanh(x) @ MIX),
    ],
    ids=["matrix", "matrix first", "convolution", "remat"],
)
@pytest.mark.parametrize("drop", ["dead", "proven"])
@pytest.mark.one_in(3)
def test_dead_filters_are_found_beside_numbers_that_the_code_has_written_in(fixed, drop):
    class Mixed(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.relu(nn.Conv(5, (3, 3), name="conv")(fixed(x)))
            return nn.Dense(2, name="head")(x.mean((1, 2)))

    x = np.random.default_rng(0).random((4, 6, 6, 3), np.float32)
    module = Mixed()
    variables = module.init(jax.random.key(0), x)
    conv = variables["params"]["conv"]
    conv["kernel"] = conv["kernel"].at[..., [1, 3]].set(0)
    conv["bias"] = jnp.float32([0.5, -1, 0.5, -2, 0.5])
    pruned = prune.prune(module, variables, [x], drop=drop)
    assert pruned.removed == {"conv": [1, 3]}
    wanted = module.apply(variables, x)
    np.testing.assert_allclose(pruned.module.apply(pruned.variables, x), wanted, rtol=1e-5)


class Pooled(nn.Module):
    """A convolution, whose maps the code averages by a kernel of its own, and another."""

    kernel: Callable[[int], Any]

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(6, (3, 3), name="conv")(x))
        kernel = self.kernel(x.shape[-1])
        x = lax.conv_general_dilated(
            x, kernel, (2, 2), "SAME", feature_group_count=x.shape[-1], dimension_numbers=NUMBERS
        )
        return nn.Dense(2, name="head")(nn.Conv(4, (3, 3), name="next")(x).mean((1, 2)))


BOX = np.full((2, 2, 1, 1), 0.25, np.float32)


@pytest.mark.parametrize(
    "kernel",
    [
        lambda channels: jnp.full((2, 2, 1, channels), 0.25),
        lambda channels: np.repeat(BOX, channels, axis=3),
        lambda channels: jnp.tile(BOX, (1, 1, 1, channels)),
        lambda channels: np.repeat(BOX, 6, axis=3),  # whatever is left: the places stay
    ],
    ids=["of one number", "of NumPy", "tiled", "of a written width"],
)
@pytest.mark.one_in(2)
def test_what_is_read_through_a_kernel_of_the_codes_own_is_not_dead(kernel):
    module, shape = Pooled(kernel), (2, 6, 6, 3)
    variables, images = variables_of(module, shape=shape), prunable.images(0, shape)
    kill(variables, "conv", [1, 4])
    pruned = prune.prune(module, variables, [images], drop="dead")
    assert pruned.removed == {"conv": [1, 4]}
    wanted = module.apply(variables, images)
    np.testing.assert_allclose(pruned.module.apply(pruned.variables, images), wanted, rtol=1e-5)
