"""Evaluations: scikit-learn's report, NumPy's loss, no dependence on the batch size."""

import functools

import cv2
import flax.linen as nn
import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import classification_report, confusion_matrix
from tiny_training import CLASSES, SIZE, Images, config

from rice_jax import records
from rice_jax.errors import UserError
from rice_jax.evaluate import evaluate, report
from rice_jax.run import Run
from rice_jax.train import build, initial_params

AVERAGES = {"macro_avg": "macro avg", "weighted_avg": "weighted avg"}
LABELS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=40)


@settings(max_examples=50)
@given(LABELS)
def test_the_report_is_that_of_scikit_learn(pairs):
    true, predicted = zip(*pairs, strict=True)
    every = {"labels": range(5), "target_names": CLASSES}
    rows, means = (
        classification_report(true, predicted, output_dict=True, zero_division=0, **labels)
        for labels in (every, {})
    )
    expected = rows | {name: means[name] for name in AVERAGES.values()}
    found = report(confusion_matrix(true, predicted, labels=range(5)), CLASSES)
    assert found.images == len(pairs)
    assert found.accuracy == pytest.approx(np.mean(np.equal(true, predicted)))
    rows = found.per_class | {AVERAGES[name]: getattr(found, name) for name in AVERAGES}
    for name, row in rows.items():
        for ours, theirs in (("f1", "f1-score"), *((key, key) for key in vars(row) if key != "f1")):
            assert getattr(row, ours) == pytest.approx(expected[name][theirs]), (name, ours)


@functools.cache
def net():
    tiny = config()
    module = build(tiny)
    params = jax.tree.map(np.array, initial_params(tiny, module))
    params["head"]["bias"][:] = [0, 0.01, 0.02, 0.01, 0]  # more than one class is predicted
    return module, params


@functools.cache
def evaluation(images=23, batch_size=8, augment_seed=None):
    module, params = net()
    return evaluate(
        module,
        params,
        Images(images),
        classes=CLASSES,
        image_size=SIZE,
        batch_size=batch_size,
        augment_seed=augment_seed,
    )


@pytest.mark.parametrize("classes", [0, 1, 5])
def test_where_there_is_no_image_there_is_no_accuracy(classes):
    names = [f"class {number}" for number in range(classes)]
    with pytest.raises(UserError, match="no images to evaluate on"):
        report(np.zeros((classes, classes), np.int64), names)
    with pytest.raises(UserError, match="no images to evaluate on"):
        evaluation(images=0)


@pytest.mark.parametrize("number", [0, 1, 4, 6])
def test_a_net_of_another_number_of_classes_is_told(number):
    names = [f"class {index}" for index in range(number)]
    with pytest.raises(UserError, match=rf"logits \(N, 5\) of N images, .* of {number} classes"):
        evaluate(*net(), Images(3), classes=names, image_size=SIZE, batch_size=2)


class Labelled:
    """The images, one of them of another label."""

    def __init__(self, label, at):
        self._images, self._label, self._at = Images(12), label, at

    def __len__(self):
        return len(self._images)

    def __getitem__(self, index):
        record = self._images[index]
        return record | {"label": self._label} if index == self._at else record


@pytest.mark.parametrize("at", [0, 7, 11])
@pytest.mark.parametrize("label", [-1, 5, 100])
def test_a_label_that_is_no_class_s_is_told(label, at):
    with pytest.raises(UserError, match=f"label {label}, and of 5 classes the labels are 0 to 4"):
        evaluate(*net(), Labelled(label, at), classes=CLASSES, image_size=SIZE, batch_size=5)


@pytest.mark.parametrize("wrong", ["image_size=0", "batch_size=0", "limit=-1", "workers=-1"])
def test_sizes_that_are_none_are_told(wrong):
    name, _, value = wrong.partition("=")
    sizes = {"image_size": SIZE, "batch_size": 2} | {name: int(value)}
    with pytest.raises(UserError, match=wrong):
        evaluate(*net(), Images(3), classes=CLASSES, **sizes)


def test_every_image_counts_once():
    module, params = net()
    records = [Images(23)[index] for index in range(23)]
    pixels = [
        cv2.cvtColor(
            cv2.imdecode(np.frombuffer(record["image"], np.uint8), cv2.IMREAD_COLOR),
            cv2.COLOR_BGR2RGB,
        )
        for record in records
    ]
    labels = np.array([record["label"] for record in records])
    images = np.stack(pixels) / np.float32(255)
    logits = np.asarray(module.apply({"params": params}, images), np.float64)
    entropies = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(23), labels]
    found = evaluation()
    assert found.images == 23
    assert found.loss == pytest.approx(entropies.mean(), rel=1e-5)
    expected = confusion_matrix(labels, logits.argmax(axis=1), labels=range(5))
    assert found.confusion_matrix == expected.tolist()
    assert sum(row.support for row in found.per_class.values()) == 23


@pytest.mark.parametrize("places", [range(5), [3], [4, 2]])
@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_answers_that_are_no_numbers_are_told(number, places, capsys):
    module, params = net()
    bias = np.zeros(5, np.float32)
    bias[list(places)] = number
    settings = {"classes": CLASSES, "image_size": SIZE, "batch_size": 8}
    head = params["head"] | {"bias": bias}
    found = evaluate(module, params | {"head": head}, Images(23), **settings)
    assert np.sum(found.confusion_matrix, axis=0)[min(places)] == 23
    assert "no numbers; NaN counts as the largest" in capsys.readouterr().err
    evaluate(module, params, Images(23), **settings)
    assert "no numbers" not in capsys.readouterr().err


@pytest.mark.parametrize("augment_seed", [None, 5])
def test_the_batch_size_does_not_matter(augment_seed):
    first, second = (evaluation(batch_size=size, augment_seed=augment_seed) for size in (8, 23))
    assert first.loss == pytest.approx(second.loss, rel=1e-6)
    assert first.confusion_matrix == second.confusion_matrix


def test_the_seed_alone_decides_the_transforms():
    losses = {seed: evaluation(augment_seed=seed).loss for seed in (None, 5, 6)}
    assert len(set(losses.values())) == 3
    evaluation.cache_clear()
    assert evaluation(augment_seed=5).loss == losses[5]


@pytest.mark.parametrize("classes", [records.MOST_ROWS, records.MOST_ROWS + 1, 4_500])
@pytest.mark.one_in(2)
def test_a_matrix_of_any_number_of_classes_is_read_back(classes, tmp_path):
    """As `confused` tells it; written row by row, that of 4,500 would be too large to be read."""
    true, predicted = np.random.default_rng(classes).integers(0, classes, (2, 9_000))
    confusion = np.zeros((classes, classes), np.int8)
    np.add.at(confusion, (true, predicted), 1)
    written = report(confusion, [f"class {number}" for number in range(classes)])
    run = Run(tmp_path)
    records.write(run, records.EvaluationFile(clean=written, augmented=written))
    found = records.read(run, records.EvaluationFile)
    assert found == records.EvaluationFile(clean=written, augmented=written)
    [result, _] = found.parts().values()
    assert (result.confusion_matrix is None) == (classes > records.MOST_ROWS)
    true, predicted, images = result.confused()
    again = np.zeros_like(confusion)
    again[true, predicted] = images
    np.testing.assert_array_equal(again, confusion)
    assert images.all()


def test_the_same_evaluation_of_the_same_net_is_compiled_once():
    called = []

    class Counted(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            called.append(x.shape)
            return nn.Dense(5)(x.mean(axis=(1, 2)))

    module = Counted()
    params = module.init(jax.random.key(0), np.zeros((1, SIZE, SIZE, 3), np.float32))["params"]
    measured = {}
    for seed in (None, 0, None, 0):
        before, new = len(called), seed not in measured
        measured[seed] = evaluate(
            module,
            params,
            Images(5),
            classes=CLASSES,
            image_size=SIZE,
            batch_size=8,
            augment_seed=seed,
        ).loss
        assert (len(called) > before) == new, seed  # traced anew
    assert measured[None] != measured[0]
