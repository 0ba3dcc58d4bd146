"""Keras's own way from a folder of JPEGs through `fit`: NET FOLDER EPOCHS, figures as JSON."""

import json
import sys
import time

import keras
import tensorflow as tf
from of_keras import learner

_SIZE, _BATCH = 224, 64


class Rates(keras.callbacks.Callback):
    """Images a second of each epoch."""

    def __init__(self, images: int) -> None:
        super().__init__()
        self.images, self.rates = images, []

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        """Start the clock."""
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:
        """Stop it."""
        self.rates.append(round(self.images / (time.perf_counter() - self.started), 1))


def main(net: str, folder: str, epochs: str) -> None:
    """Train on four fifths of the images, like us, without validation."""
    images = keras.utils.image_dataset_from_directory(
        folder,
        image_size=(_SIZE, _SIZE),
        batch_size=_BATCH,
        validation_split=0.2,
        subset="training",
        seed=0,
        verbose=False,
    )
    rates = Rates(len(images.file_paths))
    learner(net, _SIZE).fit(
        images.prefetch(tf.data.AUTOTUNE), epochs=int(epochs), verbose=0, callbacks=[rates]
    )
    print(json.dumps({"images": rates.images, "epoch_images_per_second": rates.rates}))


if __name__ == "__main__":
    main(*sys.argv[1:])
