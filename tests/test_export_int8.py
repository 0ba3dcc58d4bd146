"""Nets in 8-bit integers: what they are calibrated on, and how near to float32 they stay."""

import types
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_training

from rice_jax import export, models
from rice_jax.errors import UserError
from rice_jax.export import correction, exporting, flatbuffer, int8, litert, runtimes
from rice_jax.export.onnx_layers import OnnxLayers
from rice_jax.export.onnx_rounding import prepared_onnx, rounded_onnx
from rice_jax.export.sample import EvenSample
from rice_jax.export.tflite_layers import TfliteLayers
from rice_jax.export.tflite_rounding import rounded_tflite
from rice_jax.run import Run

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # jax2onnx's own
NEEDED = {".onnx": "jax2onnx", ".tflite": "litert_converter"}
QUANTIZED = {
    ".onnx": (export.to_onnx, int8.quantized_onnx),
    ".tflite": (export.to_tflite, int8.quantized_tflite),
}


@pytest.mark.parametrize("name", QUANTIZED)
def test_int8_is_smaller_in_most_of_its_bytes(name):
    """Of weights that outweigh the rest of the file a quarter is left."""
    pytest.importorskip(NEEDED[name])

    class Wide(nn.Module):
        dtype: Any = None

        @nn.compact
        def __call__(self, x, train=False):
            return nn.Dense(5)(nn.Dense(200)(x.reshape(x.shape[0], 192)))

    images = np.random.default_rng(0).random((4, 8, 8, 3), dtype=np.float32)
    params = Wide().init(jax.random.key(0), images)["params"]
    make, quantize = QUANTIZED[name]
    whole = make(Wide(), params, 8)
    assert len(quantize(whole, [images])) < len(whole) / 3
    for none in ([], [images[:0]]):
        with pytest.raises(UserError, match="calibrated on images, and there are none"):
            quantize(whole, none)


@pytest.mark.parametrize("name", QUANTIZED)
def test_int8_takes_what_two_reductions_give_together(name):
    """As the means and the maxima of maps, in nets that shrink their image: here to one pixel."""
    pytest.importorskip(NEEDED[name])
    net = models.build("nano", convolutions=(3,), grid=4, dense=4)
    images = np.random.default_rng(0).random((20, 6, 6, 3), dtype=np.float32)
    params = net.init(jax.random.key(0), images)["params"]
    make, quantize = QUANTIZED[name]
    content = quantize(make(net, params, 6), [images])
    found = runtimes.opened(name, content)(images)
    exact = np.asarray(net.apply({"params": params}, images))
    assert np.abs(found - exact).max() < 0.05 * np.ptp(exact)


@pytest.mark.parametrize("name", QUANTIZED)
def test_int8_holds_the_range_of_every_image_wherever_it_comes(name):
    pytest.importorskip(NEEDED[name])
    net = models.build("nano", convolutions=(3,), grid=4, dense=4)
    dim = 0.1 * np.random.default_rng(0).random((40, 6, 6, 3), dtype=np.float32)
    bright = np.random.default_rng(1).random((1, 6, 6, 3), dtype=np.float32)
    params = net.init(jax.random.key(0), bright)["params"]
    make, quantize = QUANTIZED[name]
    whole = make(net, params, 6)
    exact = np.asarray(net.apply({"params": params}, bright))
    for order in ([bright, dim], [dim, bright]):
        found = runtimes.opened(name, quantize(whole, order))(bright)
        assert np.abs(found - exact).max() < 0.05 * np.ptp(exact)


class Format(NamedTuple):
    exact: Callable[..., bytes]
    """Of a module, its parameters and an image size."""
    rounded: Callable[..., bytes]
    quantized: Callable[..., bytes]
    layers: Callable[[bytes], correction.Correctable]
    steps: int
    """Of a weight of 1, the largest of its output."""


FORMATS = {
    ".tflite": Format(
        lambda *net: litert.float32_tflite(*net, to_be_quantized=True),
        rounded_tflite,
        int8.quantized_tflite,
        TfliteLayers,
        127,
    ),
    ".onnx": Format(
        lambda *net: prepared_onnx(export.to_onnx(*net)),
        rounded_onnx,
        int8.quantized_onnx,
        OnnxLayers,
        64,
    ),
}


@pytest.fixture(params=FORMATS)
def suffix(request):
    pytest.importorskip(NEEDED[request.param])
    return request.param


def rounded_and_corrected(suffix, net, params, images):
    """The net in int8 before and after its biases are corrected."""
    of = FORMATS[suffix]
    exact = of.exact(net, params, images.shape[1])
    rounded = of.rounded(exact, [images])
    return rounded, correction.corrected(of.layers(rounded), of.layers(exact), images)


def apart(suffix, content, net, params, images):
    """Mean divergence of the answers, in nats."""
    exact = np.asarray(jax.nn.softmax(net.apply({"params": params}, images)))
    found = np.asarray(jax.nn.log_softmax(runtimes.opened(suffix, content)(images)))
    return float(np.mean(np.sum(exact * (np.log(exact) - found), axis=1)))


@pytest.mark.parametrize("seed", range(4))
def test_biases_in_int8_are_corrected_where_that_is_nearer_to_float32(suffix, seed, monkeypatch):
    net = models.build("nano", convolutions=(3, 4), grid=8, dense=4)
    images = np.random.default_rng(seed).random((20, 8, 8, 3), dtype=np.float32) ** 4
    params = net.init(jax.random.key(seed), images)["params"]
    params = jax.tree.map(lambda leaf: 3 * leaf + 0.01, params)
    whole, quantize = FORMATS[suffix].exact(net, params, 8), FORMATS[suffix].quantized
    chosen = quantize(whole, [images])
    made = []

    def remembered(opened, *given):
        made.extend([opened.content(), correction.corrected(opened, *given)])
        return made[1]

    monkeypatch.setattr(int8, "correction", types.SimpleNamespace(corrected=remembered))
    assert quantize(whole, [images]) == chosen
    assert len(set(made)) == 2
    assert chosen == min(made, key=lambda each: apart(suffix, each, net, params, images))


class Pooled(nn.Module):
    """A layer of images, and the means of its maps as logits: a strong one of each."""

    dtype: Any = None

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(nn.Conv(64, (1, 1), name="conv")(x))
        return nn.Dense(5, name="head")(x.mean((1, 2)))


def test_what_a_background_is_rounded_by_is_taken_off(suffix):
    """One value in nearly all places, halfway between two steps: of it the head sees nothing."""
    random = np.random.default_rng(0)
    images = np.zeros((16, 16, 16, 3), np.float32)
    for side, image in enumerate(images):
        image[: side // 3, : side // 3] = 1
    step = 2 / 255  # of maps from 0 to 2: below, of a bright pixel in the first
    background = step * (random.integers(20, 90, 64) + 0.49)
    kernel = random.uniform(0, 0.2, (1, 1, 3, 64))
    kernel[..., 0] = (2 - background[0]) / 3
    head = random.uniform(20, 40, (64, 5))
    params = {
        "conv": {"kernel": kernel, "bias": background},
        "head": {"kernel": head, "bias": -background @ head},
    }
    params = jax.tree.map(lambda leaf: leaf.astype(np.float32), params)
    exact = np.asarray(Pooled().apply({"params": params}, images))
    before, after = (
        np.abs(runtimes.opened(suffix, content)(images).mean(0) - exact.mean(0)).max()
        for content in rounded_and_corrected(suffix, Pooled(), params, images)
    )
    assert before > 1
    assert after < before / 3


def test_layers_of_one_bias_are_left_or_have_each_their_own(suffix):
    """Zeros are stored once in float32."""

    class Alike(nn.Module):
        dtype: Any = None

        @nn.compact
        def __call__(self, x, train=False):
            for number in range(3):
                x = nn.relu(nn.Conv(3, (3, 3), name=f"conv{number}")(x))
            return x.mean((1, 2))

    images = np.random.default_rng(0).random((16, 8, 8, 3), dtype=np.float32)
    params = Alike().init(jax.random.key(0), images)["params"]
    exact = np.asarray(Alike().apply({"params": params}, images))
    _, content = rounded_and_corrected(suffix, Alike(), params, images)
    found = runtimes.opened(suffix, content)(images)
    assert np.abs(found - exact).max() < 0.05 * np.ptp(exact)


TURNED = {
    "picked": lambda pooled: pooled[:, np.arange(8)[::-1]],
    "scaled by rows": lambda pooled: (pooled.T * np.float32([[0.5]] * 4 + [[2]] * 4)).T,
    "as it is": lambda pooled: pooled,
}
"""What is done to (N, 8) before a dense layer; some as a transposition, in an .onnx."""


@pytest.mark.parametrize("done", TURNED)
@pytest.mark.one_in(2)
def test_a_dense_layer_is_corrected_by_its_channels_however_the_code_turns_them(done, suffix):
    """Also where there are as many images as channels."""

    class Turned(nn.Module):
        dtype: Any = None

        @nn.compact
        def __call__(self, x, train=False):
            x = nn.relu(nn.Conv(8, (3, 3), name="conv")(x)).mean((1, 2))
            return nn.Dense(3, name="head")(TURNED[done](x))

    images = np.random.default_rng(0).random((8, 6, 6, 3), dtype=np.float32)
    params = Turned().init(jax.random.key(0), images)["params"]
    params["conv"]["bias"] = params["conv"]["bias"] + np.arange(8) / 4
    maps = nn.relu(nn.Conv(8, (3, 3)).apply({"params": params["conv"]}, images))
    read = np.asarray(TURNED[done](maps.mean((1, 2))))
    whole = FORMATS[suffix].exact(Turned(), params, 6)
    layers = FORMATS[suffix].layers(whole)
    ((head,),) = layers.waves()[1:]
    (means,) = layers.means([head.source], images).values()
    np.testing.assert_allclose(means, read.mean(0), rtol=1e-4)
    content = FORMATS[suffix].quantized(whole, [images])
    exact = np.asarray(Turned().apply({"params": params}, images))
    found = runtimes.opened(suffix, content)(images)
    assert np.abs(found - exact).max() < 0.02 * np.abs(exact).max()


def test_a_net_without_biases_is_corrected_as_one_of_zeros(suffix):
    class Bare(nn.Module):
        biased: bool = False
        dtype: Any = None

        @nn.compact
        def __call__(self, x, train=False):
            x = nn.relu(nn.Conv(4, (3, 3), use_bias=self.biased, name="conv")(x))
            return nn.Dense(4, use_bias=self.biased, name="head")(x.mean((1, 2)))

    images = np.random.default_rng(0).random((4, 8, 8, 3), dtype=np.float32)
    zeros = Bare(biased=True).init(jax.random.key(0), images)["params"]
    none = {name: {"kernel": layer["kernel"]} for name, layer in zeros.items()}
    found = [
        runtimes.opened(suffix, content)(images)
        for net, params in ((Bare(), none), (Bare(biased=True), zeros))
        for content in rounded_and_corrected(suffix, net, params, images)
    ]
    np.testing.assert_array_equal(found[:2], found[2:])
    assert np.abs(found[1] - found[0]).max() > 0


LAYERS = {
    "a convolution": lambda x: nn.Conv(6, (3, 3), name="layer")(x).mean((1, 2)),
    "in groups": lambda x: nn.Conv(9, (3, 3), feature_group_count=3, name="layer")(x).mean((1, 2)),
    "depthwise": lambda x: nn.Conv(12, (3, 3), feature_group_count=6, name="layer")(x).mean((1, 2)),
    "dense": lambda x: nn.Dense(6, name="layer")(x[:, 0, 0]),
}


class Reading(nn.Module):
    """A layer that reads each pixel twice."""

    layer: Any
    dtype: Any = None

    @nn.compact
    def __call__(self, x, train=False):
        return self.layer(jnp.concatenate([x, x], axis=-1))


def tflite_bias(content):
    """The integers of the layer's bias, and their steps."""
    model = flatbuffer.opened(content)
    kinds = ("CONV_2D", "DEPTHWISE_CONV_2D")
    operations = model.subgraphs[0].operators
    (layer,) = (each for each in operations if flatbuffer.kind(model, each) in kinds)
    bias = model.subgraphs[0].tensors[layer.inputs[2]]
    return np.array(model.buffers[bias.buffer].data).view(np.int32), bias.quantization.scale


def onnx_bias(content):
    """The integers of the layer's bias, and their steps."""
    onnx = pytest.importorskip("onnx")
    graph = onnx.load_from_string(content).graph
    (layer,) = (node for node in graph.node if node.op_type in ("Conv", "Gemm"))
    (numbers,) = (node for node in graph.node if layer.input[2] in node.output)
    constants = {each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer}
    return tuple(constants[name] for name in numbers.input[:2])


BIASES = {".tflite": tflite_bias, ".onnx": onnx_bias}


@pytest.mark.parametrize("kind", LAYERS)
def test_a_bias_loses_what_the_rounding_of_inputs_adds(suffix, kind):
    """Pixels of 76.4, 127.7 and 178.3 steps, which are 76, 128 and 178 in integers; in one image
    of five they are 1, which is 255 steps. The kernel is of whole steps."""
    images = np.tile(np.float32([76.4, 127.7, 178.3]) / 255, (5, 6, 6, 1))
    images[4] = 1
    excess = np.array([-0.4, 0.3, -0.3] * 2) / 255 * 4 / 5
    net = Reading(LAYERS[kind])
    params = net.init(jax.random.key(0), images)["params"]
    most = FORMATS[suffix].steps
    kernel = np.random.default_rng(0).integers(-most, most + 1, params["layer"]["kernel"].shape)
    kernel[(0,) * (kernel.ndim - 1)] = most  # the largest of each output
    params["layer"]["kernel"] = kernel = kernel.astype(np.float32) / most
    params["layer"]["bias"] += 0.5
    made = rounded_and_corrected(suffix, net, params, images)
    (old, steps), (new, _) = map(BIASES[suffix], made)
    read = kernel.shape[-2]  # inputs of an output
    weights = kernel.reshape(-1, read, len(excess) // read, len(old) * read // len(excess)).sum(0)
    adds = np.einsum("igo,gi->go", weights, excess.reshape(-1, read)).ravel()
    np.testing.assert_allclose(new - old, -adds / steps, rtol=0.01, atol=2)
    assert np.abs(new - old).max() > 10


@pytest.mark.parametrize("number", [1, 5, 6, 11, 12, 100])
def test_images_that_are_kept_are_spread_over_all(number):
    kept = EvenSample(3)
    for batch in np.array_split(np.arange(number).reshape(-1, 1, 1, 1), 4):
        kept.show(batch)
    places = kept.images().ravel()
    assert min(number, 3) <= len(places) < 6
    assert set(np.diff(places)) <= {max(1, places[-1] // max(1, len(places) - 1))}
    assert number - places[-1] <= 2 * number / len(places)


@pytest.mark.parametrize(
    ("augment", "number", "kinds", "looked_at"),
    [
        (True, 7, ("augmented",), 7),
        (False, 8, ("clean", "augmented"), 8),
        (False, 7, ("clean", "augmented"), 6),
        (False, 1, ("clean",), 1),
    ],
)
def test_calibration_decodes_no_more_than_it_looks_at(
    augment, number, kinds, looked_at, tmp_path, monkeypatch
):
    asked, run = [], Run(tmp_path)

    def load_own(config, of):
        asked.append((config.data.keep_decoded, of))
        return tiny_training.dataset(20)

    monkeypatch.setattr(exporting.identity, "load_own", load_own)
    config = tiny_training.config(augment=augment)
    images = exporting.calibration_images(run, config, number)
    assert sum(len(labels) for _, labels in images) == looked_at
    assert images.kinds == kinds
    assert asked == [(False, run)]
    assert config.data.keep_decoded
