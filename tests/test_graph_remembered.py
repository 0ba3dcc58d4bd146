"""What is remembered of a net: once for equal arguments, each time for those without a hash."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from precision import double_precision

from rice_jax.graph.remembered import remembered
from rice_jax.train import schedule, state


class Shifted(nn.Module):
    """A net with an array among its fields: it has no hash."""

    mean: Any

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Conv(4, (3, 3))(x - self.mean)
        return nn.Dense(2)(x.mean((1, 2)))


def counted():
    """A function that is remembered, and the arguments it was computed for."""
    asked = []

    @remembered(2)
    def told(*args, **kwargs):
        asked.append((args, kwargs))
        return [args, kwargs, jnp.zeros(()).dtype]

    return told, asked


@pytest.mark.parametrize(
    ("first", "second", "times"),
    [
        (((1, "a"), {}), ((1, "a"), {}), 1),
        (((1,), {"b": 2}), ((1,), {"b": 2}), 1),
        (((1,), {"b": 2}), ((1,), {"b": 3}), 2),
        (((nn.Dense(3),), {}), ((nn.Dense(3),), {}), 1),
        (((nn.Dense(3),), {}), ((nn.Dense(4),), {}), 2),
        ((([1],), {}), (([1],), {}), 2),
        (((1,), {"b": [2]}), ((1,), {"b": [2]}), 2),
    ],
)
def test_what_has_a_hash_is_computed_once(first, second, times):
    told, asked = counted()
    for args, kwargs in (first, second):
        assert told(*args, **kwargs)[:2] == [args, kwargs]
    assert len(asked) == times


def test_the_last_ones_are_remembered_and_precision_tells_apart():
    told, asked = counted()
    told(1)
    with double_precision():
        assert told(1)[2] == jnp.float64
    assert told(1)[2] == jnp.float32
    assert len(asked) == 2
    told(3)
    told(1)
    assert len(asked) == 3  # of two, the last that was asked for stays


def test_an_error_of_the_function_is_not_taken_for_a_missing_hash():
    asked = []

    @remembered(1)
    def fails(number):
        asked.append(number)
        raise TypeError("of its own")

    with pytest.raises(TypeError, match="of its own"):
        fails(1)
    assert asked == [1]


def test_a_net_without_a_hash_is_looked_at_all_the_same():
    module = Shifted(np.full(3, 0.5, np.float32))
    with pytest.raises(TypeError, match="unhashable"):
        hash(module)
    made = state.shapes(module, (1, 8, 8, 3), ())
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), made.params)
    assert schedule.fits(module, params, 8)
    assert not schedule.fits(module, {"Conv_0": params["Conv_0"]}, 8)
    assert not schedule.vanishes(module, 8)
