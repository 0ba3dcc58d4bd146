"""The eight nets' configurations as pruning changes them."""

import jax
import numpy as np
import prunable
import pytest

from rice_jax import config as configuration
from rice_jax import models, train
from rice_jax.errors import UserError
from rice_jax.graph.trace import trace, variable_shapes
from rice_jax.lighten import widths


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


def params_of(config):
    shapes = variable_shapes(train.build(config), (1, 32, 32, 3))
    return prunable.random_variables(shapes, 0)["params"]


@pytest.mark.parametrize("name", models.NETS)
def test_widths_by_layer_are_the_configuration(name):
    config = tiny(name)
    given = {path: width + 1 for path, width in own_widths(config).items()}
    given["head"] = 5
    changed = widths.with_widths(config, given)
    assert own_widths(changed) == given
    assert changed.model.weights == ""


def test_a_branch_without_a_filter_is_left_out():
    config = tiny("googlenet")
    given = own_widths(config)
    gone = ("inception4a/branch2/reduce", "inception4a/branch2/conv")
    assert gone[1] in widths.optional(config)
    assert not any(path.endswith("branch1/conv") for path in widths.optional(config))
    left = {path: width for path, width in given.items() if path not in gone}
    changed = widths.with_widths(config, {**left, gone[0]: 0, gone[1]: 0})
    assert own_widths(changed) == left


def test_what_follows_a_dropped_layer_moves_up_with_its_weights():
    config = tiny("vgg_custom")  # 3 3 | 4 4 | 3 3 3
    params = params_of(config)
    with config.unlocked():
        config.train.frozen = ("conv1", "conv4", "conv5")
    smaller, left, anew, names = widths.without(config, params, ["conv4"])
    assert smaller.model.stages == ((3, 3), (4,), (3, 3, 3))
    assert names["conv5"] == "conv4"
    assert anew == []
    assert smaller.train.frozen == ("conv1", "conv4")
    np.testing.assert_array_equal(left["conv4"]["kernel"], params["conv5"]["kernel"])
    np.testing.assert_array_equal(left["head"]["kernel"], params["head"]["kernel"])


def test_a_layer_that_no_longer_fits_starts_anew():
    config = tiny("vgg16")
    params = params_of(config)
    tail = [f"conv{number}" for number in range(11, 14)]
    smaller, left, anew, _ = widths.without(config, params, tail)
    assert smaller.model.stages == ((3, 3), (2, 2), (3, 3, 3), (4, 4, 4))
    assert anew == ["dense"]  # it read 3 channels, now 4
    np.testing.assert_array_equal(left["conv10"]["kernel"], params["conv10"]["kernel"])
    expected = variable_shapes(train.build(smaller), (1, 32, 32, 3))["params"]
    assert jax.tree.map(np.shape, left) == jax.tree.map(lambda leaf: leaf.shape, expected)


def test_inceptions_are_dropped_and_renamed():
    config = tiny("googlenet")
    params = params_of(config)
    smaller, left, _, names = widths.without(config, params, ["inception4a"])
    assert [len(stage) for stage in smaller.model.inceptions] == [1, 1, 1]
    assert names["inception4b"] == "inception4a"
    moved, before = left["inception4a"]["branch3"], params["inception4b"]["branch3"]
    np.testing.assert_array_equal(moved["conv"]["kernel"], before["conv"]["kernel"])


def test_mistakes_are_named():
    config = tiny("cnn_light")
    with pytest.raises(UserError, match="--drop_layers=dense: cnn_light can drop conv1, conv2"):
        widths.without(config, {}, ["dense"])
    with pytest.raises(UserError, match="names every block: keep at least one"):
        widths.without(config, {}, ["conv1", "conv2"])
