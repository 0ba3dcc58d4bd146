"""A certificate says how far two nets are apart, and never more than was measured."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rice_jax.errors import UserError
from rice_jax.graph import once
from rice_jax.graph.trace import trace
from rice_jax.inspection.rounding import rounding
from rice_jax.prune import certify

SHAPE = (3, 4, 4, 2)
IMAGES = np.random.default_rng(0).random(SHAPE, np.float32)
BATCHES = [(IMAGES[:2], np.zeros(2)), (IMAGES[2:], np.zeros(1))]


class Net(nn.Module):
    """Logits that are a gain times a dense layer, with a constant added to them."""

    gain: float = 1.0
    shift: float = 0.0

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (3, 3), name="conv")(x))
        return nn.Dense(3, name="head")(x.mean((1, 2))) * self.gain + self.shift


@pytest.fixture(scope="module")
def variables():
    return Net().init(jax.random.key(0), IMAGES)


def test_a_difference_is_told_in_itself_and_relative_to_the_largest_logit(variables):
    found = certify((Net(1000.0), variables), (Net(1000.0, 0.5), variables), BATCHES)
    logits = np.asarray(Net(1000.0).apply(variables, IMAGES))
    largest = max(np.abs(logits).max(), np.abs(logits + 0.5).max())
    assert found.max_abs_logit_difference == pytest.approx(0.5, rel=1e-3)
    assert found.max_relative_logit_difference == pytest.approx(0.5 / largest, rel=1e-3)
    assert found.to_json()["max_relative_logit_difference"] == found.max_relative_logit_difference
    assert (found.images, found.changed_predictions, found.rounding) == (3, 0, None)


def test_the_largest_difference_may_be_on_any_image_and_at_any_logit(variables):
    class Moved(Net):
        def __call__(self, x):
            struck = x[:, 0, 0, :1] == IMAGES[self.image, 0, 0, 0]
            return Net.__call__(self, x) + struck * jnp.eye(3)[self.logit]

    for Moved.image, Moved.logit in ((0, 2), (1, 0), (2, 1)):
        found = certify((Net(), variables), (Moved(), variables), BATCHES)
        assert found.max_abs_logit_difference == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_never_equal(variables, odd):
    image = 2

    class Odd(nn.Module):
        @nn.compact
        def __call__(self, x):
            struck = jnp.all(x == IMAGES[image], axis=(1, 2, 3))[:, None]
            return jnp.where(struck & (jnp.arange(3) == 1), odd, Net.__call__(self, x))

    class Broken(Net):
        __call__ = Odd.__call__

    sound, broken = (Net(), variables), (Broken(), variables)
    message = f"the {{}} one gives NaN or infinity on image {image}"
    with pytest.raises(UserError, match=message.format("smaller")):
        certify(sound, broken, BATCHES)
    with pytest.raises(UserError, match=message.format("whole")):
        certify(broken, broken, BATCHES, proven=True)


@pytest.mark.parametrize(
    "other",
    [
        lambda logits: logits[:, :1],
        lambda logits: logits[:, 0],
        lambda logits: logits[:, None],
        lambda logits: logits * 1j,
    ],
    ids=["fewer", "one each", "in another shape", "complex"],
)
def test_logits_of_another_kind_are_not_compared(variables, other):
    class Other(Net):
        def __call__(self, x):
            return other(Net.__call__(self, x))

    for nets in ((Net(), Other()), (Other(), Net())):
        with pytest.raises(UserError, match="the nets cannot be compared: their logits are"):
            certify(*((net, variables) for net in nets), BATCHES, proven=True)


@pytest.mark.parametrize(
    ("logits", "other", "changed"),
    [
        ([[1, 2], [2, 1], [0, 3]], [[2, 1], [2, 1], [3, 0]], 2),
        ([[1], [2], [3]], [[3], [2], [1]], 0),
        ([1, 2, 3], [3, 2, 1], 0),
        ([[[1, 2], [2, 1]]] * 3, [[[2, 1], [1, 2]], [[1, 2], [2, 1]], [[1, 2], [1, 2]]], 2),
        ([[], [], []], [[], [], []], 0),
    ],
    ids=["classes", "one class", "a number", "classes at places", "no classes"],
)
def test_changed_predictions_are_images(logits, other, changed):
    def constant(params, x):
        return params["logits"] + 0 * x.mean()

    nets = [(constant, {"logits": np.asarray(each, np.float32)}) for each in (logits, other)]
    found = certify(*nets, [np.ones((3, 4, 4, 1), np.float32)])
    assert (found.images, found.changed_predictions) == (3, changed)


@pytest.mark.parametrize("shape", [(), (2,), (1, 5), (5, 3)])
def test_logits_have_a_row_an_image(shape):
    net = (lambda params, x: params["logits"] + 0 * x.mean(), {"logits": np.ones(shape)})
    with pytest.raises(UserError, match=r"of 3 images; the first axis must be the images'"):
        certify(net, net, [np.ones((3, 4, 4, 1), np.float32)])


def test_where_jax_finds_no_derivative_proven_needs_equal_logits(variables):
    """Of a constant that is padded by a number that is computed."""

    class Padded(Net):
        def __call__(self, x):
            ones = jnp.pad(jnp.ones(1), (0, 3), constant_values=jnp.exp(0.0))
            return Net.__call__(self, x) * ones.sum()

    net = Padded(), variables
    same = certify(net, net, BATCHES, proven=True)
    assert (same.proven, same.rounding) == (True, None)
    assert not certify(net, (Padded(shift=1e-7), variables), BATCHES, proven=True).proven


def test_weights_that_are_no_numbers_are_never_equal(variables):
    broken = jax.tree.map(lambda a: a * jnp.nan, variables)
    with pytest.raises(UserError, match="the smaller one gives NaN or infinity on image 0"):
        certify((Net(), variables), (Net(), broken), BATCHES)


@pytest.mark.parametrize("gain", [1e-3, 1e4])
def test_proven_stands_beside_rounding_alone_whatever_the_logits_size(variables, gain):
    net = Net(gain), variables
    same = certify(net, net, BATCHES, proven=True)
    assert same.proven
    assert same.max_abs_logit_difference == 0

    noise = np.random.default_rng(1).normal(size=(3, 3, 2, 4)) * np.finfo(np.float32).eps
    kernel = variables["params"]["conv"]["kernel"]
    rounded = {"params": variables["params"] | {"conv": {**variables["params"]["conv"]}}}
    rounded["params"]["conv"]["kernel"] = jnp.float32(kernel * (1 + noise))
    found = certify(net, (Net(gain), rounded), BATCHES, proven=True)
    assert found.proven
    assert 0 < found.max_abs_logit_difference <= found.rounding
    assert found.rounding < 1e-3 * gain

    moved = Net(gain, shift=1e-2 * gain), variables
    with pytest.raises(UserError, match=r"a logit moved by .* where float rounding explains"):
        certify(net, moved, BATCHES, proven=True)
    assert not certify(net, moved, BATCHES).proven


@pytest.mark.parametrize("place", [0, 2])
@pytest.mark.one_in(2)
def test_a_small_logit_is_held_against_its_own_rounding(variables, place):
    """Of some 1e-1, it moved by a half beside one of 1e7 that moved by its last place, 1."""

    class Uneven(Net):
        moved: float = 0.0

        def __call__(self, x):
            logits = Net.__call__(self, x)
            large = 1e7 * (1 + logits[:, :1]) + self.moved
            small = logits + 0.5 * self.moved
            return jnp.concatenate([small[:, :place], large, small[:, place:]], axis=1)

    whole, same = (Uneven(), variables), (Uneven(), variables)
    assert certify(whole, same, BATCHES, proven=True).proven
    moved = Uneven(moved=1.0), variables
    assert certify(whole, moved, BATCHES).max_abs_logit_difference == 1
    with pytest.raises(UserError, match=r"a logit moved by .* where float rounding explains"):
        certify(whole, moved, BATCHES, proven=True)


def test_where_rounding_cannot_be_told_proven_needs_equal_logits(variables):
    class Loop(Net):
        def __call__(self, x):
            return jax.lax.while_loop(
                lambda state: state[0] < 2,
                lambda state: (state[0] + 1, state[1] * 1.5),
                (jnp.int32(0), Net.__call__(self, x)),
            )[1]

    net = Loop(), variables
    same = certify(net, net, BATCHES, proven=True)
    assert same.proven
    assert same.rounding is None
    moved = Loop(shift=1e-7), variables
    assert not certify(net, moved, BATCHES, proven=True).proven


def test_without_images_nothing_is_certified(variables):
    with pytest.raises(UserError, match="no images to compare the nets on"):
        certify((Net(), variables), (Net(), variables), [])


class Chain(nn.Module):
    """Sums long enough for rounding to show, in one precision or another."""

    dtype: object

    @nn.compact
    def __call__(self, x):
        x = x.astype(self.dtype)
        for number in range(3):
            kernel = self.param(f"kernel{number}", nn.initializers.normal(), (256, 256))
            x = nn.silu(x @ (0.1 * kernel).astype(self.dtype)) + x
        return x.astype(jnp.float32)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.one_in(2)
def test_rounding_bounds_what_a_shorter_precision_really_does_and_not_much_more(dtype):
    """Held against float64, computed by NumPy."""
    rng = np.random.default_rng(0)
    short = np.float32(jnp.asarray(rng.normal(size=(1, 256)), jnp.bfloat16))
    weights = {f"kernel{n}": np.float32(rng.normal(size=(256, 256))) for n in range(3)}
    exact = short.astype(np.float64)
    for number in range(3):
        kernel = np.asarray((0.1 * jnp.asarray(weights[f"kernel{number}"])).astype(dtype))
        y = exact @ kernel.astype(np.float64)
        exact = y / (1 + np.exp(-y)) + exact
    module, variables = Chain(dtype), {"params": weights}
    got = np.asarray(module.apply(variables, short), np.float64)
    traced = trace(module, short.shape)
    for unit in (0, 100, 255):
        bound = rounding(traced, variables, short, traced.outputs[0], (0, unit))
        error = abs(got[0, unit] - exact[0, unit])
        assert error <= bound
        assert bound < 0.5 * 2.0 ** (-7 if dtype == jnp.bfloat16 else -23) * 2**14


def test_a_longer_sum_and_rounded_operands_are_allowed_more():
    def bound(terms, precision="highest", **options):
        class Sum(nn.Module):
            @nn.compact
            def __call__(self, x):
                return x @ self.param("ones", nn.initializers.ones, (terms, 1))

        x = np.full((1, terms), 1 / terms, np.float32)
        with jax.default_matmul_precision(precision):
            traced = trace(Sum(), x.shape)
        variables = {"params": {"ones": np.ones((terms, 1), np.float32)}}
        return rounding(traced, variables, x, traced.outputs[0], (0, 0), **options)

    # Eight times a unit in the last place of the sum, and of the terms' sizes by the root of n.
    eps = 2.0**-23
    assert bound(16) == pytest.approx(8 * eps * (1 + 4), rel=1e-3)
    assert bound(256) == pytest.approx(8 * eps * (1 + 16), rel=1e-3)
    assert bound(16, operand_roundoff=2.0**-11) == pytest.approx(8 * 2 * 2.0**-11, rel=1e-2)
    # On a GPU products are in TF32 unless they are asked for at the highest precision.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "default_backend", lambda: "gpu")
        assert bound(16, precision=None) == pytest.approx(8 * 2 * 2.0**-10, rel=1e-2)
        assert bound(16, precision="highest") == pytest.approx(8 * eps * (1 + 4), rel=1e-3)
        with pytest.raises(NotImplementedError, match="an algorithm of their own"):
            bound(16, precision="BF16_BF16_F32")


@pytest.mark.parametrize("backend", ["gpu", "tpu"])
def test_elsewhere_no_option_of_the_cpu_s_compiler_is_given(monkeypatch, backend):
    module, x = nn.Dense(2), jnp.ones((1, 3))
    variables = module.init(jax.random.key(0), x)
    traced = trace(module, x.shape)
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    monkeypatch.setattr(once, "HASTY", {"of_the_cpu_alone": True})  # no compiler here takes it
    assert rounding(traced, variables, x, traced.outputs[0], (0, 0), operand_roundoff=0.0) > 0
