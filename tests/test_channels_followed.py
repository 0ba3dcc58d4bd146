"""Channels that a net picks, parts or arranges are followed; the masked net is the oracle."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import prunable
import pytest
from masked import check_pruned, initialised

IMAGES = prunable.images(0, (3, 8, 8, 3))


def mean(x):
    return x.mean(tuple(range(1, x.ndim - 1)))


def squared(x, coefficients):
    """What JAX has as a primitive where it has any."""
    return coefficients[0] + coefficients[1] * x + coefficients[2] * x**2


CHANNELS = {
    "slices": lambda x: jnp.concatenate(
        [nn.relu(conv(3, x[..., :3])), conv(4, x[..., 3:], "rest")], -1
    ),
    "every other": lambda x: conv(3, x[..., ::2]) + conv(3, x[..., 1::2], name="odd"),
    "split": lambda x: sum(conv(3, y, name=f"s{i}") for i, y in enumerate(jnp.split(x, 4, -1))),
    "stack": lambda x: conv(5, jnp.stack([x, 2 * x], 1).max(1)),
    "stack of channels": lambda x: conv(5, jnp.stack([x, 2 * x], -1).reshape(*x.shape[:3], 16)),
    "stack and unstack": lambda x: sum(
        conv(3, y, name=f"s{i}")
        for i, y in enumerate(jnp.unstack(jnp.stack([x, -x], axis=3), axis=3))
    ),
    "unstack": lambda x: sum(
        nn.Conv(4, (3,), name=f"row{i}")(y).mean(1) for i, y in enumerate(jnp.unstack(x, axis=1))
    ),
    "put on a device": lambda x: sum(
        conv(4, y, name=f"s{i}").mean((1, 2)) for i, y in enumerate(jax.device_put((x, x[:, ::2])))
    ),
    "logarithms": lambda x: conv(5, jnp.log2(x + 1)),
    "polynomial": lambda x: conv(5, getattr(jax.lax, "polynomial", squared)(x, (0.0, 0.5, 2.0))),
    "edges, repeated": lambda x: conv(5, jnp.pad(x, ((0, 0), (1, 2), (0, 1), (0, 0)), mode="edge")),
    "split unevenly": lambda x: conv(3, jnp.split(x, [2], -1)[1]) * x[..., :1],
    "glu": lambda x: conv(5, nn.glu(conv(8, x, name="gated"))),
    "glu by hand": lambda x: conv(5, x[..., :4] * nn.sigmoid(x[..., 4:])),
    "shuffle": lambda x: conv(
        5, x.reshape(*x.shape[:3], 2, 4).swapaxes(3, 4).reshape(*x.shape[:3], 8)
    ),
    "shuffle in groups": lambda x: nn.Conv(6, (3, 3), feature_group_count=2, name="mixed")(
        nn.Conv(8, (3, 3), feature_group_count=2, name="grouped")(x)
        .reshape(*x.shape[:3], 2, -1)
        .swapaxes(3, 4)
        .reshape(x.shape)
    ),
    "pixel shuffle": lambda x: conv(
        5,
        conv(12, x, name="many")
        .reshape(-1, 8, 8, 2, 2, 3)
        .transpose(0, 1, 3, 2, 4, 5)
        .reshape(-1, 16, 16, 3),
    ),
    "pixel shuffle, channels first": lambda x: conv(
        5,
        conv(12, x, name="many")
        .reshape(-1, 8, 8, 3, 2, 2)
        .transpose(0, 1, 4, 2, 5, 3)
        .reshape(-1, 16, 16, 3),
    ),
    "take": lambda x: conv(5, jnp.take(x, np.array([3, 1, 0, 6]), axis=-1)),
    "index": lambda x: conv(5, x[..., np.array([7, 6, 5, 4, 3, 2, 1, 0])] + x),
    "pixels": lambda x: conv(5, x[:, np.array([[0, 2], [5, 1]]), np.array([3, 7])]),
    "flatten, written": lambda x: nn.Dense(6, name="fc")(x[:, ::4, ::4].reshape(-1, 32)),
    "to a map": lambda x: conv(
        5, nn.relu(nn.Dense(96, name="fc")(mean(x))).reshape(-1, 4, 4, 6), name="after"
    ),
    "to a map and a norm": lambda x: conv(
        5,
        nn.relu(
            nn.BatchNorm(True, name="bn")(nn.Dense(96, name="fc")(mean(x)).reshape(-1, 4, 4, 6))
        ),
    ),
    "to a map, adaptive": lambda x: conv(
        5, nn.Dense(48, name="fc")(mean(x)).reshape(len(x), 4, 4, -1)
    ),
}


def conv(features, x, name="next"):
    return nn.Conv(features, (3, 3), name=name)(x)


class Channels(nn.Module):
    """A stem of eight filters, what is done to its channels, a head."""

    body: Any

    @nn.compact
    def __call__(self, x):
        x = self.body(nn.relu(nn.Conv(8, (3, 3), name="stem")(x)))
        return nn.Dense(3, name="head")(mean(nn.relu(x)) if x.ndim == 4 else nn.relu(x))


@pytest.mark.parametrize("body", CHANNELS.values(), ids=CHANNELS)
@pytest.mark.one_in(6)
def test_channels_that_are_picked_parted_or_arranged_are_followed(body):
    module = Channels(body)
    variables = initialised(module, {}, IMAGES)
    once = check_pruned(module, variables, IMAGES, 4)
    twice = check_pruned(once.module, once.variables, IMAGES, 5)
    assert twice.after["formula"] < once.after["formula"] < once.before["formula"]


def test_places_that_the_image_picks_leave_the_channels_as_they_were():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            maps = nn.relu(nn.Conv(8, (3, 3), name="stem")(x))
            brightest = jnp.argsort(x.sum((2, 3)), axis=1)[:, :3]
            rows = jax.vmap(lambda one, places: one[places])(maps, brightest)
            return nn.Dense(3, name="head")(mean(nn.relu(conv(5, rows))))

    module = Net()
    result = check_pruned(module, initialised(module, {}, IMAGES), IMAGES, 4)
    assert result.after["formula"] < result.before["formula"]
