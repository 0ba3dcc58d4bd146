"""Nets as the tools of int8 are given them, and what the tools make of them."""

import resource
import shutil
import tempfile
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_checkpoints import limit_of

from rice_jax import export
from rice_jax.errors import UserError
from rice_jax.export import int8, runtimes
from rice_jax.export.onnx_rounding import prepared_onnx, rounded_onnx

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # jax2onnx's own
QUANTIZED = {
    ".onnx": ("jax2onnx", export.to_onnx, int8.quantized_onnx),
    ".tflite": ("litert_converter", export.to_tflite, int8.quantized_tflite),
}


@pytest.fixture(params=QUANTIZED)
def suffix(request):
    pytest.importorskip(QUANTIZED[request.param][0])
    return request.param


def _conv(x):
    return nn.Conv(6, (3, 3), use_bias=False)(x)


ADDED = {
    "its bias": (lambda x: nn.relu(nn.Conv(6, (3, 3))(x)), 0),
    "a bias of ones": (lambda x: nn.relu(_conv(x) + jnp.ones(6)), 0),
    "a number": (lambda x: nn.relu(_conv(x) + 0.5), 1),
    "numbers of each column": (lambda x: nn.relu(_conv(x).swapaxes(2, 3) + jnp.arange(6.0)), 1),
    "numbers of each pixel": (lambda x: nn.relu(_conv(x) + jnp.arange(36.0).reshape(6, 6, 1)), 1),
    "of sums that go elsewhere too": (lambda x: (y := _conv(x)) * (y + jnp.ones(6)), 1),
}


@pytest.mark.parametrize("what", ADDED)
def test_a_bias_is_its_convolutions_in_the_onnx_that_is_rounded(what):
    """And what is none stays where it is."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("jax2onnx")
    add, left = ADDED[what]

    class Ending(nn.Module):
        dtype: Any = None

        @nn.compact
        def __call__(self, x, train=False):
            return add(x).mean((1, 2))

    images = np.random.default_rng(0).random((3, 6, 6, 3), dtype=np.float32)
    params = jax.tree.map(
        lambda leaf: leaf + 0.1, Ending().init(jax.random.key(0), images)["params"]
    )
    content = prepared_onnx(export.to_onnx(Ending(), params, 6))
    found = runtimes.opened(".onnx", content)(images)
    np.testing.assert_allclose(found, Ending().apply({"params": params}, images), atol=1e-5)
    kinds = [node.op_type for node in onnx.load_from_string(content).graph.node]
    assert kinds.count("Add") == left


def test_a_dense_layer_of_maps_is_int8_in_an_onnx():
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("jax2onnx")

    class Mixing(nn.Module):
        dtype: Any = None

        @nn.compact
        def __call__(self, x, train=False):
            return nn.Dense(4)(nn.relu(nn.Dense(16)(x))).mean((1, 2))

    images = np.random.default_rng(0).random((20, 6, 6, 3), dtype=np.float32)
    params = Mixing().init(jax.random.key(0), images)["params"]
    content = export.to_onnx(Mixing(), params, 6, calibrate=[images])
    exact = np.asarray(Mixing().apply({"params": params}, images))
    found = runtimes.opened(".onnx", content)(images)
    assert np.abs(found - exact).max() < 0.05 * np.ptp(exact)
    stored = onnx.load_from_string(content).graph.initializer
    kernels = [each for each in stored if sorted(each.dims) in ([3, 16], [4, 16])]
    assert [each.data_type for each in kernels] == 2 * [onnx.TensorProto.INT8]


class Chain(nn.Module):
    """Two layers, the second of what the first leaves."""

    dtype: Any = None

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(nn.Conv(4, (1, 1), name="first")(x))
        return nn.Dense(3, name="head")(nn.relu(nn.Conv(4, (1, 1), name="second")(x)).mean((1, 2)))


def chain(kernel, bias):
    """Its parameters, of such numbers in the first layer."""
    params = Chain().init(jax.random.key(0), np.zeros((1, 6, 6, 3)))["params"]
    params = jax.tree.map(lambda leaf: np.asarray(leaf) + 0.1, params)
    first = {"kernel": np.full((1, 1, 3, 4), kernel), "bias": np.full(4, bias)}
    return params | {"first": jax.tree.map(np.float32, first)}


def test_a_layer_that_is_zero_on_every_image_is_rounded(suffix):
    _, make, quantize = QUANTIZED[suffix]
    images = np.random.default_rng(0).random((5, 6, 6, 3), dtype=np.float32)
    params = chain(1, -4)
    found = runtimes.opened(suffix, quantize(make(Chain(), params, 6), [images]))(images)
    exact = np.asarray(Chain().apply({"params": params}, images))
    assert np.abs(found - exact).max() < 0.05 * np.ptp(exact)


def test_a_layer_that_hardly_moves_on_the_images_is_refused_where_no_step_fits():
    """Of grey pixels the differences of colours are a ten-millionth of what they may be."""
    pytest.importorskip("litert_converter")
    images = np.tile(np.random.default_rng(0).random((5, 6, 6, 1), dtype=np.float32), (1, 1, 1, 3))
    params = chain([[1], [-1], [0]], 1e-7)
    with pytest.raises(
        UserError, match=r"calibrated on, where first gives the least, .*: give others"
    ):
        export.to_tflite(Chain(), params, 6, calibrate=[images])


UNSIZED = {
    "infinite": (3e38, "first"),
    "infinite later": (3e38, "second"),
}


@pytest.mark.parametrize("kind", UNSIZED)
def test_a_layer_that_gives_no_numbers_on_the_images_is_refused(kind, suffix):
    """LiteRT would end the process; of onnxruntime's tensors none has a layer's name."""
    _, make, quantize = QUANTIZED[suffix]
    number, layer = UNSIZED[kind]
    images = np.ones((2, 6, 6, 3), np.float32)
    params = chain(1, 0)
    params[layer] = {**params[layer], "kernel": np.full_like(params[layer]["kernel"], number)}
    whole = make(Chain(), params, 6)
    told = f"^{layer}: what it gives" if suffix == ".tflite" else "^what a layer gives"
    with pytest.raises(UserError, match=told):
        quantize(whole, [images])


def test_an_onnx_whose_shapes_are_wrong_is_computed_without_a_word(capfd):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("jax2onnx")
    model = onnx.load_from_string(export.to_onnx(Chain(), chain(1, 0), 6))
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    del model.graph.value_info[:]
    told = onnx.helper.make_tensor_value_info(conv.output[0], onnx.TensorProto.FLOAT, (9, 4, 7, 7))
    model.graph.value_info.append(told)
    runtimes.opened(".onnx", model.SerializeToString())(np.zeros((9, 6, 6, 3), np.float32))
    assert capfd.readouterr() == ("", "")


def test_images_are_calibrated_few_at_a_time_however_they_come(monkeypatch):
    """onnxruntime keeps all maps of those that it is given together."""
    pytest.importorskip("jax2onnx")
    calibrate = pytest.importorskip("onnxruntime.quantization.calibrate")
    shown, collect = [], calibrate.MinMaxCalibrater.collect_data

    def collected(self, reader):
        batches = list(iter(reader.get_next, None))
        shown.extend(len(batch["images"]) for batch in batches)
        left = iter(batches)
        reader.get_next = lambda: next(left, None)
        collect(self, reader)

    monkeypatch.setattr(calibrate.MinMaxCalibrater, "collect_data", collected)
    images = np.random.default_rng(0).random((20, 6, 6, 3), dtype=np.float32)
    whole = prepared_onnx(export.to_onnx(Chain(), chain(1, 0), 6))
    together, by_one = (rounded_onnx(whole, each) for each in ([images], np.split(images, 20)))
    assert together == by_one
    assert sum(shown) == 40
    assert max(shown) < 20


@pytest.mark.parametrize("step", [prepared_onnx, lambda model: rounded_onnx(model, [])])
def test_a_full_disk_is_told_before_the_tool_leaves_out_what_it_cannot_write(
    step, tmp_path, monkeypatch
):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=5_000_000))
    said = rf"cannot write in {tmp_path}: int8 needs 9\.0 MB for a while; TMPDIR names another"
    with pytest.raises(UserError, match=said):
        step(bytes(2_000_000))
    assert not list(tmp_path.iterdir())


def test_a_disk_that_fills_up_under_the_tool_is_named(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    model = onnx.ModelProto(doc_string=10_000 * "x").SerializeToString()
    with (
        limit_of(resource.RLIMIT_FSIZE, 4096),
        pytest.raises(UserError, match=f"cannot write in {tmp_path}: File too large; TMPDIR"),
    ):
        prepared_onnx(model)
    assert not list(tmp_path.iterdir())
