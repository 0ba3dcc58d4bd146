"""Linear probes find the layer after which the classes are told apart no better."""

import flax.linen as nn
import numpy as np
import pytest
from sklearn.linear_model import RidgeClassifier

from rice_jax import inspection
from rice_jax.errors import UserError
from rice_jax.prune.probe import Probe, dead_tail, probe


class Layers(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (3, 3), name="first")(x))
        x = nn.relu(nn.Conv(2, (3, 3), name="second")(x))
        return nn.Dense(3, name="head")(x.mean((1, 2)))


def noisy(seed, count):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    images = rng.normal(size=(count, 6, 6, 3)).astype(np.float32)
    images[np.arange(count), :, :, labels] += 0.3
    return images, labels


def test_a_probe_is_a_ridge_classifier_on_averaged_maps():
    rng = np.random.default_rng(0)
    params = {
        "first": {"kernel": rng.normal(size=(3, 3, 3, 4)), "bias": np.zeros(4)},
        "second": {"kernel": rng.normal(size=(3, 3, 4, 2)), "bias": np.zeros(2)},
        "head": {"kernel": rng.normal(size=(2, 3)), "bias": np.zeros(3)},
    }
    params = {
        path: {name: array.astype(np.float32) for name, array in layer.items()}
        for path, layer in params.items()
    }
    module, variables = Layers(), {"params": params}
    (x, labels), (y, wanted) = noisy(1, 60), noisy(2, 40)
    halves = [(x[:30], labels[:30]), (x[30:], labels[30:])]
    found = {each.path: each for each in probe(module, variables, halves, [(y, wanted)])}
    assert list(found) == ["first", "second"]
    fitted, tested = (inspection.feature_maps(module, variables, images) for images in (x, y))
    for path in found:
        pooled, others = (
            np.asarray(maps[path], np.float64).mean((1, 2)) for maps in (fitted, tested)
        )
        mean, scale = pooled.mean(0), pooled.std(0)
        ridge = RidgeClassifier(alpha=1e-3 * len(x)).fit((pooled - mean) / scale, labels)
        expected = ridge.score((others - mean) / scale, wanted)
        assert found[path] == Probe(path, pooled.shape[1], pytest.approx(expected))


def test_the_dead_tail_begins_after_the_first_block_that_is_good_enough():
    found = [
        Probe(name, 1, value) for name, value in zip("abcd", (0.5, 0.9, 0.91, 0.8), strict=True)
    ]
    assert dead_tail(found, "abcd", 0.0) == ["d"]
    assert dead_tail(found, "abcd", 0.02) == ["c", "d"]
    assert dead_tail(found[:3], "abc", 0.0) == []
    assert dead_tail(found, [], 0.0) == []  # a net without any that can be left out


def test_a_split_without_images_is_refused():
    with pytest.raises(UserError, match="no images to probe layers on"):
        probe(Layers(), {}, [], [])
