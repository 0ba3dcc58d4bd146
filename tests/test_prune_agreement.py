"""Kernels and norms that are computed: cut rightly, or left whole and named."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import prunable
import pytest
from jax import lax
from test_prune_surgery import some_channels

from rice_jax import prune
from rice_jax.graph.trace import variable_shapes

SHAPE = (2, 6, 6, 3)
NUMBERS = ("NHWC", "HWIO", "NHWC")


class Computed(nn.Module):
    """A convolution whose kernel is what `body` makes of its parameters."""

    features: int
    body: object

    @nn.compact
    def __call__(self, x):
        shape = (3, 3, x.shape[-1], self.features)
        kernel = self.body(self, self.param("kernel", nn.initializers.normal(), shape))
        bias = self.param("bias", nn.initializers.ones, (self.features,))
        return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=NUMBERS) + bias


def computed(body):
    return lambda: Computed(8, body, name="conv")


def standardized(_, kernel):
    centred = kernel - kernel.mean((0, 1, 2))
    return centred / jnp.sqrt((centred**2).mean((0, 1, 2)) + 1e-5)


def per_filter(module, kernel):
    return kernel * module.param("gain", nn.initializers.ones, (module.features,))


def per_channel(module, kernel):
    gain = module.param("gain", nn.initializers.ones, (kernel.shape[2],))
    return jnp.exp(gain)[:, None] * kernel


class Stage(nn.Module):
    """What `make` makes, called in a module of its own."""

    make: object

    @nn.compact
    def __call__(self, x):
        made = self.make()
        for layer in made if isinstance(made, list) else [made]:
            x = layer(x)
        return x


class Net(nn.Module):
    """Two stages of eight filters between a stem and a head."""

    make: object

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(8, (1, 1), name="stem")(x))
        for name in ("first", "second"):
            x = nn.relu(Stage(self.make, name=name)(x))
        return nn.Dense(3, name="head")(x.mean((1, 2)))


def with_norm(norm):
    return lambda: [nn.Conv(8, (3, 3), name="conv"), norm()]


STAGES = {
    "a constant": (computed(lambda _, kernel: kernel * 0.3), []),
    "a gain a filter": (computed(per_filter), []),
    "a gain a channel": (computed(per_channel), []),
    "one gain": (computed(lambda m, k: k * m.param("gain", nn.initializers.ones, (1,))), []),
    "standardized": (computed(standardized), ["reduce_sum in {}"]),
    "equalized": (computed(lambda _, k: k / jnp.sqrt(9.0 * k.shape[2])), ["sqrt in {}"]),
    "weight norm": (
        lambda: nn.WeightNorm(nn.Conv(8, (3, 3), name="conv"), name="norm"),
        ["reduce_sum in {}"],
    ),
    "local": (lambda: nn.ConvLocal(8, (3, 3), name="conv"), ["conv_general_dilated in {}"]),
    "groups": (with_norm(lambda: nn.GroupNorm(4)), []),
    "groups of a size": (with_norm(lambda: nn.GroupNorm(None, group_size=2)), []),
    "instance norm": (with_norm(nn.InstanceNorm), []),
}


@pytest.mark.parametrize("name", STAGES)
@pytest.mark.one_in(3)
def test_what_is_cut_equals_the_net_with_those_channels_at_zero(name):
    """The stem goes with the kernels' inputs, each stage with its own filters."""
    make, held = STAGES[name]
    module = Net(make)
    variables = prunable.random_variables(variable_shapes(module, SHAPE), 0)
    images = [(prunable.images(0, SHAPE), np.zeros(2, int))]
    free = {"second/conv"} if held else {"stem", "first/conv", "second/conv"}
    graph = prune.dependencies(module, SHAPE)
    graph = prune.hold_shapes(module, variables, graph)
    assert {path for g in range(graph.groups) for path in graph.layers(g)} == free
    removed = some_channels(graph, seed=1, share=0.5)
    result = prune.prune(module, variables, images, filters=graph.by_layer(removed))
    assert result.removed.keys() == free

    stages = {"stem": "stem", "first/conv": "first", "second/conv": "second"}
    whole = prunable.Silencer(module, {path: (of, 8) for path, of in stages.items()}, SHAPE)
    wanted = whole(variables, images[0][0], result.removed)
    got = result.module.apply(result.variables, images[0][0])
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)

    for path, stage in (("stem", "first"), ("first/conv", "second")):
        for reason in held:
            said = [line for line in result.kept_whole if line.startswith(f"{path}: ")]
            assert len(said) == 1
            assert reason.format(stage) in said[0]
    assert len(result.kept_whole) == 2 * len(held)


def test_a_group_norms_channels_go_by_whole_groups():
    graph = prune.dependencies(Net(STAGES["groups"][0]), SHAPE)
    channels = graph.filters["first/conv"].channels
    np.testing.assert_array_equal(channels[::2], channels[1::2])
    assert len(set(channels.tolist())) == 4


def test_what_is_tied_to_the_image_or_a_constant_is_named():
    class Skip(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = x + nn.Conv(3, (3, 3), name="inner")(nn.relu(nn.Conv(4, (3, 3), name="stem")(x)))
            x = nn.relu(nn.Conv(5, (1, 1), name="last")(x)) * jnp.arange(5.0)
            return nn.Dense(2, name="head")(x.mean((1, 2)))

    graph = prune.dependencies(Skip(), SHAPE)
    assert list(graph.kept_whole) == [
        "inner: add in the outermost module ties it to what stays",
        "last: mul in the outermost module ties it to what stays",
    ]


class Shared(nn.Module):
    """A kernel times a gain in two calls."""

    width: int = 8

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(self.width, (3, 3), name="stem")(x))
        shape = (3, 3, self.width, self.width)
        kernel = self.param("kernel", nn.initializers.normal(1.0), shape)
        kernel = kernel * self.param("gain", nn.initializers.ones, (1,))
        for _ in range(2):
            x = nn.relu(lax.conv_general_dilated(x, kernel, (1, 1), "SAME", None, None, NUMBERS))
        return nn.Dense(3, name="head")(x.mean((1, 2)))


@pytest.mark.parametrize("budget", [6, 8, 13])
def test_a_budget_of_filters_is_met_by_the_profilers_count(budget):
    module = Shared()
    variables = jax.tree.map(np.asarray, module.init(jax.random.key(0), np.zeros(SHAPE)))
    result = prune.prune(
        module,
        variables,
        [(prunable.images(0, SHAPE), np.zeros(2, int))],
        budgets={"filters": budget},
        criterion="l1",
        rebuild=lambda widths: Shared(widths["stem"]),
    )
    assert result.before["filters"] == 16  # the stem's and the kernel's, which is met twice
    assert result.after["filters"] == result.budgets["filters"]["met"] == budget - budget % 2
