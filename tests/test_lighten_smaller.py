"""The eight nets' configurations as pruning changes them."""

import jax
import numpy as np
import prunable
import pytest

from rice_jax import config as configuration
from rice_jax import models, train
from rice_jax.errors import UserError
from rice_jax.graph.trace import trace, variable_shapes
from rice_jax.lighten import smaller


def tiny(name):
    config = configuration.default(name)
    with config.unlocked():
        config.model.update(prunable.WIDTHS[name])
        config.data.image_size = 32
    return config


def own_widths(config):
    layers = trace(train.build(config), (1, 32, 32, 3)).layers
    kernels = {path: layer.params.get("kernel") for path, layer in layers.items()}
    return {path: shape[-1] for path, shape in kernels.items() if shape}


def with_widths(config, given):
    return smaller.configured(config, train.build(config).with_widths(given))


def params_of(config):
    shapes = variable_shapes(train.build(config), (1, 32, 32, 3))
    return prunable.random_variables(shapes, 0)["params"]


@pytest.mark.parametrize("name", models.NETS)
def test_widths_by_layer_are_the_configuration(name):
    config = tiny(name)
    given = {path: width + 1 for path, width in own_widths(config).items()}
    given["head"] = 5
    changed = with_widths(config, given)
    assert own_widths(changed) == given
    assert changed.model.weights == ""


def test_a_branch_without_a_filter_is_left_out():
    config = tiny("googlenet")
    given, optional = own_widths(config), train.build(config).optional()
    gone = ("inception4a/branch2/reduce", "inception4a/branch2/conv")
    assert gone[1] in optional
    assert not any(path.endswith("branch1/conv") for path in optional)
    left = {path: width for path, width in given.items() if path not in gone}
    changed = with_widths(config, {**left, gone[0]: 0, gone[1]: 0})
    assert own_widths(changed) == left


def test_what_follows_a_dropped_layer_moves_up_with_its_weights():
    config = tiny("vgg_custom")  # 3 3 | 4 4 | 3 3 3
    params = params_of(config)
    with config.unlocked():
        config.train.frozen = ("conv1", "conv4", "conv5")
    made, left, anew, origin = smaller.without(config, params, ["conv4"])
    assert made.model.stages == ((3, 3), (4,), (3, 3, 3))
    assert origin["conv4"] == "conv5"
    assert anew == []
    assert made.train.frozen == ("conv1", "conv4")
    np.testing.assert_array_equal(left["conv4"]["kernel"], params["conv5"]["kernel"])
    np.testing.assert_array_equal(left["head"]["kernel"], params["head"]["kernel"])


def test_a_layer_that_no_longer_fits_starts_anew():
    config = tiny("vgg16")
    params = params_of(config)
    tail = [f"conv{number}" for number in range(11, 14)]
    made, left, anew, _ = smaller.without(config, params, tail)
    assert made.model.stages == ((3, 3), (2, 2), (3, 3, 3), (4, 4, 4))
    assert anew == ["dense"]  # it read 3 channels, now 4
    np.testing.assert_array_equal(left["conv10"]["kernel"], params["conv10"]["kernel"])
    expected = variable_shapes(train.build(made), (1, 32, 32, 3))["params"]
    assert jax.tree.map(np.shape, left) == jax.tree.map(lambda leaf: leaf.shape, expected)


def test_inceptions_are_dropped_and_renamed():
    config = tiny("googlenet")
    params = params_of(config)
    made, left, _, origin = smaller.without(config, params, ["inception4a"])
    assert [len(stage) for stage in made.model.inceptions] == [1, 1, 1]
    assert origin["inception4a/branch3/reduce"] == "inception4b/branch3/reduce"
    moved, before = left["inception4a"]["branch3"], params["inception4b"]["branch3"]
    np.testing.assert_array_equal(moved["conv"]["kernel"], before["conv"]["kernel"])


@pytest.mark.parametrize(
    ("name", "field", "gone"),
    [
        ("vgg_custom", "stages", ["conv3", "conv4"]),
        ("googlenet", "inceptions", ["inception4a", "inception4b"]),
        ("googlenet", "inceptions", ["inception5a"]),
        ("googlenet_light", "inceptions", ["inception3a", "inception5a"]),
    ],
)
def test_a_stage_may_lose_all_its_blocks(name, field, gone):
    config = tiny(name)
    made, _, _, origin = smaller.without(config, params_of(config), gone)
    left = [block for block in train.build(config).blocks() if block not in gone]
    stages = made.model[field]
    assert sum(map(len, stages)) == len(left)
    assert stages[-1]
    blocks = [path.split("/")[0] for path in origin.values() if path.startswith(("conv4", "inc"))]
    assert not set(blocks) & set(gone)
    configuration.check(made)


def test_a_net_without_a_block_that_may_go_loses_none():
    config = tiny("micro")
    with config.unlocked():
        config.model.convolutions = (3,)
    with pytest.raises(UserError, match="names every block: keep at least one"):
        smaller.without(config, {}, ["conv1"])


def test_mistakes_are_named():
    config = tiny("cnn_light")
    with pytest.raises(UserError, match="--drop_layers=dense: cnn_light can drop conv1, conv2"):
        smaller.without(config, {}, ["dense"])
    with pytest.raises(UserError, match="names every block: keep at least one"):
        smaller.without(config, {}, ["conv1", "conv2"])
