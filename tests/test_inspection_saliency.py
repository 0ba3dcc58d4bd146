"""Grad-CAM, held against what is derived by hand."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import nets_in_both
import numpy as np
import pytest
from jax import random

from rice_jax import inspection
from rice_jax.errors import UserError


class Averaging(nn.Module):
    """Maps, averaged and weighed: the logit's gradient by a map is its weight over its pixels."""

    branches: int = 1

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (3, 3), name="first")(x))
        x = nn.max_pool(x, (2, 2), (2, 2))
        branches = [nn.relu(nn.Conv(3, (1, 1), name=f"b{i}")(x)) for i in range(self.branches)]
        x = jnp.concatenate(branches, axis=-1)
        self.sow("intermediates", "maps", x)
        return nn.Dense(5, name="head")(x.mean(axis=(1, 2)))


@pytest.mark.parametrize("branches", [1, 2])
def test_where_maps_are_averaged_it_is_their_weighted_sum(branches):
    module, images = Averaging(branches), random.normal(random.key(0), (3, 8, 6, 2))
    variables = {"params": module.init(random.key(1), images)["params"]}
    classes = np.array([4, 0, 2])
    found = inspection.saliency(module, variables, images, classes)
    _, seen = module.apply(variables, images, mutable="intermediates")
    (maps,) = seen["intermediates"]["maps"]
    weights = variables["params"]["head"]["kernel"][:, classes]
    expected = np.maximum(np.einsum("nhwc,cn->nhw", maps, weights) / (4 * 3), 0)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found.shape == (3, 4, 3)
    assert 0 < np.count_nonzero(expected) < expected.size


class Pooled(nn.Module):
    """A dense layer reads the maximum of each quarter: gradients go to the largest alone."""

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(1, (1, 1), use_bias=False, name="conv")(x)
        return nn.Dense(2, use_bias=False, name="head")(
            nn.max_pool(x, (2, 2), (2, 2)).reshape(len(x), -1)
        )


def test_of_pooled_maps_the_ones_before_the_pool_are_weighed():
    image = jnp.arange(16.0).reshape(1, 4, 4, 1)
    kernel = np.array([[1.0, 0], [0, 1], [2, 0], [0, -9]])  # quarters by logits
    variables = {"params": {"conv": {"kernel": jnp.ones((1, 1, 1, 1))}, "head": {"kernel": kernel}}}
    found = inspection.saliency(Pooled(), variables, image, np.array([0]))
    # The gradient is 1 and 2 at two of 16 pixels: 3/16 in the mean.
    np.testing.assert_allclose(found[0], 3 / 16 * image[0, :, :, 0], rtol=1e-6)
    against = inspection.saliency(Pooled(), variables, image, np.array([1]))
    assert not np.any(against)  # (1 - 9) / 16 is negative


class Around(nn.Module):
    """What is seen of an image goes around the convolution too."""

    @nn.compact
    def __call__(self, x):
        y = nn.Conv(2, (3, 3), strides=(2, 2), name="conv")(x)
        return nn.Dense(2)(jnp.concatenate([y.mean((1, 2)), x.mean((1, 2))], axis=-1))


class Dense(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(2)(x.mean((1, 2)))


@pytest.mark.parametrize(
    ("module", "reason"), [(Around(), "'conv', its last"), (Dense(), "has no convolution")]
)
def test_a_net_without_maps_that_all_passes_is_named(module, reason):
    images = jnp.ones((1, 4, 4, 3))
    variables = module.init(jax.random.key(0), images)
    with pytest.raises(UserError, match=reason):
        inspection.saliency(module, variables, images, np.array([0]))


def test_the_same_net_in_linen_and_nnx_says_the_same():
    linen, module, variables = nets_in_both.built("batch norm")
    x, classes = nets_in_both.images(), np.array([0, 1, 2, 0])
    expected = inspection.saliency(linen, variables, x, classes)
    np.testing.assert_allclose(inspection.saliency(module, x, classes), expected, atol=1e-6)


@pytest.mark.parametrize("classes", [[4, 0, 5], [4, -1, 2], [4, 0], 4, [0.0, 1.0, 2.0]])
def test_classes_that_are_none_of_the_logits_are_named(classes):
    module, images = Averaging(), random.normal(random.key(0), (3, 8, 6, 2))
    variables = {"params": module.init(random.key(1), images)["params"]}
    with pytest.raises(UserError, match="classes are 3 numbers from 0 to 4, one an image, not"):
        inspection.saliency(module, variables, images, classes)


def test_logits_at_each_place_are_named():
    module, images = nn.Conv(5, (3, 3)), random.normal(random.key(0), (3, 8, 6, 2))
    variables = module.init(random.key(1), images)
    with pytest.raises(UserError, match=r"gives logits \(3, 8, 6, 5\), where an image has one"):
        inspection.saliency(module, variables, images, [0, 1, 2])
