"""How random kernels are drawn: as the net says, or by He's rule."""

import flax.linen as nn
import jax
import numpy as np
import pytest
from flax import traverse_util

from rice_jax import config as configuration
from rice_jax import models, own_net, train
from rice_jax.train.origin import changes, decided

SIDE = 64


def drawn(name, initializer, seed=0, **fields):
    made = configuration.default(name)
    given = {"data.image_size": SIDE, "model.weights": "random", "seed": seed, **fields}
    made.update_from_flattened_dict({**given, "train.initializer": initializer})
    params = train.initial_params(made, train.build(made))
    return {path: np.asarray(leaf) for path, leaf in traverse_util.flatten_dict(params).items()}


ONE_OF_EACH_KIND = {"final", "googlenet_light", "micro"}
DRAWN = [
    pytest.param(name, marks=() if name in ONE_OF_EACH_KIND else pytest.mark.thorough)
    for name in sorted(models.NETS)
]
FEWER_LAYERS = {"googlenet_light": {"model.inceptions": (((12, 8, 16, 4, 8, 8),),)}}
"""Each inception has six kernels of other shapes, which take XLA a second."""


@pytest.fixture(scope="module", params=DRAWN)
def both(request):
    """The parameters of a net by the two rules."""
    fields = FEWER_LAYERS.get(request.param, {})
    return drawn(request.param, "own", **fields), drawn(request.param, "he", **fields)


def inputs(kernel):
    return int(np.prod(kernel.shape[:-1]))


def glorots(kernel):
    """Largest weight by Glorot and Bengio 2010 (16): receptive field times both channels."""
    field = int(np.prod(kernel.shape[:-2]))
    return np.sqrt(6 / (field * (kernel.shape[-2] + kernel.shape[-1])))


def hes(kernel):
    """Of uniform weights of variance 2 / inputs, He et al. 2015 (10): its square / 3."""
    return np.sqrt(6 / inputs(kernel))


@pytest.mark.parametrize(("which", "most"), [(0, glorots), (1, hes)], ids=["own", "he"])
def test_each_kernel_fills_the_interval_of_its_rule(both, which, most):
    kernels = {path: leaf for path, leaf in both[which].items() if path[-1] == "kernel"}
    assert kernels
    for path, kernel in kernels.items():
        limit = most(kernel)
        assert np.abs(kernel).max() <= limit * (1 + 1e-6), path
        # The mean square of n such weights is limit^2 / 3, give or take sqrt(4 / (45 n)) limit^2.
        stray = 5 * np.sqrt(4 / (45 * kernel.size))
        assert np.mean(kernel**2) / limit**2 == pytest.approx(1 / 3, abs=stray), path


def test_nothing_but_kernels_is_drawn_otherwise(both):
    own, he = both
    assert {path: leaf.shape for path, leaf in own.items()} == {
        path: leaf.shape for path, leaf in he.items()
    }
    for path, leaf in own.items():
        assert np.array_equal(leaf, he[path]) == (path[-1] != "kernel"), path


def test_a_seed_decides():
    first, again, other = (drawn("final", "he", seed) for seed in (0, 0, 1))
    for path, leaf in first.items():
        np.testing.assert_array_equal(leaf, again[path])
        assert path[-1] != "kernel" or not np.array_equal(leaf, other[path])
    kernels = [leaf.ravel()[:8] for path, leaf in first.items() if path[-1] == "kernel"]
    scaled = [np.round(kernel / np.abs(kernel).max(), 5).tolist() for kernel in kernels]
    assert len({tuple(kernel) for kernel in scaled}) == len(kernels)  # no two of one stream


def test_weights_that_are_given_stay():
    given = drawn("final", "he", **{"model.weights": "zoo:final", "data.image_size": 224})
    for path, leaf in drawn("final", "own", **{"model.weights": "zoo:final"}).items():
        np.testing.assert_array_equal(leaf, given[path])


class Bent(nn.Module):
    """A net whose other arrays have values that a rule for kernels must not touch."""

    @nn.compact
    def __call__(self, x):
        table = self.param("table", nn.initializers.constant(0.25), (3, 4))
        x = nn.Conv(4, (3, 3), bias_init=nn.initializers.constant(0.5), name="conv")(x)
        x = nn.GroupNorm(2, name="norm")(x)
        scale = self.param("kernel", nn.initializers.ones, (4,))  # one axis: no kernel of a layer
        return nn.Dense(5, name="head")((x * scale).mean((1, 2)) + table.mean(0))


def test_of_any_net_the_kernels_alone():
    from rice_jax.train.state import random_params

    own, he = (random_params(Bent(), (1, 8, 8, 3), 0, how) for how in ("own", "he"))
    same = jax.tree.map(np.array_equal, own, he)
    changed = {
        "/".join(path) for path, alike in traverse_util.flatten_dict(same).items() if not alike
    }
    assert changed == {"conv/kernel", "head/kernel"}


@pytest.mark.parametrize(("net", "seed"), [(Bent(), 0), (models.build("final"), 3)])
def test_each_kernel_is_what_flax_draws_of_its_key(net, seed):
    """The keys go to the kernels in the order in which the net makes its layers."""
    from rice_jax.train.state import random_params

    shape = (1, 16, 16, 3)
    named = traverse_util.flatten_dict(
        net.init(jax.random.key(0), jax.numpy.zeros(shape))["params"]
    )
    kernels = [path for path, leaf in named.items() if path[-1] == "kernel" and leaf.ndim > 1]
    keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), 1), len(kernels))
    found = traverse_util.flatten_dict(random_params(net, shape, seed, "he"))
    for path, key in zip(kernels, keys, strict=True):
        own = nn.initializers.he_uniform()(key, named[path].shape)
        np.testing.assert_array_equal(found[path], own, "/".join(path))


class Whole(nn.Module):
    """A net of a user's own."""

    classes: int = 5

    @nn.compact
    def __call__(self, images):
        return nn.Dense(self.classes, name="head")(images.mean((1, 2)))


@pytest.mark.parametrize("name", ["final", "cnn", "googlenet_light", "micro", "Whole"])
@pytest.mark.parametrize("schedule", ["study", "quick"])
@pytest.mark.parametrize("asked", [None, "auto", "own", "he"])
def test_what_is_left_open_goes_by_the_schedule_and_whose_net_it_is(name, schedule, asked):
    made = asking(name, schedule, asked)
    content = decided(configuration.to_json(made))
    told = content["train"]["initializer"]
    if asked in ("own", "he"):
        assert told == asked
    elif name == "micro" and asked is None:
        assert told == "own"  # its recipe says so
    else:
        assert told == ("he" if schedule == "quick" and name != "Whole" else "own")


@pytest.mark.parametrize("name", ["final", "micro", "Whole"])
@pytest.mark.parametrize("schedule", ["study", "quick"])
@pytest.mark.parametrize("asked", [None, "own"])
def test_a_net_starts_as_is_told(name, schedule, asked):
    made = asking(name, schedule, asked)
    content = decided(configuration.to_json(made))
    starts = [
        jax.tree.leaves(train.initial_params(config, train.build(config)))
        for config in (made, configuration.from_json(content))
    ]
    for left, told in zip(*starts, strict=True):
        np.testing.assert_array_equal(left, told)


def asking(name, schedule, initializer):
    made = configuration.default(name) if name != "Whole" else own_net.configuration(Whole)
    made.train.schedule, made.data.image_size, made.model.weights = schedule, 56, "random"
    if initializer:
        made.train.initializer = initializer
    return made


@pytest.mark.parametrize("schedule", ["study", "quick"])
def test_a_run_from_before_there_was_a_choice_was_drawn_as_its_net_says(schedule):
    old = configuration.to_json(asking("final", schedule, None))
    now = configuration.to_json(asking("final", schedule, "auto"))
    del old["train"]["initializer"]
    assert configuration.completed(old)["train"]["initializer"] == "own"
    assert not changes(old, now)  # it goes on


@pytest.mark.parametrize(
    ("schedule", "before", "now", "same"),
    [
        ("study", "own", "auto", True),
        ("study", "auto", "he", False),
        ("quick", "he", "auto", True),
        ("quick", "own", "auto", False),
    ],
)
def test_a_run_goes_on_where_the_rule_is_the_same_however_it_was_asked_for(
    schedule, before, now, same
):
    found = changes(*(configuration.to_json(asking("final", schedule, h)) for h in (before, now)))
    assert [path for path, *_ in found] == ([] if same else ["train.initializer"])
