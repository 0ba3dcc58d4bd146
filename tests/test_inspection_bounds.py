"""Bounds hold for what a net computes, rounding and all."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inspected import IDENTITY, NETS, Function, One, one, random_variables, resized, small
from jax import lax

from rice_jax import inspection

SHAPE = (32, 32, 3)


def images(number, shape=SHAPE, seed=0):
    """Random pixels, random black and white, all black, all white."""
    rng = np.random.default_rng(seed)
    pixels = rng.random((number, *shape), np.float32)
    pixels[1::2] = pixels[1::2] > 0.5
    pixels[-2:] = np.float32([0, 1])[:, None, None, None]
    return pixels


def assert_contained(bounds, maps):
    assert bounds.keys() == maps.keys()
    for name, (lo, hi) in bounds.items():
        values = np.asarray(maps[name], np.float64)
        assert np.all(lo <= values), name
        assert np.all(values <= hi), name


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


@settings(max_examples=3, deadline=None)
@given(st.lists(st.sampled_from(STEPS), min_size=1, max_size=5), st.integers(0, 2**16))
def test_bounds_contain_the_maps_of_random_nets(steps, seed):
    module, shape = Chain((*steps, "conv")), (6, 6, 3)
    variables = random_variables(module, (1, *shape), seed)
    pixels = images(6, shape, seed)
    bounds, unbounded = inspection.map_bounds(module, variables, shape)
    assert unbounded == ()
    assert_contained(bounds, inspection.feature_maps(module, variables, pixels))


def polynomial(x, *coefficients):
    """The constant's coefficient first: a primitive of its own in newer JAX, as log2 is."""
    if hasattr(lax, "polynomial"):
        return lax.polynomial(x, coefficients)
    value = jnp.broadcast_to(jnp.asarray(coefficients[-1], x.dtype), x.shape)
    for each in coefficients[-2::-1]:
        value = value * x + each
    return value


def nearest(x, rows, columns):
    return resized(x, "nearest", rows, columns)


FUNCTIONS = {
    "polynomial": lambda x: polynomial(x - 0.5, 1.0, -2.0, x[:, :1], 0.5),
    "polynomial of many terms": lambda x: polynomial(x - 0.5, *range(12)),
    "a constant": lambda x: polynomial(x, 0.25),
    "log2": lambda x: jnp.log2(x + 0.5),
    "put on a device": lambda x: sum(jax.device_put((x, x[..., :1]))),
    "nearest pixels, four for each": lambda x: nearest(x, 6, 6),
    "nearest pixels, many for each": lambda x: nearest(x, 12, 15),
    "nearest pixel, one of nine": lambda x: nearest(x, 1, 1),
    "nearest pixels, half way": lambda x: nearest(x[:, jnp.array([2, 0, 1, 2])], 2, 3),
    "from the brightest on": lambda x: lax.dynamic_slice_in_dim(x, jnp.argmax(x[0, :, 0, 0]), 2, 1),
    "the brightest of each": lambda x: jnp.take_along_axis(
        x - 0.5, jnp.argmax(x, 1, keepdims=True), 1, mode="clip"
    ),
    "whole numbers of fractions": lambda x: x * jnp.array([1.7, 2.2, -3.1]).astype(jnp.int32),
    "exp": lambda x: jnp.exp(x) - 1,
    "exp2": lambda x: jnp.exp2(-x),
    "log": lambda x: jnp.log(x + 0.5),
    "log1p": lambda x: jnp.log1p(x),
    "expm1": lambda x: jnp.expm1(x),
    "tanh": lambda x: jnp.tanh(2 * x - 1),
    "sigmoid": lambda x: nn.sigmoid(4 * x - 2),
    "erf": lambda x: lax.erf(2 * x - 1),
    "sqrt": lambda x: jnp.sqrt(x),
    "rsqrt": lambda x: lax.rsqrt(x + 0.1),
    "cube": lambda x: (x - 0.5) ** 3,
    "square": lambda x: jnp.square(x - 0.5),
    "product": lambda x: (x - 0.5) * (x - 0.5),
    "inverse square": lambda x: (x + 0.5) ** -2,
    "quotient": lambda x: (x - 0.5) / (x - 2),
    "abs": lambda x: jnp.abs(x - 0.5),
    "clip": lambda x: jnp.clip(x, 0.2, 0.7),
    "minimum": lambda x: -jnp.minimum(x, 0.5),
    "where": lambda x: jnp.where(x > 0.5, x, -x),
    "less": lambda x: jnp.where(x < 0.5, -x, lax.neg(x)),
    "cast": lambda x: x - lax.convert_element_type(lax.convert_element_type(x, bool), x.dtype),
    "reduced precision": lambda x: lax.reduce_precision(x, 8, 7),
    "mask": lambda x: x * (x > 0.5),
    "truth": lambda x: x + (x - 0.5).astype(bool),
    "both": lambda x: jnp.where((x > -1) & (x < 0.7), x, -x),
    "either": lambda x: jnp.where((x < 0.3) | (x != x[:, ::-1]), x, -x),
    "equal": lambda x: jnp.where(jnp.maximum(x, 0.5) == 0.5, x, -x),
    "not": lambda x: jnp.where(~(x > 0.5), x, -x),
    "known mask": lambda x: jnp.where(jnp.arange(3) == 1, x, 0.25),
    "floor": lambda x: jnp.floor(3 * x),
    "round": lambda x: jnp.round(3 * x),
    "maximum over rows": lambda x: x.max(axis=1, keepdims=True) + 0 * x,
    "minimum over rows": lambda x: x.min(axis=1, keepdims=True) + 0 * x,
    "pad and slice": lambda x: jnp.pad(x, ((0, 0), (1, 0), (0, 0), (0, 0)))[:, :-1],
    "flip and turn": lambda x: jnp.flip(x, 1).swapaxes(1, 2),
    "gather": lambda x: x[:, jnp.array([2, 0, 1])],
    "tile": lambda x: jnp.tile(x - 0.5, (1, 2, 1, 1)),
    "split": lambda x: jnp.concatenate(jnp.split(x, 3, axis=2)[::-1], axis=2),
    "stack": lambda x: jnp.stack(jnp.unstack(x, axis=2)[::-1], axis=1),
    "half precision": lambda x: (x.astype(jnp.bfloat16) * 3).astype(jnp.float32),
    "dot": lambda x: jnp.einsum("nhwc,nhvc->nhwv", x, x),
    "softmax": lambda x: nn.softmax(x),
    "softplus": lambda x: nn.softplus(x),
    "elu": lambda x: nn.elu(x - 0.5),
    "group norm": lambda x: (
        (x - x.mean((1, 2, 3), keepdims=True)) * lax.rsqrt(x.var((1, 2, 3), keepdims=True) + 1e-3)
    ),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.one_in(4)
def test_bounds_contain_functions(name):
    module, shape = Function(FUNCTIONS[name]), (3, 3, 3)
    bounds, unbounded = inspection.map_bounds(module, IDENTITY, shape)
    lo, hi = bounds["conv"]
    assert unbounded == ()
    assert np.isfinite(lo).all()
    assert np.isfinite(hi).all()
    assert_contained(bounds, inspection.feature_maps(module, IDENTITY, images(8, shape)))


FRACTIONS = {
    "of an image": lambda x: x * (x[0, 0, 0, 0] * jnp.arange(3.0)).astype(jnp.int32),
    "near to a whole number": lambda x: (
        x * (jnp.arange(1.0, 4.0) * jnp.float32(1 / 3)).astype(jnp.int32)
    ),
    "below the least number": lambda x: x * (jnp.arange(3.0) - 2.5).astype(jnp.uint8),
    "above the largest number": lambda x: x * (jnp.arange(3.0) * 2.5e9).astype(jnp.int32),
    "as wide as none": lambda x: x * (jnp.arange(3.0) / jnp.float32(0)).astype(jnp.int32),
}


@pytest.mark.parametrize("name", FRACTIONS)
def test_bounds_contain_what_fractions_are_cut_to(name):
    """Also where rounding decides to which number, and where there is none such."""
    module, shape = Function(FRACTIONS[name]), (3, 3, 3)
    bounds, _ = inspection.map_bounds(module, IDENTITY, shape)
    assert_contained(bounds, inspection.feature_maps(module, IDENTITY, images(8, shape)))


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
