"""Operations that converters get wrong: written otherwise, or refused."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from rice_jax import export
from rice_jax.errors import UserError
from rice_jax.export import int8, runtimes

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # jax2onnx's own
NEEDED = {".onnx": ("jax2onnx", "onnxruntime"), ".tflite": ("litert_converter", "ai_edge_litert")}
IMAGES = np.random.default_rng(0).random((2, 8, 8, 3), np.float32)


class Around(nn.Module):
    layer: Any
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, train=False):
        return self.layer(x).reshape(x.shape[0], -1)


def made(module, suffix):
    for package in NEEDED[suffix]:
        pytest.importorskip(package)
    params = module.init(jax.random.key(0), IMAGES).get("params", {})
    convert = export.to_onnx if suffix == ".onnx" else export.to_tflite
    return params, convert(module, params, 8)


@pytest.mark.parametrize("suffix", NEEDED)
@pytest.mark.parametrize(
    ("kernel", "strides", "padding"),
    [
        ((3, 3), (2, 2), "SAME"),
        ((2, 3), (3, 1), "VALID"),  # places that no tap meets
        ((4, 4), (2, 2), ((2, 1), (1, 3))),
    ],
)
def test_a_transposed_convolution_gives_the_nets_maps_at_every_place(
    kernel, strides, padding, suffix
):
    module = Around(nn.ConvTranspose(4, kernel, strides, padding, name="up"))
    params, content = made(module, suffix)
    wanted = np.asarray(module.apply({"params": params}, IMAGES))
    np.testing.assert_allclose(runtimes.opened(suffix, content)(IMAGES), wanted, atol=1e-5)


def dilated(x):
    ones, steps = (1, 1, 1, 1), (1, 2, 2, 1)
    return lax.reduce_window(x, -jnp.inf, lax.max, steps, ones, "VALID", window_dilation=steps)


def test_a_dilated_max_pool_is_refused_as_onnx():
    with pytest.raises(UserError, match="a dilated max pool has no ONNX form"):
        made(Around(dilated), ".onnx")


class Named(nn.Module):
    @nn.compact
    def __call__(self, x):
        return dilated(x)


@pytest.mark.parametrize(("layer", "told"), [(dilated, "the net"), (Named(), "layer")])
def test_what_the_quantizer_has_no_int8_for_is_told_with_its_layer(layer, told):
    pytest.importorskip("ai_edge_quantizer")
    _, content = made(Around(layer), ".tflite")
    with pytest.raises(UserError, match=f"^{told}: .* has no int8 for one of its operations"):
        int8.quantized_tflite(content, [IMAGES])
