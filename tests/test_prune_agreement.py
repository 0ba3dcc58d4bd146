"""Kernels and norms that are computed, and modules that read their own widths: cut rightly, or left
whole and named."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import prunable
import pytest
from jax import lax
from test_prune_surgery import some_channels

from rice_jax import prune
from rice_jax.errors import UserError
from rice_jax.graph.trace import variable_shapes
from rice_jax.prune import surgery

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
@pytest.mark.one_in(2)
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


class Reads(nn.Module):
    """A stem of eight filters, then `body`, which reads how many there are."""

    body: object

    @nn.compact
    def __call__(self, x):
        x = self.body(nn.relu(nn.Conv(8, (3, 3), name="stem")(x)))
        return nn.Dense(3, name="head")(x.mean((1, 2)))


READS = {
    "root": (lambda x: x / jnp.sqrt(x.shape[-1]), "sqrt", "8", "7"),
    "mean of channels": (lambda x: x / x.shape[-1], "div", "8", "7"),
    "a quarter": (lambda x: x * (x.shape[-1] // 4), "mul", "2", "1"),
    "power": (lambda x: x ** (x.shape[-1] // 2), "integer_pow", "y=4", "y=3"),
    "array": (
        lambda x: x * jnp.asarray(np.full((1, 1), 1 / x.shape[-1])),
        "outermost",
        "0.125",
        "0.14",
    ),
    "in a layer": (
        lambda x: nn.Dense(4, name="late")(x / np.float32(x.shape[-1] ** 0.5)),
        "div in the outermost module",
        "2.82843",
        "2.64575",
    ),
}


def reading(name):
    module = Reads(READS[name][0])
    variables = prunable.random_variables(variable_shapes(module, SHAPE), 0)
    return module, variables, prune.dependencies(module, SHAPE)


@pytest.mark.parametrize("name", READS)
@pytest.mark.one_in(2)
def test_a_number_that_came_from_a_shape_stays_what_it_was(name):
    """The layer is left whole and named by a budget, and refused where it is asked for."""
    module, variables, graph = reading(name)
    operation, before, after = READS[name][1:]
    with pytest.raises(UserError, match="computes something else than the whole one") as refusal:
        surgery.remove(module, variables, graph, graph.select({"stem": [2]}))
    said = str(refusal.value)
    assert operation in said
    assert before in said
    assert after in said

    images = [(prunable.images(0, SHAPE), np.zeros(2, int))]
    variables["params"]["stem"]["kernel"][..., 3] = 0  # never anything but its bias,
    variables["params"]["stem"]["bias"][3] = -1.0  # which a ReLU takes
    result = prune.prune(module, variables, images, drop="proven")
    assert "stem" not in result.removed
    (line,) = result.kept_whole
    assert line.startswith("stem: ")
    assert operation in line
    assert result.certificate.max_abs_logit_difference == 0
    with pytest.raises(UserError, match="filter 2 of stem cannot be removed"):
        prune.prune(module, variables, images, filters={"stem": [2]})


class Handmade(nn.Module):
    """Makes its own weight, of a width that no field tells."""

    @nn.compact
    def __call__(self, x):
        return nn.relu(x @ self.param("weight", nn.initializers.normal(), (x.shape[-1], 4)))


def test_a_layer_that_cannot_be_narrowed_does_not_hide_a_number_of_another():
    module = Reads(lambda x: Handmade(name="hand")(x / jnp.sqrt(x.shape[-1])))
    variables = prunable.random_variables(variable_shapes(module, SHAPE), 0)
    graph = prune.hold_shapes(module, variables, prune.dependencies(module, SHAPE))
    assert [line.partition(":")[0] for line in graph.kept_whole] == ["stem"]
    assert {path for g in range(graph.groups) for path in graph.layers(g)} == {"hand"}


class Excited(nn.Module):
    """A squeeze of a quarter of the channels, whatever they are, and a shortcut of as many."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(8, (3, 3), name="stem")(x))
        gate = nn.relu(nn.Dense(x.shape[-1] // 4, name="squeeze")(x.mean((1, 2))))
        x = x * nn.sigmoid(nn.Dense(x.shape[-1], name="excite")(gate))[:, None, None]
        x = nn.relu(nn.Conv(2 * x.shape[-1], (1, 1), name="twice")(x))
        return nn.Dense(3, name="head")(x.mean((1, 2)))


def test_a_layers_width_that_came_from_a_shape_stays_what_it_was():
    module = Excited()
    shapes = variable_shapes(module, SHAPE)
    variables, x = prunable.random_variables(shapes, 0), prunable.images(0, SHAPE)
    removed = {"stem": [0, 3, 5], "excite": [0, 3, 5]}
    images = [(x, np.zeros(2, int))]
    result = prune.prune(module, variables, images, filters={"stem": [0, 3, 5]})
    assert result.removed == removed
    assert [len(result.kept[path]) for path in ("squeeze", "twice")] == [2, 16]
    whole = prunable.Silencer(module, {"stem": ("stem", 8)}, SHAPE)
    got = result.module.apply(result.variables, x)
    np.testing.assert_allclose(got, whole(variables, x, {"stem": [0, 3, 5]}), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "body",
    [
        lambda x: x + 0.0 if x.shape[-1] % 2 else x,
        lambda x: x * (x.shape[-1] / x.shape[-1]),
        lambda x: x.reshape(x.shape[0], -1, x.shape[-1])[:, None],
        lambda x: x - 0 * jnp.sqrt(x.shape[-1] + 0.0),
    ],
)
def test_a_shape_that_is_read_without_an_effect_hinders_nothing(body):
    module = Reads(body)
    variables = prunable.random_variables(variable_shapes(module, SHAPE), 0)
    images = [(prunable.images(0, SHAPE), np.zeros(2, int))]
    result = prune.prune(module, variables, images, filters={"stem": [1]})
    assert result.removed == {"stem": [1]}
    assert not result.kept_whole


def test_groups_that_the_code_does_not_narrow_keep_their_places():
    """Groups of two whose number is written in the code, and four groups of whatever size."""
    x = prunable.images(0, SHAPE)
    for body in (
        lambda x: x.reshape(-1, 6, 6, 4, 2).mean(-1),
        lambda x: x.reshape(*x.shape[:-1], 4, -1).mean(-1),
    ):
        module = Reads(body)
        variables = prunable.random_variables(variable_shapes(module, SHAPE), 0)
        result = prune.prune(module, variables, [x], filters={"stem": [2]})
        assert result.removed == {"stem": [2, 3]}
        assert not result.kept_whole
        whole = prunable.Silencer(module, {"stem": ("stem", 8)}, SHAPE)
        got = result.module.apply(result.variables, x)
        wanted = whole(variables, x, result.removed)
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)


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
