"""Bounds hold for what a net computes, rounding and all."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inspected import (
    IDENTITY,
    NETS,
    SHAPE,
    Function,
    One,
    assert_contained,
    images,
    one,
    random_variables,
    small,
)
from jax import lax

from rice_jax import inspection


@pytest.fixture
def as_users_have_it():
    """The device's own products: in TF32 where the tests are told otherwise."""
    with jax.default_matmul_precision(None):
        yield


@pytest.mark.usefixtures("as_users_have_it")
@pytest.mark.parametrize("name", NETS)
@pytest.mark.one_in(3)
def test_bounds_contain_the_maps_of_every_net(name):
    module = NETS[name]()
    variables = random_variables(module, (1, *SHAPE), seed=1)
    bounds, unbounded = inspection.map_bounds(module, variables, SHAPE)
    assert unbounded == ()
    assert all(np.isfinite(end).all() for ends in bounds.values() for end in ends)
    assert_contained(bounds, inspection.feature_maps(module, variables, images(8)))


class Chain(nn.Module):
    """A random sequence of steps that keep the shape (H, W, 3)."""

    steps: tuple[str, ...]

    @nn.compact
    def __call__(self, x):
        for number, step in enumerate(self.steps):
            x = self.step(step, f"{step}{number}", x)
        return x

    def step(self, step, name, x):
        same = {"padding": "SAME", "name": name}
        match step:
            case "conv":
                return nn.relu(nn.Conv(3, (3, 3), **same)(x))
            case "grouped":
                return nn.Conv(3, (2, 3), kernel_dilation=2, feature_group_count=3, **same)(x)
            case "strided":
                y = nn.relu(nn.Conv(3, (3, 3), strides=2, **same)(x))
                return jnp.repeat(jnp.repeat(y, 2, 1), 2, 2)[:, : x.shape[1], : x.shape[2]]
            case "up":
                return nn.ConvTranspose(3, (3, 3), (2, 2), **same)(x)[:, ::2, 1::2]
            case "norm":
                return nn.BatchNorm(use_running_average=True, name=name)(x)
            case "residual":
                return nn.relu(x + nn.Conv(3, (3, 3), **same)(x))
            case "pool":
                return nn.max_pool(x, (2, 2), (1, 1), "SAME")
            case "average":
                return nn.avg_pool(x, (2, 2), (1, 1), "SAME")
            case "gate":
                return x * nn.sigmoid(nn.Dense(3, name=name)(x.mean((1, 2))))[:, None, None]
            case "layer norm":
                return nn.LayerNorm(name=name)(x)
            case "gelu":
                return nn.gelu(x, approximate=False)


STEPS = (
    *("conv", "grouped", "strided", "up", "norm", "residual", "pool", "average", "gate"),
    *("layer norm", "gelu"),
)


@settings(max_examples=3)
@given(st.lists(st.sampled_from(STEPS), min_size=1, max_size=5), st.integers(0, 2**16))
def test_bounds_contain_the_maps_of_random_nets(steps, seed):
    module, shape = Chain((*steps, "conv")), (6, 6, 3)
    variables = random_variables(module, (1, *shape), seed)
    pixels = images(6, shape, seed)
    bounds, unbounded = inspection.map_bounds(module, variables, shape)
    assert unbounded == ()
    assert_contained(bounds, inspection.feature_maps(module, variables, pixels))


def test_bounds_of_one_convolution_are_those_of_the_taps_inside_the_image():
    # A weight of 2 and one of -1 at each tap: at most 2 a tap, at least -1 a tap.
    kernel = np.broadcast_to(np.float32([2, -1])[:, None], (3, 3, 2, 1))
    bounds, _ = inspection.map_bounds(One(1), one(kernel, [9]), (4, 4, 2))
    lo, hi = (end[0, :, :, 0] for end in bounds["conv"])
    taps = np.array([[4, 6, 6, 4], [6, 9, 9, 6], [6, 9, 9, 6], [4, 6, 6, 4]])
    np.testing.assert_allclose(hi, 9 + 2 * taps, rtol=1e-4)
    np.testing.assert_allclose(lo, 9 - taps, rtol=1e-4, atol=1e-3)


def test_rounded_operands_are_allowed_for():
    rng = np.random.default_rng(0)
    kernel, bias = rng.normal(size=(3, 3, 3, 8)), np.zeros(8)
    module, pixels = One(8, "VALID"), rng.random((64, 3, 3, 3), np.float32)

    def short(array):
        return np.asarray(jnp.asarray(array, jnp.bfloat16), np.float64)

    values = np.maximum(np.einsum("nhwc,hwcf->nf", short(pixels), short(kernel)), 0)

    def contained(roundoff):
        # Boxes of one image each, so that the rounding is most of what the bounds allow.
        bounds, _ = inspection.map_bounds(
            module, one(kernel, bias), pixels.shape, pixels, pixels, operand_roundoff=roundoff
        )
        lo, hi = (end[:, 0, 0] for end in bounds["conv"])
        return (lo <= values) & (values <= hi)

    assert contained(2.0**-8).all()
    assert not contained(0.0).all()


def of_these(module, variables, pixels, **options):
    """Lower and upper bounds for these images alone."""
    bounds, _ = inspection.map_bounds(module, variables, pixels.shape, pixels, pixels, **options)
    return bounds["conv"]


def on_a_gpu(*net_and_pixels):
    """The same in a process that has a GPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "default_backend", lambda: "gpu")
        return of_these(*net_and_pixels)


def test_bounds_hold_for_operands_that_a_tensor_core_cuts_to_tf32():
    """Ten bits are left of 23: of a number as near below 1 + 2^-10 as there is, 1."""
    almost = np.nextafter(np.float32(1 + 2**-10), np.float32(0))
    pixels, weights = np.full((1, 3, 3, 3), almost), one(np.full((3, 3, 3, 1), almost), [0])
    with jax.default_matmul_precision(None):
        lo, hi = on_a_gpu(One(1, "VALID"), weights, pixels)
    assert lo.item() <= 27
    assert hi.item() >= 27 * float(almost) ** 2


class Asking(nn.Module):
    """A convolution of a precision of its own."""

    precision: object

    @nn.compact
    def __call__(self, x):
        return nn.Conv(2, (3, 3), precision=self.precision, name="conv")(x)


@pytest.mark.parametrize(
    ("wanted", "everywhere", "rounds"),
    [
        (None, None, True),
        ("high", None, True),
        ("highest", None, False),
        (("highest", "default"), None, True),
        (None, "highest", False),
        (None, "tensorfloat32", True),
        ("default", "highest", True),
    ],
)
def test_on_a_gpu_bounds_go_by_the_precision_that_is_asked_for(wanted, everywhere, rounds):
    with jax.default_matmul_precision(everywhere):
        module, pixels = Asking(wanted), images(3, (4, 4, 3))[:1]
        variables = random_variables(module, pixels.shape, seed=0)
        least, most = of_these(module, variables, pixels, operand_roundoff=0.0)
        lo, hi = on_a_gpu(module, variables, pixels)
    assert np.all((lo < least) & (hi > most)) == rounds
    assert np.all((lo == least) & (hi == most)) != rounds


def test_an_algorithm_that_the_net_asks_for_bounds_nothing():
    """It may add up in float16, whose numbers end at 65,504."""
    algorithm = lax.DotAlgorithmPreset.F16_F16_F16
    module = Function(lambda x: jnp.matmul(x, jnp.eye(3), precision=algorithm))
    bounds, _ = inspection.map_bounds(module, IDENTITY, SHAPE)
    assert np.all(np.isinf(bounds["conv"]))
    bounds, _ = inspection.map_bounds(module, IDENTITY, SHAPE, operand_roundoff=2.0**-8)
    assert np.all(np.isfinite(bounds["conv"]))


def test_bounds_hold_for_bfloat16_activations():
    module = small("cnn").clone(dtype=jnp.bfloat16)
    variables = random_variables(module, (1, *SHAPE), seed=1)
    bounds, unbounded = inspection.map_bounds(module, variables, SHAPE)
    assert unbounded == ()
    assert_contained(bounds, inspection.feature_maps(module, variables, images(8)))


@pytest.mark.usefixtures("on_the_cpu")
@pytest.mark.parametrize("side", [5, 10, 32])
def test_bounds_hold_for_pools_that_round_after_each_term(side):
    """XLA's CPU backend adds up 1,024 ones in bfloat16 to 256: that is what the net computes."""

    def pooled(x):
        return nn.avg_pool(x.astype(jnp.bfloat16), (side, side)).astype(jnp.float32)

    module, white = Function(pooled), np.ones((2, *SHAPE), np.float32)
    bounds, unbounded = inspection.map_bounds(module, IDENTITY, SHAPE, low=0.9)
    maps = inspection.feature_maps(
        module, IDENTITY, white * np.float32([1, 0.97])[:, None, None, None]
    )
    too_many = side == 32  # rounding may eat all of the sum
    assert unbounded == (("reduce_window_sum in the module itself",) if too_many else ())
    assert np.isinf(bounds["conv"]).all() == too_many
    assert side < 32 or np.max(maps["conv"]) < 0.3
    assert_contained(bounds, maps)


def test_bounds_hold_for_a_kernel_that_is_computed():
    class Standardized(nn.Module):
        @nn.compact
        def __call__(self, x):
            kernel = self.param("kernel", nn.initializers.normal(), (3, 3, 3, 4))
            kernel = (kernel - kernel.mean((0, 1, 2))) / jnp.sqrt(kernel.var((0, 1, 2)) + 1e-5)
            numbers = ("NHWC", "HWIO", "NHWC")
            return nn.relu(lax.conv_general_dilated(x, kernel, (1, 1), "SAME", None, None, numbers))

    net = nn.Sequential([Standardized()])
    variables = random_variables(net, (1, *SHAPE), seed=1)
    bounds, unbounded = inspection.map_bounds(net, variables, SHAPE)
    assert unbounded == ()
    assert_contained(bounds, inspection.feature_maps(net, variables, images(8)))


@pytest.mark.parametrize("target", ["bfloat16", "float32"])
@pytest.mark.parametrize("source", ["float32", "float16", "bfloat16", "float8_e4m3fn"])
def test_bounds_hold_for_weights_and_images_that_are_rounded_to_another_type(source, target):
    def maps(params, x):
        numbers = ("NHWC", "HWIO", "NHWC")
        kernel = params["kernel"].astype(target)
        return lax.conv_general_dilated(
            x.astype(target), kernel, (1, 1), "VALID", None, None, numbers
        ).astype(jnp.float32)

    rng = np.random.default_rng(0)
    for pixel in np.asarray(rng.random(2), source):
        params = {"kernel": np.asarray(rng.normal(size=(1, 1, 1, 16)), source)}
        image = np.full((1, 1, 1, 1), pixel)
        bounds, _ = inspection.map_bounds(
            maps, params, image.shape, float(pixel), float(pixel), dtype=image.dtype
        )
        kept = params["kernel"].astype(target).astype(np.float64).ravel()
        exact = (kept * np.float64(pixel.astype(target))).astype(target).astype(np.float64)
        ((lo, hi),) = bounds.values()
        assert np.all(lo.ravel() <= exact), pixel
        assert np.all(exact <= hi.ravel()), pixel
