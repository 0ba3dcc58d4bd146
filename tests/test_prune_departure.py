"""`proven` stands where the smaller trace is the whole one's but for sizes, and nowhere else."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import prunable
import pytest
from jax import lax

from rice_jax import prune
from rice_jax.graph.equations import Equation
from rice_jax.graph.narrowed import Places
from rice_jax.graph.trace import trace, variable_shapes
from rice_jax.prune.agreement import agree
from rice_jax.prune.departure import departure
from rice_jax.prune.fitting import narrowed
from rice_jax.prune.surgery import cut

SHAPE = (2, 6, 6, 3)
APPLY = Equation.apply


class Net(nn.Module):
    """A stem of eight filters, `body`, and a layer that reads what comes of it."""

    body: object

    @nn.compact
    def __call__(self, x):
        x = self.body(nn.relu(nn.Conv(8, (3, 3), name="stem")(x)))
        x = nn.relu(nn.Conv(4, (1, 1), name="late")(x))
        return nn.Dense(3, name="head")(x.mean((1, 2)))


def dying(module):
    """Variables under which filters 1 and 5 of the stem are zero on every image."""
    variables = prunable.random_variables(variable_shapes(module, SHAPE), 0)
    variables["params"]["stem"]["kernel"][..., [1, 5]] = 0
    variables["params"]["stem"]["bias"][[1, 5]] = -1.0
    return variables


def proven(module, variables, **options):
    images = [prunable.images(0, SHAPE)]
    return prune.prune(module, variables, images, drop="proven", **options)


def of_map(reduce, x):
    return reduce(x, axis=(1, 2), keepdims=True)


HIDDEN = {
    "a bright map": lambda x: x + jnp.where(of_map(jnp.mean, x) > 5e5, x.shape[-1], 0.0),
    "a flat map": lambda x: (
        x * jnp.where(of_map(jnp.max, x) - of_map(jnp.min, x) > 9e5, x.shape[-1], 1.0)
    ),
    "a bright place": lambda x: jnp.minimum(x, 9e5 * x.shape[-1]),
    "a power": lambda x: x + jnp.maximum(x - 5e5, 0) ** (x.shape[-1] // 2),
}


@pytest.mark.parametrize("name", HIDDEN)
def test_what_random_images_do_not_tell_is_a_departure(name):
    """A number that came from a shape, and that few images meet."""
    module = Net(HIDDEN[name])
    variables = dying(module)
    graph, removed, fewer, fit = without(module, variables, {"stem": [1, 5]})
    assert "in the whole module" in departure(graph, removed, fit.trace, fit.held)
    assert agree(graph, removed, (), variables, fit.trace, fewer)


def tensor_cores(equation, *operands):
    """What a GPU gives: products in TF32 where channels come in eights, if it is not told else."""
    aligned = all(size % 8 == 0 for value in equation.outputs for size in value.shape[-1:])
    products = equation.name in ("conv_general_dilated", "dot_general")
    if products and aligned and jax.config.jax_default_device is None:
        operands = [lax.reduce_precision(jnp.asarray(each), 8, 10) for each in operands]
    return APPLY(equation, *operands)


@pytest.mark.parametrize("name", HIDDEN)
def test_nets_agree_where_a_device_multiplies_in_less_precision(name, monkeypatch):
    module = Net(HIDDEN[name])
    variables = dying(module)
    graph, removed, fewer, fit = without(module, variables, {"stem": [1, 5]})
    monkeypatch.setattr(Equation, "apply", tensor_cores)
    (wanted, *_), (got, *_) = (
        net.evaluate(given, jnp.ones(net.input.shape), net.outputs)
        for net, given in ((graph.trace, variables), (fit.trace, fewer))
    )
    assert np.abs(wanted - got).max() > 1e-5 * np.abs(wanted).max()  # as they come they do not
    assert agree(graph, removed, (), variables, fit.trace, fewer)


def test_what_random_images_do_not_tell_is_not_proven():
    module = Net(HIDDEN["a bright map"])
    variables = dying(module)
    result = proven(module, variables)
    assert result.removed["stem"] == [1, 5]
    assert not result.certificate.proven
    assert "in the whole module" in result.certificate.departure
    assert result.to_json()["certificate"]["departure"] == result.certificate.departure
    assert result.certificate.max_abs_logit_difference < 1e-5
    bright = 1e7 * prunable.images(0, SHAPE)
    one, other = (
        net.apply(weights, bright)
        for net, weights in ((module, variables), (result.module, result.variables))
    )
    assert float(jnp.max(jnp.abs(one - other))) > 1


REPEATED = {
    "sum": lambda c: jnp.ones(c).sum(),
    "maximum and sum": lambda c: jnp.exp(nn.logsumexp(jnp.zeros(c))),
    "product": lambda c: jnp.prod(jnp.full(c, 1.1)),
    "two axes": lambda c: (jnp.ones((c, 1)) * jnp.ones((1, c))).sum(),
    "one of two axes": lambda c: jnp.ones((2, c)).sum(1)[0],
    "reshaped": lambda c: jnp.ones((2, c)).reshape(-1).sum(),
    "by a function": lambda c: lax.reduce(jnp.ones(c), 1.0, lambda a, b: a + b / 2, (0,)),
}
"""What is made of one number by repeating it once a channel."""


@pytest.mark.parametrize("name", REPEATED)
def test_a_number_made_of_as_many_as_there_are_channels_is_a_departure(name):
    module = Net(lambda x: x / REPEATED[name](x.shape[-1]))
    graph, removed, _, fit = without(module, dying(module), {"stem": [1]})
    found = departure(graph, removed, fit.trace, fit.held)
    assert found
    assert "one number" in found


def test_repetitions_that_a_channel_meets_are_no_departure():
    module = Net(lambda x: x * jnp.ones((6, x.shape[-1])).mean(0))
    graph, removed, _, fit = without(module, dying(module), {"stem": [1]})
    assert departure(graph, removed, fit.trace, fit.held) is None


def test_no_channel_goes_that_changes_a_number_made_of_repetitions():
    result = proven(module := Net(lambda x: x / jnp.ones(x.shape[-1]).sum()), dying(module))
    assert "stem" not in result.removed
    assert any(reason.startswith("stem: reduce_sum") for reason in result.kept_whole)


def halves(x):
    return jnp.concatenate([x[..., :4] + 1, x[..., 4:] * 2], -1)


def shuffled(x):
    return x.reshape(*x.shape[:3], 2, 4).swapaxes(3, 4).reshape(*x.shape[:3], 8)


PLACED = {
    "nothing": lambda x: x,
    "halves": halves,
    "shuffled": shuffled,
    "shuffled halves": lambda x: shuffled(halves(x)),
    "picked": lambda x: x[..., np.array([7, 6, 5, 4, 3, 2, 1, 0])],
    "picked twice": lambda x: x[..., np.arange(8)[::-1]][..., np.array([3, 1, 0, 2, 4, 7, 6, 5])],
    "gated": lambda x: x[..., :4] * nn.sigmoid(x[..., 4:]),
    "written sizes": lambda x: x.reshape(-1, 36, 8).reshape(-1, 6, 6, 8),
    "to pixels": lambda x: (
        x.reshape(-1, 6, 6, 2, 2, 2).transpose(0, 1, 3, 2, 4, 5).reshape(-1, 12, 12, 2)
    ),
}


def without(module, variables, filters):
    """The dependencies, what is removed, the smaller variables, and the module that takes them."""
    graph = prune.dependencies(module, SHAPE)
    removed = graph.select(filters)
    fewer = cut(variables, graph, removed)
    return graph, removed, fewer, narrowed(module, fewer, graph, removed)


@pytest.mark.parametrize("name", PLACED)
def test_channels_that_keep_their_places_are_no_departure(name):
    module = Net(PLACED[name])
    graph, removed, fewer, fit = without(module, dying(module), {"stem": [1]})
    assert departure(graph, removed, fit.trace, fit.held) is None
    filters = {"late": [1]} | ({} if name == "to pixels" else {"stem": [0]})
    graph, removed, _, fit = without(fit.net, fewer, filters)
    assert departure(graph, removed, fit.trace, fit.held) is None


def test_channels_that_keep_their_places_do_not_weaken_the_proof():
    module = Net(PLACED["shuffled"])
    result = proven(module, dying(module))
    assert result.removed["stem"] == [1, 5]
    assert result.certificate.departure is None
    assert result.certificate.proven


def test_a_place_that_is_not_its_own_is_a_departure(monkeypatch):
    """In what goes to its places, and in what is taken from them."""
    module = Net(shuffled)
    graph, removed, fewer, fit = without(module, dying(module), {"stem": [1, 5]})
    assert departure(graph, removed, fit.trace, fit.held) is None
    assert departure(graph, removed, fit.trace) is not None  # where no place may stay
    for name in ("read", "write"):
        right = getattr(Places, name)

        def swapped(self, array, right=right):
            kept = (*self.kept[1::-1], *self.kept[2:])
            return right(Places(self.axis, self.size, kept), array)

        with monkeypatch.context() as patch:
            patch.setattr(Places, name, swapped)
            wrong = narrowed(module, fewer, graph, removed)
        assert departure(graph, removed, wrong.trace, wrong.held) is not None


class InPlaces(nn.Module):
    """The shuffled net, its stem's six channels left at the places of eight; `read` takes them."""

    read: object

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(6, (3, 3), name="stem")(x)
        x = Places(-1, 8, (0, 2, 3, 4, 6, 7)).write(x)
        x = nn.relu(nn.Conv(4, (1, 1), name="late")(self.read(shuffled(nn.relu(x)))))
        return nn.Dense(3, name="head")(x.mean((1, 2)))


def test_a_sum_over_places_of_what_is_gone_is_a_departure():
    """Zeros there are right only as long as nothing makes another number of them."""
    module = Net(shuffled)
    graph, removed, _, _ = without(module, dying(module), {"stem": [1, 5]})
    held, one = np.ones(graph.channels, bool), (1, *SHAPE[1:])
    left = Places(-1, 8, (0, 1, 4, 5, 6, 7))  # 1 and 5 are shuffled to 2 and 3
    assert departure(graph, removed, trace(InPlaces(left.read), one), held) is None
    found = departure(graph, removed, trace(InPlaces(lambda x: x), one), held)
    assert found
    assert "sums over places of channels that are gone" in found


def test_one_channel_is_not_spread_over_the_places_of_others():
    """A bias of one entry fits any number of places."""
    first = Places(-1, 3, (0,))

    class Biased(nn.Module):
        width: int
        bias: int

        @nn.compact
        def __call__(self, x):
            x = nn.Conv(self.width, (1, 1), use_bias=False, name="stem")(x)
            if self.width == 1:
                x = first.write(x)
            x = x + self.param("bias", nn.initializers.ones, (self.bias,))
            if self.width == 1:
                x = first.read(x)
            return nn.Dense(3, name="head")(x.mean((1, 2)))

    graph = prune.dependencies(Biased(3, 3), SHAPE)
    removed = graph.select({"stem": [1, 2]})
    smaller = trace(Biased(1, 1), (1, *SHAPE[1:]))
    found = departure(graph, removed, smaller, np.ones(graph.channels, bool))
    assert found
    assert "spreads one channel" in found


def test_a_net_that_returns_something_else_is_a_departure():
    class Two(nn.Module):
        first: bool

        @nn.compact
        def __call__(self, x):
            x = nn.relu(nn.Conv(4, (1, 1), name="stem")(x)).mean((1, 2))
            one, other = nn.Dense(3, name="one")(x), nn.Dense(3, name="other")(x)
            return {"a": one, "b": other} if self.first else {"a": other, "b": one}

    graph = prune.dependencies(Two(True), SHAPE, output="a")
    nothing = np.zeros(graph.channels, bool)
    same, swapped = (trace(Two(first), (1, *SHAPE[1:]), output="a") for first in (True, False))
    assert departure(graph, nothing, same) is None
    assert departure(graph, nothing, swapped) is not None
