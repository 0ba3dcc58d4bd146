"""What is proven of filters, dead or always the same on every image: never wrong by a rounding."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from inspected import IDENTITY, Function, Looped, One, one, random_variables, resized
from jax import lax

from rice_jax import inspection
from rice_jax.errors import UserError

SHAPE = (32, 32, 3)


UNBOUNDED = {
    "sort": ("sort", lambda x: jnp.sort(x, axis=1)),
    "clipped sort": ("sort", lambda x: jnp.clip(jnp.tanh(jnp.sort(x, axis=1)), 0, 1)),
    "cumulative": (
        "cumlogsumexp",
        lambda x: nn.max_pool(nn.relu(-lax.cumlogsumexp(x, 1)), (2, 2)),
    ),
    "unknown places, or none": (
        "argmax",
        lambda x: x.at[:, jnp.argmax(x[0, :, 0, 0])[None]].get(mode="fill"),
    ),
    "nothing to divide by": ("div", lambda x: nn.relu(jnp.clip(1 / (x - 0.5), 0, 1))),
    "a logarithm of nothing": ("log", lambda x: nn.sigmoid(jnp.log(x))),
    "too large a number": ("exp", lambda x: nn.sigmoid(jnp.exp(1000 * x))),
}
"""Functions, and the operation that bounds nothing."""


@pytest.mark.parametrize("name", UNBOUNDED)
def test_nothing_is_proven_behind_what_has_no_bounds(name):
    primitive, function = UNBOUNDED[name]

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.relu(nn.Conv(3, (3, 3), name="before")(x))
            return nn.relu(nn.Conv(3, (1, 1), name="after")(function(x)))

    variables = random_variables(Net(), (1, 6, 6, 3), seed=0)
    proof = inspection.prove(Net(), variables, (6, 6, 3))
    assert proof.dead == {"before": [0], "after": []}
    assert proof.constant == {"before": {}, "after": {}}
    assert proof.unbounded == (f"{primitive} in the module itself",)


NEAR_ZERO = {
    "layer norm": lambda x: nn.LayerNorm(use_bias=False, use_scale=False)(8 * x - 3),
    "root mean square": lambda x: x * lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + 1e-6),
    "square": lambda x: x / (jnp.square(x - 0.5) + 1e-5),
    "length": lambda x: x / (jnp.sqrt((x**2).sum((1, 2), keepdims=True)) + 1e-6),
    "deviation": lambda x: jnp.log(x.var(-1, keepdims=True) + 1e-6) + x,
    "wide softmax": lambda x: nn.softmax(30 * x - 7),
    "softmax without end": lambda x: nn.softmax(1e9 * x - 3e8),
    "softmax over places": lambda x: jax.nn.softmax(1e5 * x, axis=(1, 2)),
    "attention": lambda x: nn.dot_product_attention(300 * x, 300 * x, x),
    "wide logarithm": lambda x: jnp.log(jnp.exp(12 * x - 6)),
    "half the bits": lambda x: 1 / (jnp.abs(x - 0.5).astype(jnp.bfloat16) + 1e-2),
    "products": lambda x: jnp.sqrt(x * x[..., ::-1] / 3 + 1e-6),
}
"""Functions that divide by, or take a logarithm or root of, what is above 0 by little."""


@pytest.mark.parametrize("name", NEAR_ZERO)
@pytest.mark.one_in(3)
def test_what_is_above_zero_stays_so_however_wide_its_bounds_are(name):
    """So filters are proven dead behind it too."""

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.relu(nn.Conv(3, (1, 1), name="after")(NEAR_ZERO[name](x)))

    weights, bias = [[0, 1, -1]] * 3, [-0.1, 9, 9]
    variables = {"params": {"after": {"kernel": np.float32([[weights]]), "bias": np.float32(bias)}}}
    shape = (3, 3, 3)
    assert inspection.proven_dead(Net(), variables, shape) == {"after": [0]}
    ((lo, hi),) = inspection.map_bounds(Net(), variables, shape)[0].values()
    pixels = np.random.default_rng(0).random((16, *shape), np.float32)
    pixels[8:] = pixels[8:] > 0.5
    maps = inspection.feature_maps(Net(), variables, pixels)["after"]
    assert np.isfinite(hi).all()
    assert np.all((lo <= maps) & (maps <= hi))


def quotient(x, of=lambda x: x, axis=-1, summed=-1, sum_of=None):
    """exp(x - max(of(x))) by its sum, each along an axis."""
    exponentials = jnp.exp(x - of(x).max(axis, keepdims=True))
    total = exponentials if sum_of is None else sum_of(exponentials)
    return exponentials / total.sum(summed, keepdims=True)


NO_SOFTMAX = {
    "by another maximum": lambda x: quotient(x, of=lambda x: x / 2),
    "by that of other places": lambda x: quotient(x, of=lambda x: x[:, ::-1]),
    "by that along another axis": lambda x: quotient(x, axis=1),
    "summed along another axis": lambda x: quotient(x, summed=1),
    "by another sum": lambda x: quotient(x, sum_of=lambda each: each / 4),
    "turned": lambda x: quotient(x, of=lambda x: x.swapaxes(1, 2)),
    "no finite number": lambda x: quotient(x / jnp.maximum(x - 1, 0)),
}


@pytest.mark.parametrize("name", NO_SOFTMAX)
@pytest.mark.one_in(3)
def test_what_only_looks_like_a_softmax_is_not_bounded_as_one(name):
    function = NO_SOFTMAX[name]
    net, shape = Function(lambda x: function(300 * x)), (3, 3, 3)
    ((lo, hi),) = inspection.map_bounds(net, IDENTITY, shape)[0].values()
    pixels = np.random.default_rng(0).random((64, *shape), np.float32)
    pixels[32:] = pixels[32:] > 0.5
    maps = np.asarray(inspection.feature_maps(net, IDENTITY, pixels)["conv"])
    assert np.all((lo <= maps) & (maps <= hi) | np.isnan(maps) & np.isinf(hi))
    assert not np.all((maps >= 0) & (maps <= 1))


WITHIN = {
    "both": lambda x: jnp.where((x > -1) & (x < 2), x, 9.0),
    "not both": lambda x: jnp.where((x > -1) & (x > 2), 9.0, x),
    "either": lambda x: jnp.where((x > 2) | (x < 2), x, 9.0),
    "neither": lambda x: jnp.where((x > 2) | (x < -1), 9.0, x),
    "not": lambda x: jnp.where(~(x > 2), x, 9.0),
    "unequal": lambda x: jnp.where(x != 2, x, 9.0),
    "not unequal": lambda x: jnp.where(0 * x != 0, 9.0, x),
    "equal": lambda x: jnp.where(x == 2, 9.0, x),
    "larger by lines": lambda x: resized(x, "bilinear", 6, 5),
    "smaller by lines": lambda x: resized(x, "linear", 2, 1),
}
"""Images, where what is certain to be so or not so is known to be."""


@pytest.mark.parametrize("name", WITHIN)
@pytest.mark.one_in(3)
def test_bounds_go_by_conditions_that_are_certain(name):
    """A resize has the pixels' own bounds: it asks of each place whether it is in the image."""
    bounds, _ = inspection.map_bounds(Function(WITHIN[name]), IDENTITY, (3, 3, 3))
    ((lo, hi),) = bounds.values()
    np.testing.assert_allclose([lo, hi], np.stack([0 * lo, 1 + 0 * hi]), atol=1e-3)


def test_what_is_read_of_unknown_places_has_the_ends_of_all_places():
    """Rows of 10, 20 and 30 plus columns of 1, 2 and 3, and up to 0.5 above: a row that nobody
    knows is from 11, 12 and 13 to 31.5, 32.5 and 33.5."""

    def later(x):
        return lax.dynamic_slice_in_dim(x, jnp.argmax(x[0, :, 0, 0]), 2, 1)

    low = np.zeros((3, 3, 3)) + 10 * np.arange(1, 4)[:, None, None] + np.arange(1, 4)[:, None]
    bounds, unbounded = inspection.map_bounds(Function(later), IDENTITY, low.shape, low, low + 0.5)
    ((lo, hi),) = bounds.values()
    least = np.zeros((1, 2, 3, 3)) + np.arange(11, 14)[:, None]
    np.testing.assert_allclose([lo, hi], [least, least + 20.5], rtol=1e-4)
    assert unbounded == ()


def test_more_layers_are_proven_by_one_program_too():
    class Chain(nn.Module):
        widths: tuple[int, ...]

        @nn.compact
        def __call__(self, x):
            for number, width in enumerate(self.widths):
                x = nn.relu(nn.Conv(width, (3, 3), name=f"conv{number}")(x))
            return x

    compiled = []

    def note(event, seconds, **about):
        if event.endswith("backend_compile_duration"):
            compiled.append(about.get("fun_name"))

    jax.monitoring.register_event_duration_secs_listener(note)

    def programs(*widths):
        net = Chain(widths)
        variables = random_variables(net, (1, 8, 8, 3), seed=0)
        compiled.clear()
        assert inspection.prove(net, variables, (8, 8, 3)).dead == {
            f"conv{number}": [0] for number in range(len(widths))
        }
        return list(compiled)

    programs(2)  # what is compiled whatever the net
    assert len(programs(7, 11, 13, 17)) == len(programs(19)) >= 1


def test_a_filter_is_proven_by_its_bias_but_not_by_black_images():
    kernel = np.ones((3, 3, 3, 4))  # sums to 27 for a white image
    bias = [-1000, -27.1, -26.9, 0]
    proof = inspection.prove(One(4), one(kernel, bias), SHAPE)
    assert proof.dead == {"conv": [0, 1]}
    black = np.zeros((2, *SHAPE), np.float32)
    seen = inspection.census(One(4), one(kernel, bias), [(black, np.ones(2))])
    assert seen.layers["conv"].dead == [0, 1, 2, 3]
    assert inspection.proven_dead(One(4), one(kernel, bias), SHAPE, 0, 0) == {"conv": [0, 1, 2, 3]}
    assert inspection.proven_dead(One(4), one(kernel, bias), SHAPE, 0, 10) == {"conv": [0]}
    assert inspection.proven_dead(One(4), one(kernel, bias), SHAPE, [0, 0, 0], [1, 0.9, 1]) == {
        "conv": [0, 1, 2]
    }


def test_a_filter_that_only_rounding_wakes_is_not_proven():
    """Exactly, no filter exceeds 0 on the white image; in float32 some do."""
    rng = np.random.default_rng(0)
    kernel = rng.random((3, 3, 3, 512), np.float32)
    exact = kernel.astype(np.float64).sum((0, 1, 2))
    bias = -exact.astype(np.float32)
    bias = np.where(bias + exact > 0, np.nextafter(bias, np.float32(-np.inf)), bias)
    assert np.all(bias + exact <= 0)
    module, white = One(512, "VALID"), np.ones((1, 3, 3, 3), np.float32)
    (maps,) = inspection.feature_maps(module, one(kernel, bias), white).values()
    awake = np.flatnonzero(np.asarray(maps).max((0, 1, 2)))
    assert len(awake) > 0
    (proven,) = inspection.proven_dead(module, one(kernel, bias), (3, 3, 3)).values()
    assert not set(awake.tolist()) & set(proven)
    (proven,) = inspection.proven_dead(module, one(kernel, bias * 1.0001), (3, 3, 3)).values()
    assert len(proven) == 512


def test_constant_filters_are_found_with_their_value():
    class Two(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.relu(nn.Conv(3, (3, 3), name="conv1")(x))
            x = nn.relu(nn.Conv(2, (3, 3), name="padded")(x))
            return nn.relu(nn.Conv(2, (1, 1), name="point")(x))

    variables = random_variables(Two(), (1, *SHAPE), seed=0)
    params = variables["params"]
    params["conv1"] = one(np.zeros((3, 3, 3, 3)), [-1, 0.7, 0])["params"]["conv"]
    params["conv1"]["kernel"][..., 2] = 1
    # Each filter reads filter 1 of conv1 alone; at the border fewer of its taps count.
    params["padded"] = one(np.zeros((3, 3, 3, 2)), [0.1, 0.3])["params"]["conv"]
    params["padded"]["kernel"][1, 1, 1, 0] = 2
    params["padded"]["kernel"][:, :, 1, 1] = 1
    params["point"] = one(np.zeros((1, 1, 2, 2)), [0, 0])["params"]["conv"]
    params["point"]["kernel"][0, 0, 0] = [3, -1]
    proof = inspection.prove(Two(), variables, SHAPE)
    assert proof.dead == {"conv1": [0], "padded": [], "point": [1]}
    assert proof.constant["conv1"] == {1: pytest.approx(0.7, rel=1e-5)}
    assert proof.constant["padded"] == {0: pytest.approx(2 * 0.7 + 0.1, rel=1e-5)}
    assert proof.constant["point"] == {0: pytest.approx(3 * (2 * 0.7 + 0.1), rel=1e-5)}


def test_tiny_numbers_do_not_vanish_from_the_bounds():
    """Products below what float32 can hold may flush to 0 or not: 0 is not proven."""
    kernel = np.full((3, 3, 3, 2), 1e-30)
    kernel[..., 1] = -1e-30
    bounds, _ = inspection.map_bounds(One(2), one(kernel, [0, 0]), SHAPE, 0, 1e-12)
    assert np.all(bounds["conv"][1] > 0)
    zeros = inspection.proven_dead(One(2), one(0 * kernel, [0, -1e-40]), SHAPE)
    assert zeros == {"conv": [0, 1]}


def test_a_layer_called_twice_is_proven_only_where_both_calls_are():
    class Twice(nn.Module):
        @nn.compact
        def __call__(self, x):
            conv = nn.Conv(3, (1, 1), name="conv")
            return nn.relu(conv(4 * nn.relu(conv(x)) + 1))

    # Filter 0 is dead in both calls; filter 1 only in the first, as 2 x0 + 2 x2 - 4 <= 0; filter 2
    # in neither.
    kernel = np.float32([[0, 2, 1], [0, 0, 0], [0, 2, 1]])[None, None]
    proven = inspection.proven_dead(Twice(), one(kernel, [-1, -4, 0]), (2, 2, 3), 0, 0.99)
    assert proven == {"conv": [0]}


def test_convolutions_that_run_in_a_loop_are_named():
    """Of "loop" nothing is known, nor of what follows it."""
    variables = random_variables(Looped(), (1, 6, 6, 3), 0)
    proof = inspection.prove(Looped(), variables, (6, 6, 3))
    assert proof.dead == {"first": [0], "last": []}
    assert proof.unbounded == ("scan in the module itself",)
    assert proof.unseen == ("loop/conv",)


def test_a_rule_from_outside_bounds_an_operation():
    """A sorted row lies between the least and the largest of its numbers."""

    def sort(equation, operand):
        axis = equation.params["dimension"]
        low, high = operand.lo.min(axis, keepdims=True), operand.hi.max(axis, keepdims=True)
        shape = equation.outputs[0].shape
        return inspection.certain(jnp.broadcast_to(low, shape), jnp.broadcast_to(high, shape))

    class Sorted(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.relu(nn.Conv(2, (1, 1), name="conv")(jnp.sort(x, axis=1)))

    kernel, bias = np.float32([[1, -1]] * 3)[None, None], np.float32([-3.5, 0.5])
    variables = {"params": {"conv": {"kernel": kernel, "bias": bias}}}
    assert inspection.proven_dead(Sorted(), variables, (4, 4, 3)) == {"conv": []}
    proven = inspection.proven_dead(Sorted(), variables, (4, 4, 3), rules={"sort": sort})
    assert proven == {"conv": [0]}
    proof = inspection.prove(Sorted(), variables, (4, 4, 3), 0, 2, rules={"sort": sort})
    assert proof.dead == {"conv": []}
    assert proof.unbounded == ()


def test_mistakes_are_named():
    with pytest.raises(UserError, match="low must not be above high"):
        inspection.proven_dead(One(1), one(np.ones((3, 3, 3, 1)), [0]), SHAPE, 1, 0)


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [
        (np.zeros(4), 1, r"as images \(1, .* are: .*broadcast"),
        (0, np.ones((2, 1, 1, 1)), "broadcast"),
        ("black", 1, "low and high are numbers, or arrays"),
        (0, ["white"], "low and high are numbers, or arrays"),
        (0, None, "low must not be above high"),
        (0, float("nan"), "low must not be above high"),
        ([0, 0, 2], 1, "low must not be above high"),
    ],
)
@pytest.mark.parametrize(
    "bounds", [inspection.prove, inspection.proven_dead, inspection.map_bounds]
)
def test_a_range_that_is_none_is_told_in_one_line(bounds, low, high, message):
    with pytest.raises(UserError, match=message):
        bounds(One(1), one(np.ones((3, 3, 3, 1)), [0]), SHAPE, low, high)


def at_brightest(x, mode):
    """The images' rows at places that images tell."""
    return jnp.take(x, x[0, :, 0, 0].argmax()[None], axis=1, mode=mode)


@pytest.mark.parametrize(
    ("function", "named"),
    [
        (lambda x: resized(jnp.sort(x), "nearest", 2, 2), ("sort",)),  # half way between two pixels
        (lambda x: jnp.sort(resized(x, "nearest", 2, 2)), ("sort",)),
        (lambda x: jnp.sort(at_brightest(x, "clip")), ("sort",)),
        (lambda x: jnp.sort(at_brightest(x, "fill")), ("argmax", "sort")),
        (lambda x: jnp.sort(x) - jnp.log(x - 0.5), ("sort", "log")),
        (lambda x: nn.relu(jnp.sort(jnp.sort(x)) - 1), ("sort",)),
        (lambda x: jnp.where(jnp.sort(x) > 0.5, x, 1 / x), ("div",)),  # what is true is bounded
    ],
)
@pytest.mark.one_in(2)
def test_operations_that_no_lost_bound_follows_from_are_not_named(function, named):
    bounds, unbounded = inspection.map_bounds(Function(function), IDENTITY, (4, 4, 3))
    assert np.isinf(bounds["conv"]).any()
    assert unbounded == tuple(f"{name} in the module itself" for name in named)


@pytest.mark.parametrize(
    "pick",
    [
        lambda keys, x: keys[0, 1],
        lambda keys, x: keys.T.reshape(4)[3],
        lambda keys, x: jnp.concatenate([keys[0], keys[1]])[2],
        lambda keys, x: jnp.squeeze(keys[:1, :1]),
        lambda keys, x: jnp.where(x.sum() > 9, keys[0, 0], keys[1, 0]),
        lambda keys, x: jnp.take(keys[0], jnp.argmax(x[0, 0, 0]), mode="clip"),
    ],
)
@pytest.mark.one_in(2)
def test_keys_have_no_bounds_and_what_makes_them_is_not_named(pick):
    def function(x):
        keys = jax.random.split(jax.random.key(0), (2, 2))
        return x + jax.random.uniform(pick(keys, x), x.shape)

    bounds, unbounded = inspection.map_bounds(Function(function), IDENTITY, (4, 4, 3))
    assert np.isinf(bounds["conv"]).all()
    assert unbounded[0] == "random_bits in the module itself"


def test_of_a_loop_over_keys_the_loop_is_named():
    def function(x):
        keys = jax.random.split(jax.random.key(0), 2)
        return lax.scan(lambda x, key: (x + jax.random.uniform(key), None), x, keys)[0]

    _, unbounded = inspection.map_bounds(Function(function), IDENTITY, (4, 4, 3))
    assert unbounded == ("scan in the module itself",)
