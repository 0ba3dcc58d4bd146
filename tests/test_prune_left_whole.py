"""What `prune` says of layers that can lose no filter: on the terminal and in the report."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import prunable
import pytest
import whole_run

from rice_jax import nets, prune, report
from rice_jax.graph.trace import variable_shapes
from rice_jax.lighten.pruning import prune_run
from rice_jax.records import PruneRequest
from rice_jax.run import Run

FEWER = PruneRequest(budgets={"params": 420}, criterion="l1", on_unknown="keep")


class Split(nn.Module):
    """Channels that pass a norm before they are picked by their place."""

    classes: int = 5
    dtype: Any = None

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(nn.Conv(6, (3, 3), name="stem")(x))
        x = nn.BatchNorm(use_running_average=not train)(nn.Conv(4, (1, 1), name="wide")(x))
        left, right = jnp.split(x, 2, axis=-1)
        x = nn.relu(nn.Conv(6, (3, 3), name="last")(left * right))
        return nn.Dense(self.classes, name="head")(x.mean((1, 2)))


class Sorted(nn.Module):
    """Channels whose order is that of their values."""

    classes: int = 5
    dtype: Any = None

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(nn.Conv(12, (3, 3), name="stem")(x))
        x = jnp.sort(nn.Conv(8, (1, 1), name="wide")(x), axis=-1)
        return nn.Dense(self.classes, name="head")(x.mean((1, 2)))


class Plain(nn.Module):
    """Nothing is in the way."""

    classes: int = 5
    dtype: Any = None

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(nn.Conv(12, (3, 3), name="stem")(x))
        x = nn.relu(nn.Conv(8, (1, 1), name="wide")(x))
        return nn.Dense(self.classes, name="head")(x.mean((1, 2)))


@pytest.mark.parametrize(("net", "whole"), [(Split, ["wide"]), (Sorted, ["wide"]), (Plain, [])])
@pytest.mark.one_in(2)
@pytest.mark.usefixtures("drawn_small")
def test_layers_left_whole_are_told_with_the_reason(net, whole, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(nets, "_OWN", {})
    monkeypatch.setattr("rice_jax.stages.run_stages", lambda *args: None)
    config, run = whole_run.of_ones_own(net, whole_run.settings(tmp_path), tmp_path / "run")
    out = Run(tmp_path / "less")
    prune_run(FEWER, config, run, out)
    report.write(out)

    printed = capsys.readouterr().out.splitlines()
    told = [line for line in printed if line.startswith("left whole: ")]
    reasons = [
        reason for step in out.read_json("prune.json")["steps"] for reason in step["kept_whole"]
    ]
    assert told == [f"left whole: {reason}" for reason in reasons]
    assert [reason.partition(": ")[0] for reason in reasons] == whole
    page = (out.path / "report.md").read_text()
    assert ("had to stay whole" in page) == bool(whole)
    assert all(f"- {path}: " in page for path in whole)


@pytest.mark.parametrize("drop", ["dead", "proven"])
@pytest.mark.usefixtures("drawn_small")
def test_operations_behind_which_nothing_is_proven_are_told(drop, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(nets, "_OWN", {})
    monkeypatch.setattr("rice_jax.stages.run_stages", lambda *args: None)
    config, run = whole_run.of_ones_own(Sorted, whole_run.settings(tmp_path), tmp_path / "run")
    out = Run(tmp_path / "less")
    prune_run(PruneRequest(drop=drop, on_unknown="keep"), config, run, out)
    report.write(out)
    told = "nothing is proven behind sort in the module itself"
    assert (told in capsys.readouterr().out.splitlines()) == (drop == "proven")
    page = (out.path / "report.md").read_text()
    assert ("- sort in the module itself\n" in page) == (drop == "proven")


class Idle(nn.Module):
    """A layer, and the partner of a sum, that no image wakes."""

    classes: int = 5
    dtype: Any = None

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(nn.Conv(2, (3, 3), name="stem")(x))
        x = x + nn.relu(nn.Conv(2, (3, 3), name="partner")(x) - 1e3)
        idle = nn.relu(nn.Conv(3, (1, 1), name="idle")(x) - 1e3)
        x = jnp.concatenate([x, nn.Conv(1, (1, 1), name="last")(idle)], -1)
        return nn.Dense(self.classes, name="head")(x.mean((1, 2)))


@pytest.mark.usefixtures("drawn_small")
def test_filters_that_never_change_but_stay_are_told(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(nets, "_OWN", {})
    monkeypatch.setattr("rice_jax.stages.run_stages", lambda *args: None)
    config, run = whole_run.of_ones_own(Idle, whole_run.settings(tmp_path), tmp_path / "run")
    out = Run(tmp_path / "less")
    prune_run(PruneRequest(drop="dead"), config, run, out)
    report.write(out)
    told = [
        "idle: 0: the layer would be empty",
        "last: 0: the layer would be empty",
        "partner: 0, 1: what they would go with changes, or is left whole",
    ]
    printed = capsys.readouterr().out.splitlines()
    lines = [line for line in printed if line.startswith("never changes but stays: ")]
    assert lines == [f"never changes but stays: {each}" for each in told]
    assert "\n".join(f"- {each}" for each in told) in (out.path / "report.md").read_text()


def shuffled(x):
    """Maps of a quarter of the channels, twice as high and as wide."""
    images, height, width, channels = x.shape
    x = x.reshape(images, height, width, 2, 2, channels // 4).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(images, 2 * height, 2 * width, channels // 4)


class Tied(nn.Module):
    """Filters of the layer 'first' that go only with others."""

    function: Callable

    @nn.compact
    def __call__(self, x):
        x = self.function(nn.relu(nn.Conv(8, (3, 3), name="first")(x)))
        return nn.Dense(2)(nn.relu(nn.Conv(3, (1, 1), name="last")(x)).mean((1, 2)))


@pytest.mark.parametrize(
    ("function", "path", "drop"),
    [
        (nn.relu, "", "dead"),
        (shuffled, "first", "dead"),
        (shuffled, "first", "proven"),
        (lambda x: nn.Conv(8, (3, 3), feature_group_count=2)(x), "first", "proven"),
        (lambda x: nn.Conv(8, (3, 3), feature_group_count=2, name="then")(x), "then", "dead"),
        (lambda x: x + nn.relu(nn.Conv(8, (1, 1), name="then")(x)), "first", "dead"),
        (lambda x: x + nn.relu(nn.Conv(8, (1, 1), name="then")(x)), "then", "proven"),
        (lambda x: nn.LayerNorm()(x), "first", "dead"),  # is left whole
    ],
)
@pytest.mark.one_in(2)
def test_dead_filters_that_go_only_with_others_are_told(function, path, drop):
    """Without a path the one that is dead goes."""
    dead = path or "first"
    shape = (2, 8, 8, 3)
    variables = prunable.random_variables(variable_shapes(Tied(function), shape), 0)
    variables = jax.tree.map(lambda a: np.abs(a) + 0.1, variables)
    variables["params"][dead]["kernel"][..., 5] = 0
    variables["params"][dead]["bias"][5] = -1
    images = prunable.images(0, shape)
    result = prune.prune(Tied(function), variables, [images], drop=drop, on_unknown="keep")
    assert result.removed == ({} if path else {dead: [5]})
    assert result.tied == ({path: [5]} if path else {})
    assert result.to_json()["tied"] == result.tied


class TiedUnits(nn.Module):
    """Units of dense layers that go only with others."""

    function: Callable

    @nn.compact
    def __call__(self, x):
        x = self.function(nn.relu(nn.Dense(8, name="first")(x.mean((1, 2)))))
        return nn.Dense(2, name="head")(x)


class KernelFirst(nn.Module):
    """A dense layer whose kernel is multiplied from the left."""

    @nn.compact
    def __call__(self, x):
        kernel = self.param("kernel", nn.initializers.normal(), (x.shape[-1], 8))
        bias = self.param("bias", nn.initializers.zeros, (8,))
        return jnp.einsum("io,ni->on", kernel, x).T + bias


@pytest.mark.parametrize(
    ("function", "path", "drop"),
    [
        (nn.relu, "", "dead"),
        (lambda x: x + nn.relu(nn.Dense(8, name="then")(x)), "first", "proven"),
        (lambda x: x + nn.relu(nn.Dense(8, name="then")(x)), "then", "dead"),
        (lambda x: x * nn.sigmoid(nn.Dense(8, name="then")(x)), "then", "proven"),
        (lambda x: x + nn.relu(KernelFirst(name="then")(x)), "then", "dead"),
        (lambda x: x.reshape(-1, 4, 2).max(-1), "first", "dead"),
        (lambda x: nn.LayerNorm()(x), "first", "proven"),  # is left whole
    ],
)
@pytest.mark.one_in(2)
def test_dead_units_that_go_only_with_others_are_told(function, path, drop):
    """Without a path the one that is dead goes."""
    dead = path or "first"
    shape = (2, 4, 4, 3)
    net = TiedUnits(function)
    variables = prunable.random_variables(variable_shapes(net, shape), 0)
    variables = jax.tree.map(lambda a: np.abs(a) + 0.1, variables)
    variables["params"][dead]["kernel"][..., 5] = 0
    variables["params"][dead]["bias"][5] = -1
    result = prune.prune(net, variables, [prunable.images(0, shape)], drop=drop, on_unknown="keep")
    assert result.removed == ({} if path else {dead: [5]})
    assert result.tied == ({path: [5]} if path else {})


class Logits(nn.Module):
    """A net whose last layer `last` makes, and what becomes of its three logits."""

    last: Callable
    end: Callable

    @nn.compact
    def __call__(self, x):
        return self.end(self.last(x))


@pytest.mark.parametrize(
    "last",
    [
        lambda x: nn.Dense(3, name="head")(x.mean((1, 2))),
        lambda x: nn.Conv(3, (1, 1), name="head")(x).mean((1, 2)),
    ],
)
@pytest.mark.parametrize(
    ("end", "tied"),
    [
        (lambda x: x, False),
        (nn.softmax, False),
        (lambda x: nn.log_softmax(x / 4), False),
        (lambda x: 30 * jnp.tanh(x), False),
        (lambda x: x + nn.Dense(3)(x), True),  # what both make is the net's own
        (lambda x: nn.Dense(2)(nn.LayerNorm()(x)), True),
    ],
)
@pytest.mark.one_in(2)
def test_a_logit_that_never_changes_is_the_nets_own_whatever_is_made_of_it(last, end, tied):
    """It goes with nothing."""
    shape = (2, 4, 4, 3)
    net = Logits(last, end)
    variables = prunable.random_variables(variable_shapes(net, shape), 0)
    variables["params"]["head"]["kernel"][..., 1] = 0
    result = prune.prune(
        net, variables, [prunable.images(0, shape)], drop="dead", on_unknown="keep"
    )
    assert result.removed == {}
    assert result.tied == ({"head": [1]} if tied else {})


class Block(nn.Module):
    """Two convolutions, as a layer of a loop or as a net of several at once."""

    @nn.compact
    def __call__(self, x, _=None):
        y = nn.relu(nn.Conv(3, (3, 3), name="inner")(x))
        return nn.Conv(x.shape[-1], (3, 3), name="outer")(y), None


class Within(nn.Module):
    """A convolution, then blocks by a transformation of Flax's, then another convolution."""

    transform: str

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (3, 3), name="stem")(x))
        apart = {"variable_axes": {"params": 0}, "split_rngs": {"params": True}}
        match self.transform:
            case "scan":
                x, _ = nn.scan(Block, length=2, **apart)(name="blocks")(x, None)
            case "vmap":
                x = nn.vmap(Block, in_axes=None, axis_size=2, **apart)(name="blocks")(x)[0].mean(0)
            case "remat":
                x, _ = nn.remat(Block)(name="blocks")(x)
        return nn.Dense(2, name="head")(nn.Conv(3, (3, 3), name="last")(x).mean((1, 2)))


@pytest.mark.parametrize(
    ("transform", "whole"),
    [
        ("scan", {"stem", "blocks/inner", "blocks/outer"}),
        ("vmap", {"stem", "blocks/inner", "blocks/outer"}),
        ("remat", set()),
    ],
)
def test_convolutions_within_loops_and_ensembles_are_told_too(transform, whole):
    net, shape = Within(transform), (2, 8, 8, 3)
    variables = prunable.random_variables(variable_shapes(net, shape), 1)
    images = np.random.default_rng(0).random(shape, np.float32)
    gone = {"last": [0]}
    pruned = prune.prune(net, variables, [images], filters=gone, on_unknown="keep")
    assert pruned.removed == gone
    assert {reason.partition(": ")[0] for reason in pruned.kept_whole} == whole


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.WeightNorm(nn.Conv(4, (3, 3), name="first")),
        lambda: nn.remat(nn.Conv)(4, (3, 3), name="first"),
    ],
)
def test_a_layer_in_a_wrapper_is_cut_where_the_outermost_module_has_a_matrix(make):
    class Matrix(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.relu(nn.Conv(4, (3, 3), name="second")(nn.relu(make()(x))))
            return x.mean((1, 2)) @ self.param("matrix", nn.initializers.normal(), (4, 3))

    shape = (2, 8, 8, 3)
    variables = prunable.random_variables(variable_shapes(Matrix(), shape), 0)
    images = prunable.images(0, shape)
    result = prune.prune(Matrix(), variables, [images], filters={"first": [1]})
    assert result.removed == {"first": [1]}
    assert result.module.apply(result.variables, images).shape == (2, 3)


class Wrapped(nn.Dense):
    """A dense layer behind a block that is recomputed."""

    @nn.compact
    def __call__(self, x):
        x, _ = nn.remat(Block)(name="block")(x)
        return super().__call__(x.mean((1, 2)))


def test_the_width_of_an_outermost_layer_is_none_of_a_module_in_a_wrapper():
    shape = (2, 8, 8, 3)
    variables = prunable.random_variables(variable_shapes(Wrapped(2), shape), 0)
    images = prunable.images(0, shape)
    result = prune.prune(Wrapped(2), variables, [images], filters={"block/inner": [1]})
    assert result.removed == {"block/inner": [1]}
    assert result.module.apply(result.variables, images).shape == (2, 2)
