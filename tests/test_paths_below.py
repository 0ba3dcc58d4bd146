"""A path stands for what is below it, whoever takes it, with a '/' at its end or without."""

import pytest

from rice_jax import models, profile
from rice_jax.config import default
from rice_jax.graph.scopes import is_under
from rice_jax.lighten import smaller
from rice_jax.prune import dependencies
from rice_jax.prune.allocation import held
from rice_jax.train import state

SHAPE = (1, 32, 32, 3)
NET = models.build("googlenet_light")
SHAPES = state.shapes(NET, SHAPE, ()).params


def made_alone(paths):
    graph = dependencies(NET, SHAPE, train=False)
    return graph.by_layer(~held(graph, paths, ()))


def left_frozen(paths):
    config = default("googlenet_light")
    config.train.frozen = (*paths, "conv1")
    return smaller.frozen_without(config, ["inception3a"])


TAKERS = {
    "what learns": lambda paths: state.partition(SHAPES, paths),
    "a count": lambda paths: profile.count(NET, SHAPE, frozen=paths, train=False),
    "a pruning": made_alone,
    "a net without a block": left_frozen,
}


@pytest.mark.parametrize("taken", TAKERS.values(), ids=TAKERS)
@pytest.mark.parametrize("path", ["inception3a", "inception3a/branch2"])
def test_a_path_is_the_same_with_a_slash_at_its_end(path, taken):
    assert taken((path,)) == taken((f"{path}/",))


@pytest.mark.parametrize(
    ("path", "below"),
    [
        ("conv1", True),
        ("conv1/kernel", True),
        ("conv10", False),
        ("block/conv1", False),
        ("", False),
    ],
)
def test_below_is_what_a_slash_parts(path, below):
    assert is_under(path, ["head", "conv1"]) == below
    assert not is_under(path, [])
