"""Nets in 8-bit integers: what they are calibrated on, and how near to float32 they stay."""

from typing import Any

import flax.linen as nn
import jax
import numpy as np
import pytest
import tiny_training

from rice_jax import export, models
from rice_jax.errors import UserError
from rice_jax.export import exporting, int8, runtimes
from rice_jax.export.sample import EvenSample
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
    first, last = ([bright, dim], [dim, bright])
    content = quantize(whole, first)
    assert content == quantize(whole, last)
    found = runtimes.opened(name, content)(bright)
    exact = np.asarray(net.apply({"params": params}, bright))
    assert np.abs(found - exact).max() < 0.05 * np.ptp(exact)


def test_of_the_int8_tflite_that_are_tried_the_nearest_to_float32_is_kept(monkeypatch):
    pytest.importorskip("ai_edge_quantizer")
    net = models.build("nano", convolutions=(3, 4), grid=8, dense=4)
    images = np.random.default_rng(0).random((20, 8, 8, 3), dtype=np.float32) ** 4
    params = jax.tree.map(lambda leaf: 3 * leaf, net.init(jax.random.key(0), images)["params"])
    whole = export.to_tflite(net, params, 8, to_be_quantized=True)
    exact = np.asarray(jax.nn.softmax(net.apply({"params": params}, images)))

    def apart(content):
        found = np.asarray(jax.nn.log_softmax(runtimes.tflite(content)(images)))
        return float(np.mean(np.sum(exact * (np.log(exact) - found), axis=1)))

    chosen = int8.quantized_tflite(whole, [images])
    shares = int8._SHARES
    alone = []
    for share in shares:
        monkeypatch.setattr(int8, "_SHARES", (share,))
        alone.append(int8.quantized_tflite(whole, [images]))
    assert len(set(alone)) > 1
    assert chosen == min(alone, key=apart)


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
