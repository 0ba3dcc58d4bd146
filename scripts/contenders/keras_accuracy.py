"""The study's recipe in Keras, from a folder of JPEGs through `fit`: NET FOLDER HISTORY.csv."""

import sys
from pathlib import Path

import keras
import tensorflow as tf
from of_keras import learner

_SIZE, _BATCH = 224, 64


def main(net: str, folder: str, history: str) -> None:
    """Train on four fifths of the images, and validate on half of the others, like us."""
    train, others = keras.utils.image_dataset_from_directory(
        folder,
        image_size=(_SIZE, _SIZE),
        batch_size=_BATCH,
        validation_split=0.2,
        subset="both",
        seed=0,
        verbose=False,
    )
    validation = others.take(max(1, len(others) // 2))
    Path(history).parent.mkdir(parents=True, exist_ok=True)
    learner(net, _SIZE).fit(
        train.prefetch(tf.data.AUTOTUNE),
        validation_data=validation.prefetch(tf.data.AUTOTUNE),
        epochs=50,
        verbose=0,
        callbacks=[
            keras.callbacks.ReduceLROnPlateau(factor=0.2, patience=3),
            keras.callbacks.EarlyStopping(patience=5),
            keras.callbacks.CSVLogger(history),
        ],
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
