"""The study's nets built of Keras layers: an implementation to compare ours with."""

import functools
import os
from unittest import mock

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import keras
import numpy as np
from keras import layers

# Compiles in a third of the time; the numbers are the same to rounding.
quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

VGG16_STAGES = ((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3)
WIDTHS = {
    "cnn": {"stages": ((32,), (64,), (128,)), "pooling": "flatten", "dense": 128},
    "cnn_light": {"stages": ((8,), (16,)), "strides": 2, "pooling": "flatten", "dense": 16},
    "googlenet": {
        "stem": (64, 64, 192),
        "inceptions": (
            ((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)),
            (
                (192, 96, 208, 16, 48, 64),
                (160, 112, 224, 24, 64, 64),
                (128, 128, 256, 24, 64, 64),
                (112, 144, 288, 32, 64, 64),
                (256, 160, 320, 32, 128, 128),
            ),
            ((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),
        ),
    },
    "googlenet_light": {
        "stem": (16, 16, 64),
        "inceptions": (
            ((16, 16, 24, 4, 8, 8), (24, 24, 32, 4, 8, 8)),
            (
                (32, 32, 48, 8, 16, 16),
                (48, 48, 64, 8, 16, 16),
                (64, 64, 96, 12, 24, 24),
                (96, 64, 96, 12, 24, 24),
            ),
            ((96, 64, 96, 12, 24, 24), (96, 96, 128, 16, 32, 32)),
        ),
    },
    "vgg16": {"stages": VGG16_STAGES, "dropout": 0.3},
    "vgg_light": {"stages": VGG16_STAGES[:4], "dropout": 0.3},
    "vgg_custom": {"stages": ((16,) * 2, (32,) * 2, (64,) * 3), "dropout": 0.5},
    "final": {"stages": ((8,), (16,) * 3), "dropout": 0.3},
}
# The same structures with few filters, all widths different where they can be.
TINY_WIDTHS = {
    "cnn": {"stages": ((2,), (3,), (4,)), "pooling": "flatten", "dense": 5},
    "cnn_light": {"stages": ((2,), (3,)), "strides": 2, "pooling": "flatten", "dense": 4},
    "googlenet": {
        "stem": (2, 3, 4),
        "inceptions": (((2, 3, 5, 1, 2, 3),), ((3, 2, 5, 1, 2, 1), (2, 2, 2, 2, 3, 1))),
    },
    "googlenet_light": {"stem": (2, 2, 3), "inceptions": (((1, 2, 2, 3, 1, 2),),)},
    "vgg16": {"stages": ((2,) * 2, (3,) * 2, (2,) * 3, (3,) * 3, (4,) * 3), "dense": 6},
    "vgg_light": {"stages": ((2,) * 2, (3,) * 2, (2,) * 3, (3,) * 3), "dense": 6},
    "vgg_custom": {"stages": ((2,) * 2, (3,) * 2, (4,) * 3), "dense": 6},
    "final": {"stages": ((2,), (3,) * 3), "dense": 6},
}


def _zeros(self, shape, dtype=None, **kwargs):
    return np.zeros(shape, dtype)


# Weights are drawn below; Keras would compile a program for each shape to draw its own.
_undrawn = mock.patch.object(keras.initializers.GlorotUniform, "__call__", _zeros)


@_undrawn
def build(name, image, **widths):
    """The Keras model of one net, ending in softmax, with weights as `with_random_weights`."""
    inputs = keras.Input((image, image, 3))
    outputs = _googlenet(inputs, **widths) if "stem" in widths else _plain(inputs, **widths)
    return with_random_weights(keras.Model(inputs, outputs, name=name))


@_undrawn
def vgg(image, cut):
    """vgg16 (cut=False) or vgg_light as the study makes them, out of keras.applications."""
    base = keras.applications.VGG16(
        include_top=False, weights=None, input_tensor=keras.Input((image, image, 3))
    )
    for layer in base.layers if cut else base.layers[:-4]:
        layer.trainable = False
    x = base.get_layer("block4_pool").output if cut else base.output
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dense(512, activation="relu")(x)
    x = layers.Dropout(0.3)(x)
    x = layers.Dense(5, activation="softmax")(x)
    return with_random_weights(keras.Model(base.input, x))


def nested(model, last, frozen):
    """A model with the layers of `model` up to `last` inside as one, the first of them frozen."""
    base = keras.Model(model.input, model.layers[last].output)
    for layer in base.layers[:frozen]:
        layer.trainable = False
    inputs = keras.Input(model.input.shape[1:])
    x = base(inputs)
    for layer in model.layers[last + 1 :]:
        x = layer(x)
    return keras.Model(inputs, x)


def with_random_weights(model):
    """Weights that keep signals alive, and biases that are not zero."""
    random = np.random.default_rng(0)
    for weight in model.weights:
        if len(weight.shape) > 1:
            deviation = np.sqrt(2 / np.prod(weight.shape[:-1]))
            weight.assign(random.normal(0, deviation, weight.shape))
        else:
            weight.assign(random.normal(0, 0.1, weight.shape))
    return model


def logits(model, images):
    """What the model computes before its softmax."""
    model.layers[-1].activation = keras.activations.linear
    return np.asarray(quick_jit(lambda x: model(x, training=False))(images))


def _conv(filters, size=3, strides=1):
    return layers.Conv2D(filters, size, strides=strides, padding="same", activation="relu")


def _plain(x, stages, strides=1, pooling="average", dense=512, dropout=0.0):
    for filters in stages:
        for width in filters:
            x = _conv(width, strides=strides)(x)
        x = layers.MaxPooling2D(2)(x)
    x = layers.Flatten()(x) if pooling == "flatten" else layers.GlobalAveragePooling2D()(x)
    x = layers.Dense(dense, activation="relu")(x)
    x = layers.Dropout(dropout)(x)
    return layers.Dense(5, activation="softmax")(x)


def _googlenet(x, stem, inceptions, inception=None):
    inception = inception or inception_of_layers
    x = layers.MaxPooling2D(3, 2, "same")(_conv(stem[0], 7, 2)(x))
    x = _conv(stem[2], 3)(_conv(stem[1], 1)(x))
    for stage in inceptions:
        x = layers.MaxPooling2D(3, 2, "same")(x)
        for widths in stage:
            x = inception(*widths)(x)
    x = layers.Dropout(0.4)(layers.GlobalAveragePooling2D()(x))
    return layers.Dense(5, activation="softmax")(x)


def inception_of_layers(f1, r3, f3, r5, f5, p):
    """An inception as layers of the functional model, made in an order of its own."""

    def call(x):
        reduced5 = _conv(r5, 1)(x)
        reduced3 = _conv(r3, 1)(x)
        pooled = _conv(p, 1)(layers.MaxPooling2D(3, 1, "same")(x))
        branches = [_conv(f1, 1)(x), _conv(f3, 3)(reduced3), _conv(f5, 5)(reduced5), pooled]
        return layers.Concatenate()(branches)

    return call


@keras.saving.register_keras_serializable("tests")
class InceptionLayer(layers.Layer):
    """An inception as one custom layer, as the study writes it."""

    def __init__(self, f1, r3, f3, r5, f5, p, **kwargs):
        super().__init__(**kwargs)
        self.branch1 = _conv(f1, 1)
        self.branch2 = keras.Sequential([_conv(r3, 1), _conv(f3, 3)])
        self.branch3 = keras.Sequential([_conv(r5, 1), _conv(f5, 5)])
        self.branch4 = keras.Sequential([layers.MaxPooling2D(3, 1, "same"), _conv(p, 1)])

    def call(self, x):
        branches = (self.branch1, self.branch2, self.branch3, self.branch4)
        return keras.ops.concatenate([branch(x) for branch in branches], axis=-1)
