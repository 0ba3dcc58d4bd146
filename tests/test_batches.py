"""Batches out of a generator: what looks at them once lets go of them."""

import weakref

import flax.linen as nn
import jax
import numpy as np
import pytest

from rice_jax import inspection
from rice_jax.prune import certify

SHAPE = (5, 5, 3)
NUMBER = 24


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(nn.relu(nn.Conv(4, (3, 3))(x)).mean((1, 2)))


NET = Net()
VARIABLES = NET.init(jax.random.key(0), np.zeros((1, *SHAPE), np.float32))
ONCE = {
    "census": lambda batches: inspection.census(NET, VARIABLES, batches),
    "certify": lambda batches: certify((NET, VARIABLES), (NET, VARIABLES), batches),
}


@pytest.mark.parametrize("name", ONCE)
def test_batches_are_not_kept(name):
    alive, most = weakref.WeakSet(), []

    def batches():
        for seed in range(NUMBER):
            batch = np.random.default_rng(seed).random((2, *SHAPE), np.float32).view(Watched)
            alive.add(batch)
            most.append(len(alive))
            yield batch

    found = ONCE[name](batches())
    assert found.images == 2 * NUMBER
    assert max(most) < NUMBER / 2


class Watched(np.ndarray):
    """An array that can stand in a weak set."""

    __hash__ = object.__hash__
