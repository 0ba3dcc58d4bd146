"""Operations that converters lack or get wrong, in nets whose files must give their logits."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rice_jax import export
from rice_jax.errors import UserError
from rice_jax.export import runtimes

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # jax2onnx's own
NEEDED = {".onnx": "jax2onnx", ".tflite": "litert_converter"}
MADE = {".onnx": export.to_onnx, ".tflite": export.to_tflite}
IMAGES = np.random.default_rng(0).random((5, 8, 8, 3), dtype=np.float32)


class Between(nn.Module):
    """An operation on the maps of a convolution, before a dense layer over all of them."""

    operation: Any
    dtype: Any = None

    @nn.compact
    def __call__(self, x, train=False):
        x = self.operation(nn.Conv(4, (3, 3), name="conv")(x))
        return nn.Dense(3, name="head")(x.reshape(x.shape[0], -1))


def rows(x):
    return x.reshape(x.shape[0], 8, 32)


def edged(x, *pads, **how):
    return jnp.pad(x, ((0, 0), *pads), **how)


OPERATIONS = {
    "stack last": lambda x: jnp.stack([x, -x], -1),
    "stack first": lambda x: jnp.stack([x, 2 * x, -x]).sum(0),
    "stack one": lambda x: jnp.stack([x], 2),
    "stack constants": lambda x: x * jnp.stack([jnp.arange(4.0)] * 8),
    "unstack channels": lambda x: jnp.unstack(x, axis=-1)[1],
    "unstack rows": lambda x: sum(each * n for n, each in enumerate(jnp.unstack(x, axis=1))),
    "pad": lambda x: edged(x, (1, 2), (0, 1), (0, 0)),
    "pad channels": lambda x: edged(x, (0, 0), (0, 0), (1, 3)),
    "pad rows": lambda x: edged(rows(x), (2, 0), (0, 0)),
    "pad with a number": lambda x: edged(x, (1, 1), (1, 1), (0, 0), constant_values=-0.5),
    "pad with minus infinity": lambda x: nn.relu(
        edged(x, (1, 1), (1, 1), (0, 0), constant_values=-jnp.inf)
    ),
    "pad with wholes": lambda x: edged((9 * x).astype(jnp.int32), (1, 0), (0, 0), (0, 0)) / 9.0,
    "pad by a ramp": lambda x: edged(x, (2, 1), (0, 0), (0, 0), mode="linear_ramp"),
    "logarithms": lambda x: jnp.log2(abs(x) + 0.5),
    "polynomial": lambda x: jnp.polyval(jnp.array([1.0, -0.5, 2.0]), x),
    "put on a device": jax.device_put,
    "nearest pixels": lambda x: jax.image.resize(x, (x.shape[0], 16, 24, 4), "nearest"),
    "median": lambda x: jnp.median(x, axis=(1, 2)),
    "reshape in another order": lambda x: jax.lax.reshape(x, (x.shape[0], 8, 32), (0, 3, 1, 2)),
    "pad by the edge": lambda x: edged(x, (2, 1), (0, 3), (0, 1), mode="edge"),
    "pad by the other side": lambda x: edged(x, (2, 1), (0, 3), (0, 0), mode="wrap"),
    "join with nothing": lambda x: jnp.concatenate([x[:, :0], x, x[:, :0]], 1),
    "products of rows": lambda x: jnp.cumprod(x + 1, 1),
    "products of channels": lambda x: jnp.cumprod(x, 3),
    "products from the end": lambda x: jax.lax.cumprod(x + 1, 2, reverse=True),
    "products of one": lambda x: jnp.cumprod(x[:, :1], 1),
    "products of wholes": lambda x: jnp.cumprod((3 * x).astype(jnp.int32), 1) / 9.0,
    "modulo": lambda x: jnp.mod(x, 0.3),
    "modulo of a negative": lambda x: jnp.mod(x, -0.3),
    "modulo of wholes": lambda x: jnp.mod((20 * x).astype(jnp.int32), 7) / 7.0,
    "remainder": lambda x: jnp.fmod(x, 0.3),
    "remainder of maps": lambda x: jax.lax.rem(x, x[:, ::-1]),
    "remainder of wholes": lambda x: jnp.fmod((20 * x).astype(jnp.int32), -7) / 7.0,
    "whole quotient": lambda x: x // 0.3,
    "cubic root": jnp.cbrt,
    "halves rounded away from 0": lambda x: jax.lax.round(jnp.round(8 * x) / 2),
    "halves rounded to even numbers": lambda x: jnp.round(jnp.round(8 * x) / 2),
    "the largest": lambda x: jax.lax.top_k(x, 3)[0],
    "above the largest but one": lambda x: x * (x > jax.lax.top_k(x, 2)[0][..., 1:]),
    "places of the largest": lambda x: jax.lax.top_k(x, 3)[1] / 4,
    "the largest and their places": lambda x: sum(jax.lax.top_k(x, 3)),
    "reshape of columns": lambda x: jax.lax.reshape(x, (x.shape[0], 4, 8, 8), (0, 2, 3, 1)),
}
NO_SORT = {".tflite": {"median"}, ".onnx": set[str]()}


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("suffix", MADE)
def test_a_file_gives_the_nets_logits(suffix, name):
    pytest.importorskip(NEEDED[suffix])
    if name in NO_SORT[suffix]:
        pytest.skip("LiteRT has no sort")
    net = Between(OPERATIONS[name])
    params = net.init(jax.random.key(0), IMAGES)["params"]
    found = runtimes.opened(suffix, MADE[suffix](net, params, 8))(IMAGES)
    exact = net.apply({"params": params}, IMAGES)
    np.testing.assert_allclose(found, exact, rtol=1e-4, atol=1e-4 * np.ptp(exact))


def test_what_litert_lacks_is_named_beside_what_is_written_otherwise_for_it():
    """Also where only one of the arrays that an operation gives is read."""
    pytest.importorskip(NEEDED[".tflite"])
    net = Between(lambda x: jnp.fft.fft(OPERATIONS["above the largest but one"](x)).real)
    params = net.init(jax.random.key(0), IMAGES)["params"]
    with pytest.raises(UserError, match=r"^the net: fft of complex numbers has no LiteRT form"):
        export.to_tflite(net, params, 8)


def filtered(x):
    spectrum = jnp.fft.rfft2(x, axes=(1, 2))
    return jnp.fft.irfft2(spectrum * 0.5j, x.shape[1:3], axes=(1, 2))


@pytest.mark.parametrize(
    "operation", [filtered, lambda x: jnp.fft.fft2(x, axes=(1, 2)).real, lambda x: jnp.abs(x + 1j)]
)
@pytest.mark.parametrize("suffix", MADE)
@pytest.mark.one_in(2)
def test_a_format_that_lacks_complex_numbers_is_said_to_lack_these(suffix, operation):
    """Not the transposition or sum of which it has that of floats."""
    pytest.importorskip(NEEDED[suffix])
    net = Between(operation)
    params = net.init(jax.random.key(0), IMAGES)["params"]
    with pytest.raises(UserError, match=r"of complex numbers|: r?fft ") as caught:
        MADE[suffix](net, params, 8)
    assert str(caught.value).startswith("the net: ")


def test_a_primitive_that_jax_has_as_a_class_is_told_by_its_name():
    """Which primitives these are, each JAX decides: none is told as the one that calls them all."""
    net = Between(lambda x: x - jnp.unique(x, size=2)[0])
    params = net.init(jax.random.key(0), IMAGES)["params"]
    pytest.importorskip(NEEDED[".onnx"])
    with pytest.raises(UserError) as caught:
        export.to_onnx(net, params, 8)
    assert "call_hi_primitive" not in str(caught.value)


def maxima(x, window, padding):
    """Of windows along any axes but the images'."""
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, *window), (1,) * 4, padding)


@pytest.mark.parametrize(
    "operation",
    [
        lambda x: x * jnp.clip(x / 6 + 0.5, 0, 1),  # the 0 comes first, as an array
        lambda x: x + jnp.maximum(jnp.zeros(4), x),
        lambda x: nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1))),
        lambda x: nn.max_pool(x - 9, (2, 3), (1, 2), ((1, 0), (0, 2))),
        lambda x: nn.max_pool(x - 9, (9, 4), (3, 2), ((8, 8), (3, 3))),
        lambda x: maxima(x.transpose(0, 3, 1, 2), (1, 3, 3), "SAME").transpose(0, 2, 3, 1),
        lambda x: maxima(x, (1, 1, 3), "SAME"),
        lambda x: maxima(x, (1, 2, 3), "SAME"),
        lambda x: nn.max_pool(x.reshape(-1, 4, 2, 8, 4), (2, 2, 2), (2, 1, 2)).mean(1),
        lambda x: jnp.cumsum(x, 1),  # which the converter takes by the axis' name alone
        lambda x: maxima(x - 9, (3, 1, 1), ((0, 0), (1, 1), (0, 0), (0, 0))),
    ],
)
def test_maxima_and_sums_go_into_onnx_as_they_are(operation):
    pytest.importorskip("jax2onnx")
    net = Between(operation)
    params = net.init(jax.random.key(0), IMAGES)["params"]
    found = runtimes.opened(".onnx", export.to_onnx(net, params, 8))(IMAGES)
    exact = np.asarray(net.apply({"params": params}, IMAGES))
    np.testing.assert_allclose(found, exact, atol=1e-5 * max(1, np.abs(exact).max()))


def test_a_convolution_that_sees_no_later_rows_goes_into_onnx():
    pytest.importorskip("jax2onnx")

    class Causal(nn.Module):
        dtype: Any = None

        @nn.compact
        def __call__(self, x, train=False):
            x = x.reshape(x.shape[0], 8, 24)
            x = nn.relu(nn.Conv(5, (3,), padding="CAUSAL", name="first")(x))
            x = nn.Conv(4, (3,), padding="CAUSAL", kernel_dilation=2, name="second")(x)
            return nn.Dense(3, name="head")(x[:, -1])

    params = Causal().init(jax.random.key(0), IMAGES)["params"]
    found = runtimes.opened(".onnx", export.to_onnx(Causal(), params, 8))(IMAGES)
    np.testing.assert_allclose(found, Causal().apply({"params": params}, IMAGES), atol=1e-5)


class Block(nn.Module):
    """ConvNeXt's: dense layers over the channels of maps, of as many axes as asked."""

    sizes: tuple[int, ...]
    dtype: Any = None

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Conv(8, (2, 2), strides=2, name="stem")(x)
        y = nn.LayerNorm(name="norm")(nn.Conv(8, (3, 3), feature_group_count=8, name="deep")(x))
        y = nn.Dense(16, name="wider")(y.reshape(x.shape[0], *self.sizes, 8))
        y = nn.Dense(8, name="back")(nn.gelu(y)).reshape(x.shape)
        scale = self.param("scale", nn.initializers.constant(0.5), (8,))
        x = (x + y * scale).mean((1, 2))
        return nn.Dense(3, name="head")(nn.LayerNorm(name="last")(x))


@pytest.mark.parametrize("sizes", [(16,), (4, 4), (2, 2, 4)], ids=str)
@pytest.mark.parametrize("suffix", MADE)
def test_dense_layers_over_maps_go_into_int8(suffix, sizes):
    pytest.importorskip(NEEDED[suffix])
    net = Block(sizes)
    params = net.init(jax.random.key(0), IMAGES)["params"]
    content = MADE[suffix](net, params, 8, calibrate=[IMAGES])
    exact = np.asarray(net.apply({"params": params}, IMAGES))
    found = runtimes.opened(suffix, content)(IMAGES)
    assert np.abs(found - exact).max() < 0.05 * np.ptp(exact)


STEPS = np.float32([0.05, 1, 4, 0.3])
"""So unlike that the columns of one matrix do not share a scale."""


def members(x, weights):
    """An ensemble's last layers: rows and a matrix for each member, as `nn.vmap` has them."""
    rows = jnp.stack([x.mean((1, 2)), x.max((1, 2)), x[:, 0, 0]])
    return jnp.einsum("mnc,mcd->mnd", rows, weights * STEPS).mean(0)


def blurred(x, weights):
    """A depthwise kernel that the code tiles, and a bias."""
    kernel = jnp.tile(jnp.outer(STEPS, STEPS)[:, :, None, None] / 30, (1, 1, 1, x.shape[-1]))
    numbers = ("NHWC", "HWIO", "NHWC")
    x = jax.lax.conv_general_dilated(
        x, kernel, (2, 2), "SAME", feature_group_count=x.shape[-1], dimension_numbers=numbers
    )
    return (x + weights[0, 0]).mean((1, 2))


class OfMade(nn.Module):
    """A layer, and a product with what is no array of its own."""

    product: Any
    dtype: Any = None

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(nn.Conv(4, (3, 3), name="conv")(x))
        return self.product(x, self.param("weights", nn.initializers.normal(1), (3, 4, 4)))


@pytest.mark.parametrize("product", [members, blurred])
def test_products_with_what_weights_and_numbers_make_go_into_int8(product):
    pytest.importorskip(NEEDED[".tflite"])
    net = OfMade(product)
    params = net.init(jax.random.key(0), IMAGES)["params"]
    content = export.to_tflite(net, params, 8, calibrate=[IMAGES])
    exact = np.asarray(net.apply({"params": params}, IMAGES))
    found = runtimes.opened(".tflite", content)(IMAGES)
    assert np.abs(found - exact).max() < 0.03 * np.ptp(exact)
