"""The images of a run's page: two of each class, as the evaluation sees them."""

import flax.linen as nn
import jax
import numpy as np
import tiny_training

from rice_jax import data, inspection, specimens, train
from rice_jax.train import state

SEED = 3


def trained_on(dataset):
    config = tiny_training.config()
    module = train.build(config)
    params = state.random_params(module, (1, 16, 16, 3), seed=0)
    return train.Trained(config, module, params, dataset.classes, epoch=0)


def looked_at(dataset):
    trained = trained_on(dataset)
    see = inspection.seer(trained.module, jax.ShapeDtypeStruct((1, 16, 16, 3), np.float32))
    kinds = {"clean": None, "augmented": SEED}
    return trained, specimens.of_test_images(see, trained, dataset, kinds)


def test_two_images_of_each_class_clean_and_augmented_as_they_are_evaluated():
    dataset = tiny_training.dataset(100)
    trained, content = looked_at(dataset)
    names = [(image.label, image.kind) for image in content.images]
    assert names == [
        (name, kind)
        for name in dataset.classes
        for _ in range(2)
        for kind in ("clean", "augmented")
    ]
    test = dataset.splits["test"]
    pixels = np.stack([data.decode(test[i]["image"], 16) for i in range(len(test))])
    expected = {}
    for kind, seed in (("clean", None), ("augmented", SEED)):
        images = train.evaluation_inputs(jax.numpy.asarray(pixels), augment_seed=seed)
        logits = trained.module.apply({"params": trained.params}, images)
        expected[kind] = np.asarray(nn.softmax(logits))
    # The images' classes go round: those of class c are number c and number c + 5.
    for number, image in enumerate(content.images):
        index = number // 4 + 5 * (number % 4 // 2)
        np.testing.assert_allclose(image.probabilities, expected[image.kind][index], atol=1e-4)


def test_of_many_classes_some_are_shown():
    dataset = tiny_training.dataset(100)
    dataset.classes = tuple(f"class {number}" for number in range(30))
    _, content = looked_at(dataset)
    shown = {image.label for image in content.images}
    assert shown == {"class 0", "class 3"}  # of every third; the others have no image
