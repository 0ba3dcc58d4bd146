"""The nets against Keras's own, weights handed over in its .h5 files."""

import functools

import h5py
import jax
import numpy as np
import pytest
from flax import traverse_util

from rice_jax import models
from rice_jax.graph.trace import trace
from rice_jax.models import keras_h5

keras_nets = pytest.importorskip("keras_nets")  # it sets Keras's backend first
keras = keras_nets.keras
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")  # inside Keras

IMAGE = 32
FORMATS = ("model.h5", "model.keras", "model.weights.h5", "legacy_weights.h5")


def save(model, path):
    if path.name.startswith("legacy"):
        with h5py.File(path, "w") as file:
            keras.src.legacy.saving.legacy_h5_format.save_weights_to_hdf5_group(file, model)
    elif path.name.endswith(".weights.h5"):
        model.save_weights(path)
    else:
        model.save(path)


def zeros(traced):
    """Parameters to fill."""
    return jax.tree.map(lambda s: np.zeros(s.shape, np.float32), traced.variable_shapes["params"])


def images():
    return np.random.default_rng(1).random((2, IMAGE, IMAGE, 3), dtype=np.float32)


def our_logits(module, params, x):
    return np.asarray(
        keras_nets.quick_jit(lambda p, x: module.apply({"params": p}, x, train=False))(params, x)
    )


LARGE = ("googlenet", "vgg16")
"""Nets of whose kind another, light one is among those of the study."""


def keras_net(name):
    if name.startswith("vgg") and name != "vgg_custom":
        return keras_nets.vgg(IMAGE, cut=name == "vgg_light")
    return keras_nets.build(name, IMAGE, **keras_nets.WIDTHS[name])


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.thorough] if name in LARGE else [])
        for name in keras_nets.WIDTHS
    ],
)
@pytest.mark.one_in(3)
def test_study_net_equals_keras(name, tmp_path):
    model, module = keras_net(name), models.build(name)
    path = tmp_path / "model.h5"
    model.save(path)
    traced = trace(module, (1, IMAGE, IMAGE, 3), train=False)
    params = zeros(traced)
    loaded = keras_h5.fill_from_h5(path, module, params)
    assert loaded.kept == ()

    sizes = {path: leaf.size for path, leaf in traverse_util.flatten_dict(params, sep="/").items()}
    frozen = models.NETS[name].frozen
    trainable = sum(n for path, n in sizes.items() if path.partition("/")[0] not in frozen)
    assert sum(sizes.values()) == model.count_params()
    assert trainable == sum(weight.value.size for weight in model.trainable_weights)

    kinds = {"Conv2D": "Conv", "MaxPooling2D": "MaxPool", "Dense": "Dense"}
    theirs = sorted(
        (kinds[type(layer).__name__], tuple(layer.output.shape[1:]))
        for layer in model.layers
        if type(layer).__name__ in kinds
    )
    ours = sorted(
        (layer.module.__name__, layer.output.shape[1:])
        for layer in traced.layers.values()
        if layer.module.__name__ in kinds.values()
    )
    assert ours == theirs

    expected = keras_nets.logits(model, images())
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(our_logits(module, loaded.params, images()), expected, atol=1e-5)


@pytest.mark.parametrize("size", [64, 49])
def test_a_net_that_averages_the_image_first_equals_keras(size):
    """Blocks of 4 x 4 pixels make a grid of 16 out of 64, of 3 x 3 one of 16 out of 49."""
    layers = keras.layers
    image = keras.Input((size, size, 3))
    x = layers.AveragePooling2D({64: 4, 49: 3}[size])(image)
    for filters in (3, 4):
        x = layers.Conv2D(filters, 3, strides=2, padding="same", activation="relu")(x)
    x = layers.Concatenate()([layers.GlobalAveragePooling2D()(x), layers.GlobalMaxPooling2D()(x)])
    x = layers.Dense(6, activation="relu")(x)
    model = keras_nets.with_random_weights(keras.Model(image, layers.Dense(5)(x)))
    names = ("conv1", "conv2", "dense", "head")
    arrays = zip(*[iter(map(np.asarray, model.get_weights()))] * 2, strict=True)
    params = {
        name: {"kernel": kernel, "bias": bias}
        for name, (kernel, bias) in zip(names, arrays, strict=True)
    }
    module = models.build("micro", grid=16, convolutions=(3, 4), dense=6)
    x = np.random.default_rng(1).random((2, size, size, 3), dtype=np.float32)
    expected = np.asarray(model(x))
    np.testing.assert_allclose(our_logits(module, params, x), expected, atol=1e-5)


@functools.cache
def tiny(name):
    """A small Keras model, our module, parameters to fill, our logits' function, its logits."""
    if name == "custom layers":
        widths = keras_nets.TINY_WIDTHS["googlenet"] | {"inception": keras_nets.InceptionLayer}
    elif name == "partly frozen":
        widths = {"stages": ((2, 3), (4, 2)), "dense": 6}
    else:
        widths = keras_nets.TINY_WIDTHS[name]
    model = keras_nets.build(name, IMAGE, **widths)
    if name == "partly frozen":
        model = keras_nets.nested(model, last=6, frozen=4)
    module_widths = {key: value for key, value in widths.items() if key != "inception"}
    net = "googlenet" if "stem" in widths else "vgg_custom"
    module = models.build(net, **module_widths)
    params = zeros(trace(module, (1, IMAGE, IMAGE, 3), train=False))
    apply = keras_nets.quick_jit(lambda p, x: module.apply({"params": p}, x, train=False))
    return model, module, params, apply, keras_nets.logits(model, images())


@pytest.mark.parametrize("file", FORMATS)
@pytest.mark.parametrize("name", [*keras_nets.WIDTHS, "custom layers", "partly frozen"])
@pytest.mark.one_in(13)
def test_every_layout_loads(name, file, tmp_path):
    """Each net, inceptions as the study writes them, and a model in a model, frozen in part.

    Of the last Keras lists what learns first, so that it begins with the last convolutions.
    """
    model, module, zero, apply, expected = tiny(name)
    save(model, tmp_path / file)
    params = keras_h5.load_h5(tmp_path / file, module, zero)
    np.testing.assert_allclose(apply(params, images()), expected, atol=1e-5)
