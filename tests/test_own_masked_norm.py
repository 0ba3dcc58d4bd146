"""A batch norm of some places alone, in a net of one's own: refused in one line."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from rice_jax.errors import UserError
from rice_jax.models.own import Own
from rice_jax.models.own_nnx import OwnNNX


class MaskedNorm(nn.Module):
    classes: int = 3

    @nn.compact
    def __call__(self, x, train=False):
        norm = nn.BatchNorm(use_running_average=not train, name="norm")
        return nn.Dense(self.classes)(norm(x, mask=jnp.ones_like(x, bool)).mean((1, 2)))


class MaskedNormNNX(nnx.Module):
    def __init__(self, classes=3, *, rngs):
        self.norm, self.head = nnx.BatchNorm(3, rngs=rngs), nnx.Linear(3, classes, rngs=rngs)

    def __call__(self, x):
        return self.head(self.norm(x, mask=jnp.ones_like(x, bool)).mean((1, 2)))


@pytest.mark.parametrize(
    "net", [Own.of(MaskedNorm), OwnNNX.of(MaskedNormNNX)], ids=["linen", "nnx"]
)
def test_a_norm_of_some_places_alone_is_refused(net):
    with pytest.raises(UserError, match=r"^norm: a batch norm is trained without mask="):
        net.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
