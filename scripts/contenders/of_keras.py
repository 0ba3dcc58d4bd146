"""A net in Keras, on the backend that KERAS_BACKEND names, through `fit` and `predict`."""

import argparse
from typing import Any

import keras
import numpy as np
import serving
from keras import layers

from rice_jax import models


class Repeated(keras.utils.PyDataset):
    """The same batch, so many times."""

    def __init__(self, batch: Any, times: int) -> None:
        super().__init__()
        self._batch, self._times = batch, times

    def __len__(self) -> int:
        return self._times

    def __getitem__(self, index: int) -> Any:
        return self._batch


def make(given: argparse.Namespace, images: np.ndarray, labels: np.ndarray) -> serving.Contender:
    """The net with the widths that rice_jax has, compiled with Adam."""
    if given.dtype == "bfloat16":
        keras.mixed_precision.set_dtype_policy("mixed_bfloat16")
    model = build(models.get(given.net).widths, given.image_size)
    model.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy")

    def train(steps: int) -> object:
        return model.fit(Repeated((images, labels), steps), verbose=0, shuffle=False)

    def infer(batches: int) -> object:
        return model.predict(Repeated((images,), batches), verbose=0)

    return serving.Contender(train, infer)


def learner(net: str, image_size: int) -> keras.Model:
    """The net as the study trains it."""
    model = build(models.get(net).widths, image_size)
    model.compile(
        keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    return model


def build(widths: Any, image_size: int) -> keras.Model:
    """The study's model of these widths, pixels of 0 to 255 in, probabilities out."""
    inputs = keras.Input((image_size, image_size, 3))
    x = layers.Rescaling(1 / 255)(inputs)
    x = _googlenet(x, **widths) if "stem" in widths else _plain(x, **widths)
    return keras.Model(inputs, layers.Dense(5, activation="softmax", dtype="float32")(x))


def _conv(x: Any, filters: int, size: int = 3, strides: int = 1) -> Any:
    return layers.Conv2D(filters, size, strides, padding="same", activation="relu")(x)


def _plain(
    x: Any, *, stages: Any, dense: int, strides: int, pooling: str, dropout: float, **_: Any
) -> Any:
    for stage in stages:
        for filters in stage:
            x = _conv(x, filters, strides=strides)
        x = layers.MaxPooling2D()(x)
    x = layers.Flatten()(x) if pooling == "flatten" else layers.GlobalAveragePooling2D()(x)
    x = layers.Dense(dense, activation="relu")(x)
    return layers.Dropout(dropout)(x) if dropout else x


def _googlenet(x: Any, *, stem: Any, inceptions: Any, dropout: float, **_: Any) -> Any:
    x = layers.MaxPooling2D(3, 2, padding="same")(_conv(x, stem[0], 7, 2))
    x = _conv(_conv(x, stem[1], 1), stem[2])
    for stage in inceptions:
        x = layers.MaxPooling2D(3, 2, padding="same")(x)
        for widths in stage:
            x = _inception(x, *widths)
    return layers.Dropout(dropout)(layers.GlobalAveragePooling2D()(x))


def _inception(x: Any, one: int, to3: int, three: int, to5: int, five: int, pooled: int) -> Any:
    branches = [
        _conv(x, one, 1),
        _conv(_conv(x, to3, 1), three),
        _conv(_conv(x, to5, 1), five, 5),
        _conv(layers.MaxPooling2D(3, 1, padding="same")(x), pooled, 1),
    ]
    return layers.Concatenate()(branches)


if __name__ == "__main__":
    serving.serve(make)
