"""What training refuses before anything is made of it, and what it says beforehand."""

import pytest
from tiny_training import config, dataset

from rice_jax import train
from rice_jax.errors import UserError
from rice_jax.run import Run
from rice_jax.train import feed


@pytest.mark.parametrize("field", ["epochs", "batch_size", "learning_rate"])
def test_numbers_that_make_no_sense_are_refused(field, tmp_path):
    with pytest.raises(
        UserError, match=rf"config\.train\.{field}=0.*: give a .*number (from 1|above 0) to"
    ):
        train.train(config(**{field: 0}), Run(tmp_path / "run"), dataset())
    assert not (tmp_path / "run").exists()


def test_classes_must_be_those_of_the_images(tmp_path):
    settings = config()
    settings.model.classes = 4
    with pytest.raises(UserError, match="classes=4, but there are images of 5 classes: Arborio"):
        train.train(settings, Run(tmp_path), dataset())


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_split_without_images_is_refused_before_anything_is_made(split, tmp_path):
    images = dataset()
    images.splits[split] = []
    with pytest.raises(UserError, match=f"the {split} split has no images"):
        train.train(config(), Run(tmp_path / "run"), images)
    assert not (tmp_path / "run").exists()


def test_a_speed_without_images_is_none():
    images = dataset()
    images.splits["train"] = []
    with pytest.raises(UserError, match="the train split has no images"):
        train.images_per_second(config(), images)


@pytest.mark.parametrize("label", [-1, 5])
def test_a_label_that_is_no_class_s_ends_training_with_a_line(label, tmp_path):
    images = dataset(40)
    records = [images.splits["train"][index] for index in range(40)]
    images.splits["train"] = [*records[:20], records[20] | {"label": label}, *records[21:]]
    with pytest.raises(UserError, match=f"label {label}, and of 5 classes the labels are 0 to 4"):
        train.train(config(), Run(tmp_path / "run"), images)


def test_a_net_that_no_memory_holds_is_refused_before_anything_is_made(tmp_path):
    settings = config()
    settings.model.stages = ((65_536,), (65_536,), (65_536,))
    with pytest.raises(UserError, match=r"moments take 927\.8 GB, and this machine has .* fewer"):
        train.train(settings, Run(tmp_path / "run"), dataset())  # 2 * 9 * 65,536^2 * 3 * 4 bytes
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("part", ["train", "eval"])
def test_batches_that_no_memory_holds_are_refused_before_anything_is_made(part, tmp_path):
    settings = config()
    settings[part].batch_size = 1_000_000
    settings.data.image_size = 2048
    with pytest.raises(UserError, match=r"at once, take 37,748.8 GB, and here are"):
        train.train(settings, Run(tmp_path / "run"), dataset())  # 3 of 1e6 * 2,048^2 * 3 bytes
    assert not (tmp_path / "run").exists()


def test_what_large_batches_take_is_said_beforehand():
    settings = config()
    assert not feed.told_of_large(settings, 224)
    settings.eval.batch_size = 100
    assert feed.told_of_large(settings, 1000).startswith(
        "a batch of 100 images of 1,000 x 1,000 pixels takes 0.3 GB, and a few are in memory at "
        "once: a smaller --config.eval.batch_size"
    )
