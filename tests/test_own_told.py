"""How a net of one's own hears whether it learns."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from rice_jax import own_net, train


def dropped(x, learns):
    return nn.Dropout(0.5, deterministic=not learns)(x.reshape(len(x), -1))


class ByTraining(nn.Module):
    classes: int = 48

    @nn.compact
    def __call__(self, x, training=False):
        return dropped(x, training)


class ByDeterministic(nn.Module):
    classes: int = 48

    @nn.compact
    def __call__(self, x, deterministic):
        return dropped(x, not deterministic)


class ByBoth(nn.Module):
    """As a net is whose dropout and norms are told apart."""

    classes: int = 48

    @nn.compact
    def __call__(self, x, *, is_training=True, use_running_average=None):
        assert use_running_average is (not is_training)
        return dropped(x, is_training)


class ByField(nn.Module):
    training: bool
    classes: int = 48

    @nn.compact
    def __call__(self, x):
        return dropped(x, self.training)


class ByEither(nn.Module):
    """As Flax's own layers are: by a field or by the call, and an error by both."""

    deterministic: bool | None = None
    classes: int = 48

    @nn.compact
    def __call__(self, x, deterministic=None):
        return dropped(x, not nn.merge_param("deterministic", self.deterministic, deterministic))


class ByCallNNX(nnx.Module):
    def __init__(self, classes=48, *, rngs):
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x, is_training=False, deterministic=True):
        assert is_training is not deterministic
        return self.dropout(x.reshape(len(x), -1), deterministic=deterministic)


@pytest.mark.parametrize("net", [ByTraining, ByDeterministic, ByBoth, ByField, ByEither, ByCallNNX])
def test_a_net_is_told_by_any_usual_name_whether_it_learns(net):
    """Dropout of a half leaves ones as they are, or makes noughts and twos of them."""
    made = train.build(own_net.configuration(net, net.__name__.lower()))
    x = jnp.ones((2, 4, 4, 3))
    np.testing.assert_array_equal(made.apply({}, x, train=False), 1)
    learning = made.apply({}, x, train=True, rngs={"dropout": jax.random.key(0)})
    assert set(np.unique(learning)) == {0, 2}
