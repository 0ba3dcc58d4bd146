"""Trainings small enough for a test: four filters, 16x16 images, a second or two.

As a program it does one in a process of its own, to be killed or to share the work:
python tests/tiny_training.py WORKDIR EPOCHS
"""

import csv
import functools
import os
import sys
import types

import cv2
import jax
import ml_collections
import numpy as np

SIZE = 16
CLASSES = ("Arborio", "Basmati", "Ipsala", "Jasmine", "Karacadag")

COLUMNS = "epoch,train_loss,train_accuracy,val_loss,val_accuracy,learning_rate,seconds,"
"""What history.csv begins with."""

ENDLESS = {"stop_patience": 10**6}
"""Settings of a training that ends with its epochs alone."""


class Images:
    """A source of encoded images: a bar whose brightness, colour and width tell the class."""

    def __init__(self, count, seed=0):
        self._count, self._seed = count, seed

    def __len__(self):
        return self._count

    @functools.cache  # noqa: B019
    def __getitem__(self, index):
        random = np.random.default_rng([self._seed, index])
        label = index % len(CLASSES)
        image = random.integers(0, 60, (SIZE, SIZE, 3))
        image[:, 4 : 6 + label, label % 3] += 100 + 10 * label
        encoded = cv2.imencode(".png", image.astype(np.uint8))[1].tobytes()
        return {"image": encoded, "label": label, "name": f"{index}.png"}


def dataset(images=100, wrap=lambda source: source):
    """Splits of `images` and twice a fifth as many; `wrap` may put something about each."""
    counts = {"train": images, "validation": images // 5, "test": images // 5}
    splits = {name: wrap(Images(n, seed)) for seed, (name, n) in enumerate(counts.items())}
    return types.SimpleNamespace(classes=CLASSES, splits=splits, fingerprint="tiny")


class Watched:
    """A source that calls `event` before its reading number `at`, and once only."""

    def __init__(self, source, at, event):
        self.source, self.left, self.event = source, at, event

    def __len__(self):
        return len(self.source)

    def __getitem__(self, index):
        self.left -= 1
        if self.left == 0:
            self.event()
        return self.source[index]


def watched(split, at, event):
    """The tiny dataset, `event` awaiting one of its splits."""
    images = dataset()
    images.splits[split] = Watched(images.splits[split], at, event)
    return images


def config(stages=((4,),), dense=8, **train) -> ml_collections.ConfigDict:
    from rice_jax.config import default

    tiny = default("final")
    tiny.model.update(stages=stages, dense=dense)
    tiny.data.image_size = SIZE
    tiny.train.update({"epochs": 3, "batch_size": 32, "learning_rate": 0.01} | train)
    return tiny


def environment(devices=1):
    """Of a process with that many CPU devices, which compiles in haste."""
    flags = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    own = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices), "XLA_FLAGS": flags}
    return os.environ | own


def newest(run, settings):
    """The newest checkpoint of a run: its arrays as NumPy's, and its progress without clocks."""
    from rice_jax import train
    from rice_jax.config import to_json

    run.write_json("config.json", {"config": to_json(settings)})
    found = train.newest(run)
    progress = found.progress.to_json() | {"seconds": 0, "spent": {}}
    progress["history"] = [
        {k: v for k, v in row.items() if "second" not in k} for row in progress["history"]
    ]
    return jax.tree.map(np.asarray, found.state), progress


def rows(run):
    """Of history.csv, a dictionary of text by column each."""
    with open(run.path / "history.csv") as file:
        assert file.readline().startswith(COLUMNS)
        file.seek(0)
        return list(csv.DictReader(file))


def assert_same(first, second):
    """Two runs stand at the same point: bit for bit, but on a GPU whose kernels differ in the order
    of their sums, and from start to start in what XLA measured to be fast."""
    ordered = "--xla_gpu_deterministic_ops=true" in os.environ.get("XLA_FLAGS", "").split()

    def agree(one, other):
        if jax.default_backend() == "cpu" or ordered or np.asarray(one).dtype.kind != "f":
            np.testing.assert_array_equal(one, other)
        else:
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)

    jax.tree.map(agree, first, second)


def main(workdir, epochs):
    from rice_jax import cluster
    from rice_jax.run import Run
    from rice_jax.train import train

    cluster.join()
    settings = config(epochs=int(epochs), save_seconds=0, **ENDLESS)
    train(settings, Run(workdir), dataset())


if __name__ == "__main__":
    main(*sys.argv[1:])
