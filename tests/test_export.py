"""Nets as files that run without this package: StableHLO, ONNX, LiteRT."""

import functools
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import prunable
import pytest
from flax import linen as nn
from jax.experimental import io_callback

from rice_jax import config, export, models, train
from rice_jax.errors import UserError
from rice_jax.export import elsewhere, flatbuffer, runtimes
from rice_jax.export import onnx as onnx_export
from rice_jax.graph.trace import variable_shapes

pytest.importorskip("flatbuffers")

WIDTHS = {
    stored["net"]: stored["widths"]
    for stored in json.loads(
        (Path(__file__).parent / "fixtures" / "keras_logits.json").read_text()
    ).values()
} | {name: prunable.WIDTHS[name] for name in ("micro", "nano")}
IMAGE = 32
# Compiles in a third of the time; the numbers are the same to rounding.
quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def tuples(value):
    return tuple(map(tuples, value)) if isinstance(value, list) else value


@functools.cache
def net(name):
    """A small net of each kind and random parameters."""
    module = models.build(name, **{key: tuples(value) for key, value in WIDTHS[name].items()})
    shapes = variable_shapes(module, (1, IMAGE, IMAGE, 3), train=False)["params"]
    random = np.random.default_rng(0)
    return module, jax.tree.map(lambda s: random.normal(0, 0.3, s.shape).astype("f4"), shapes)


def images(count):
    return np.random.default_rng(0).random((count, IMAGE, IMAGE, 3), dtype=np.float32)


@functools.cache
def logits(name):
    """Of the three images."""
    module, params = net(name)
    apply = quick_jit(lambda x: module.apply({"params": params}, x, train=False))
    return np.asarray(apply(images(3)))


def assert_equal(actual, expected):
    scale = max(1, np.abs(expected).max())
    np.testing.assert_allclose(actual, expected, atol=1e-5 * scale)


@pytest.mark.parametrize("name", models.NETS)
@pytest.mark.one_in(4)
def test_stablehlo_equals_the_net(name):
    exported = jax.export.deserialize(bytearray(export.to_stablehlo(*net(name), IMAGE)))
    assert exported.platforms == ("cpu", "cuda", "tpu")
    assert_equal(quick_jit(exported.call)(images(3)), logits(name))


def test_stablehlo_tells_names_of_layers_and_nothing_of_where_it_was_made():
    """Neither whose files they are, nor which line of them asked for it."""
    first = export.to_stablehlo(*net("nano"), IMAGE)
    second = export.to_stablehlo(*net("nano"), IMAGE)
    assert first == second
    assert b"conv1" in first
    for place in (__file__, export.__file__, nn.__file__):
        assert str(Path(place).parent).encode() not in first


def test_stablehlo_runs_with_jax_alone(tmp_path):
    """In a process that can import neither this package nor Flax."""
    (tmp_path / "net").write_bytes(export.to_stablehlo(*net("final"), IMAGE))
    np.save(tmp_path / "images.npy", images(3))
    program = """
import sys
for package in ("rice_jax", "flax"):
    sys.modules[package] = None
import jax.export, numpy
net = jax.export.deserialize(bytearray(open("net", "rb").read()))
images = numpy.load("images.npy")
numpy.save("logits.npy", [*net.call(images[:1]), *net.call(images[1:])])
"""
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)
    assert_equal(np.load(tmp_path / "logits.npy"), logits("final"))


@pytest.fixture(scope="module")
def onnxruntime():
    pytest.importorskip("jax2onnx")
    return pytest.importorskip("onnxruntime")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # jax2onnx's own
@pytest.mark.parametrize("name", models.NETS)
@pytest.mark.one_in(4)
def test_onnx_equals_the_net(name, onnxruntime):
    import onnx

    content = onnx_export.with_note(export.to_onnx(*net(name), IMAGE), "note", "a,b")
    onnx.checker.check_model(content, full_check=True)
    session = onnxruntime.InferenceSession(content)
    assert session.get_modelmeta().custom_metadata_map["note"] == "a,b"
    assert [(i.name, i.shape) for i in session.get_inputs()] == [
        ("images", ["batch", IMAGE, IMAGE, 3])
    ]
    for count in (1, 3):
        (actual,) = session.run(["logits"], {"images": images(count)})
        assert_equal(actual, logits(name)[:count])


def test_jax2onnx_imports_plugins_of_jax_and_flax_for_us_and_all_for_others(onnxruntime):
    """Those of Equinox and its examples compute as they are imported, for ten seconds."""
    from jax2onnx.plugins import plugin_system

    export.to_onnx(*net("nano"), IMAGE)
    imported = {name.split(".")[2] for name in sys.modules if name.startswith("jax2onnx.plugins.")}
    assert {"jax", "flax"} <= imported
    assert not {"equinox", "examples"} & imported
    assert not plugin_system._already_imported_plugins


@pytest.fixture(scope="module")
def litert():
    pytest.importorskip("litert_converter")
    return pytest.importorskip("ai_edge_litert.interpreter")


@pytest.mark.parametrize("name", models.NETS)
def test_tflite_equals_the_net(name, litert):
    content = export.to_tflite(*net(name), IMAGE)
    runner = litert.Interpreter(model_content=content).get_signature_runner()
    assert list(runner.get_input_details()) == ["images"]
    actual = np.concatenate([runner(images=image[None])["logits"] for image in images(3)])
    assert_equal(actual, logits(name))


class Wide(nn.Module):
    """Weights of 400 kB in int8: the quantiser lays those behind the flatbuffer."""

    dtype: Any = None

    @nn.compact
    def __call__(self, x, train):
        return nn.Dense(5, name="head")(nn.relu(nn.Dense(2048, name="wide")(x.reshape(len(x), -1))))


def test_a_note_leaves_large_weights_as_they_are(litert):
    pytest.importorskip("ai_edge_quantizer")
    some = np.random.default_rng(0).random((4, 8, 8, 3), np.float32)
    variables = Wide().init(jax.random.key(0), some, train=False)
    whole = export.to_tflite(Wide(), variables["params"], 8)
    small = export.to_tflite(Wide(), variables["params"], 8, calibrate=[some])
    assert len(small) < len(whole) / 3
    told = flatbuffer.with_note(small, "classes", "a,b")
    assert flatbuffer.note(told, "classes") == "a,b"
    runners = [
        litert.Interpreter(model_content=each).get_signature_runner() for each in (small, told)
    ]
    pixels = (some[:1] * 255 - 128).astype(np.int8)
    before, after = (runner(images=pixels)["logits"] for runner in runners)
    assert np.any(before)
    np.testing.assert_array_equal(after, before)


@pytest.mark.usefixtures("litert")
def test_tflite_of_several_images_at_a_time():
    run = runtimes.tflite(export.to_tflite(*net("final"), IMAGE, batch=3))
    assert_equal(run(images(3)), logits("final"))


def test_pools_are_litert_s_own(litert):
    """Not the slices that this package makes of them for its own speed."""
    made = litert.Interpreter(model_content=export.to_tflite(*net("final"), IMAGE))
    assert [op["op_name"] for op in made._get_ops_details()].count("MAX_POOL_2D") == 2


class Layer(nn.Module):
    """A layer of one operation, between two others, and how many numbers it gives for one."""

    operation: Any

    @nn.compact
    def __call__(self, x):
        return self.operation(x)


class Around(nn.Module):
    operation: Any
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Conv(4, (3, 3), name="conv1")(x)
        x = Layer(self.operation, name="strange")(x)
        return nn.Dense(5, name="head")(x.mean((1, 2)))


def around(operation):
    module = Around(operation)
    return module, module.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))["params"]


@pytest.mark.parametrize(
    ("primitive", "operation"),
    [
        ("sort", lambda x: jnp.sort(x, axis=1)),  # converts, and no runtime has it
        ("cholesky", lambda x: jnp.linalg.cholesky(jnp.eye(8) + 0 * x[..., 0])[..., None]),
        ("fft of complex numbers", lambda x: jnp.fft.fft(x).real),  # the converter says nothing
        ("cumlogsumexp", lambda x: jax.lax.cumlogsumexp(x, 1)),  # is loaded, and not computed
    ],
)
def test_operation_that_litert_lacks_is_named_with_its_layer(primitive, operation, litert, capfd):
    with pytest.raises(
        UserError, match=f"^strange: {primitive} has no LiteRT form; a .stablehlo takes more$"
    ):
        export.to_tflite(*around(operation), 8)
    assert not capfd.readouterr().err


def least(x):
    return jax.lax.reduce_window(x, jnp.inf, jax.lax.min, (1, 2, 2, 1), (1, 1, 1, 1), "VALID")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("primitive", "operation"),
    [
        ("reduce_window_min", least),
        ("dot_general", lambda x: jnp.einsum("nhwc,nhwd->nhwcd", x, x).mean(4)),  # as it is run
    ],
)
def test_operation_that_onnx_lacks_is_named_with_its_layer(primitive, operation, onnxruntime):
    with pytest.raises(
        UserError, match=f"^strange: {primitive} has no ONNX form; a .stablehlo takes more$"
    ):
        export.to_onnx(*around(operation), 8)


ASKING = [
    len,
    lambda x: int(x.shape[0]),
    lambda x: range(x.shape[0]),
    lambda x: [*x],
    lambda x: None if x.shape[0] > 4 else x,
    lambda x: jnp.split(x, x.shape[0]),
    lambda x: math.sqrt(x.shape[0]),
    lambda x: f"{x.shape[0]:d}",
]
"""What needs to know how many images there are."""
ASKS = r"^the net asks how many images there are \(test_export.py, line \d+: .*export a .tflite"


def asking(how):
    """A net in which it is a line of this file that asks."""

    def operation(x):
        how(x)
        return x

    return around(operation)


@pytest.mark.parametrize("how", ASKING)
def test_stablehlo_of_a_net_that_asks_how_many_images_there_are(how):
    with pytest.raises(UserError, match=ASKS):
        export.to_stablehlo(*asking(how), 8)


@pytest.mark.parametrize("how", ASKING)
def test_onnx_of_a_net_that_asks_how_many_images_there_are(how, onnxruntime):
    with pytest.raises(UserError, match=ASKS):
        export.to_onnx(*asking(how), 8)


@pytest.mark.parametrize("how", ASKING)
def test_tflite_of_a_net_that_asks_how_many_images_there_are(how, litert):
    assert export.to_tflite(*asking(how), 8)


@pytest.mark.parametrize(
    ("primitive", "operation"),
    [
        ("pure_callback", lambda x: jax.pure_callback(lambda array: array, x, x)),
        ("io_callback", lambda x: io_callback(lambda array: array, x, x)),
    ],
)
def test_operation_that_stablehlo_lacks_is_named_with_its_layer(primitive, operation):
    with pytest.raises(UserError, match=f"^strange: {primitive} has no StableHLO form$"):
        export.to_stablehlo(*around(operation), 8)


def test_a_net_that_cannot_be_called_says_so_itself():
    def operation(x):
        raise ZeroDivisionError("of the net's own")

    with pytest.raises(
        UserError,
        match=r"^Around does not run on .*test_export.py, line \d+: ZeroDivisionError: of the",
    ):
        export.to_stablehlo(Around(operation), around(jnp.abs)[1], 8)


@pytest.mark.parametrize(
    "operation",
    [
        nn.gelu,
        lambda x: nn.max_pool(x, (2, 2), (1, 1), ((2, 0), (0, 1))),
        lambda x: jnp.cumsum(x, axis=1),
    ],
)
def test_operations_that_no_net_of_ours_has(operation, litert):
    module, params = around(operation)
    x = np.random.default_rng(0).normal(size=(1, 8, 8, 3)).astype(np.float32)
    runner = litert.Interpreter(
        model_content=export.to_tflite(module, params, 8)
    ).get_signature_runner()
    assert_equal(runner(images=x)["logits"], np.asarray(module.apply({"params": params}, x)))


@pytest.mark.parametrize("package", ["litert_converter", "ai_edge_litert"])
def test_tflite_without_its_packages(package, monkeypatch):
    for name in [*sys.modules]:
        if name.partition(".")[0] == package:
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=r"pip install 'rice_jax\[litert\]'"):
        export.to_tflite(*net("final"), IMAGE)


def test_half_precision_nets_are_exported_in_float32():
    module, params = net("final")
    half = module.clone(dtype=jnp.bfloat16)
    exported = jax.export.deserialize(bytearray(export.to_stablehlo(half, params, IMAGE)))
    assert_equal(quick_jit(exported.call)(images(3)), logits("final"))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_pool_that_onnx_cannot_say(onnxruntime):
    module, params = around(lambda x: nn.max_pool(x, (2, 2), (1, 1), ((2, 0), (0, 0))))
    with pytest.raises(UserError, match=r"^strange: a max pool padded by .* has no ONNX form"):
        export.to_onnx(module, params, 8)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("sizes", "along"), [((1, 2, 2, 2), r"\[1, 2, 3\]"), ((2, 1, 1, 1), "the images of a batch")]
)
def test_axes_of_a_pool_that_onnx_cannot_say(sizes, along, onnxruntime):
    module, params = around(
        lambda x: jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, sizes, (1,) * 4, "SAME")
    )
    with pytest.raises(UserError, match=f"^strange: a max pool along {along} has no ONNX form"):
        export.to_onnx(module, params, 8)


def test_onnx_without_its_packages(monkeypatch):
    monkeypatch.setitem(sys.modules, "jax2onnx", None)
    with pytest.raises(UserError, match=r"pip install 'rice_jax\[onnx\]'"):
        export.to_onnx(*net("final"), IMAGE)


def test_runtimes_are_timed_or_say_why_not(monkeypatch):
    def absent(_):
        raise UserError("it is not installed")

    settings = config.default("nano")
    settings.data.image_size = 32
    module = train.build(settings)
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))["params"]
    monkeypatch.setattr(runtimes, "onnx_session", absent)
    monkeypatch.setattr(export, "to_onnx", lambda *_: b"")
    monkeypatch.setattr(export, "to_tflite", lambda *net: net)
    taken = []

    def computing(net):
        assert jax.tree.map(np.shape, net[1]) == jax.tree.map(lambda leaf: leaf.shape, shapes)
        return lambda images: taken.append(images.shape) or np.zeros((1, 5), np.float32)

    monkeypatch.setattr(runtimes, "tflite", computing)
    found, why_not = elsewhere.latencies(settings, shapes)
    assert why_not == {"onnxruntime": "it is not installed"}
    assert set(taken) == {(1, 32, 32, 3)}
    assert 0 < found["LiteRT"].p10 <= found["LiteRT"].median <= found["LiteRT"].p90
