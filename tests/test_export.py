"""Nets as files that run without this package: StableHLO and ONNX."""

import functools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import commands
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_training
from flax import linen as nn

from rice_jax import export, models, train
from rice_jax.config import to_json
from rice_jax.errors import UserError
from rice_jax.export import __main__ as command
from rice_jax.graph.trace import variable_shapes
from rice_jax.run import Run

pytest.importorskip("flatbuffers")

WIDTHS = {
    stored["net"]: stored["widths"]
    for stored in json.loads(
        (Path(__file__).parent / "fixtures" / "keras_logits.json").read_text()
    ).values()
}
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
def test_stablehlo_equals_the_net(name):
    exported = jax.export.deserialize(bytearray(export.to_stablehlo(*net(name), IMAGE)))
    assert exported.platforms == ("cpu", "cuda", "tpu")
    assert_equal(quick_jit(exported.call)(images(3)), logits(name))


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
def test_onnx_equals_the_net(name, onnxruntime):
    import onnx

    content = export.to_onnx(*net(name), IMAGE, {"classes": "a,b"})
    onnx.checker.check_model(content, full_check=True)
    session = onnxruntime.InferenceSession(content)
    assert session.get_modelmeta().custom_metadata_map["classes"] == "a,b"
    assert [(i.name, i.shape) for i in session.get_inputs()] == [
        ("images", ["batch", IMAGE, IMAGE, 3])
    ]
    for count in (1, 3):
        (actual,) = session.run(["logits"], {"images": images(count)})
        assert_equal(actual, logits(name)[:count])


def test_half_precision_nets_are_exported_in_float32():
    module, params = net("final")
    half = module.clone(dtype=jnp.bfloat16)
    exported = jax.export.deserialize(bytearray(export.to_stablehlo(half, params, IMAGE)))
    assert_equal(quick_jit(exported.call)(images(3)), logits("final"))


class OddPool(nn.Module):
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, train=False):
        return nn.max_pool(x, (2, 2), (1, 1), ((2, 0), (0, 0)))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_pool_that_onnx_cannot_say(onnxruntime):
    with pytest.raises(UserError, match="has no ONNX form"):
        export.to_onnx(OddPool(), {}, IMAGE)


def test_onnx_without_its_packages(monkeypatch):
    monkeypatch.setitem(sys.modules, "jax2onnx", None)
    with pytest.raises(UserError, match=r"pip install 'rice_jax\[onnx\]'"):
        export.to_onnx(*net("final"), IMAGE)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A trained run."""
    run = Run(tmp_path_factory.mktemp("run"))
    config = tiny_training.config(epochs=1)
    run.write_json("config.json", {"config": to_json(config), "data": None})
    train.train(config, run, tiny_training.dataset())
    return run


def test_command_writes_stablehlo(run, tmp_path):
    out = tmp_path / "new" / "net.stablehlo"
    done = commands.run("export", f"--workdir={run}", f"--out={out}")
    assert done.returncode == 0, done.stderr
    about = json.loads((tmp_path / "new" / "net.stablehlo.json").read_text())
    trained = train.load(run)
    assert about["classes"] == list(trained.classes)
    assert about["params"] == sum(leaf.size for leaf in jax.tree.leaves(trained.params))
    assert about["bytes"] == out.stat().st_size
    assert f"{about['params']:,} parameters" in done.stdout
    assert f"study {about['flops']['study']:,}" in done.stdout
    x = np.random.default_rng(0).random((5, 16, 16, 3), dtype=np.float32)
    expected = jax.jit(lambda x: trained.module.apply({"params": trained.params}, x, train=False))(
        x
    )
    exported = jax.export.deserialize(bytearray(out.read_bytes()))
    assert_equal(exported.call(x), expected)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_command_measures_onnxruntime(run, tmp_path, onnxruntime, capsys):
    about = command.write(run, str(tmp_path / "net.onnx"))
    assert about["max_abs_logit_difference"] < 1e-5
    for seconds in about["latency_seconds"].values():
        assert 0 < seconds["p10"] <= seconds["median"] <= seconds["p90"]
    command._tell(about)
    printed = capsys.readouterr().out
    assert "in onnxruntime" in printed
    assert "in rice_jax" in printed
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    assert session.get_outputs()[0].name == "logits"
    classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
    assert classes == list(tiny_training.CLASSES)


@pytest.mark.parametrize("name", ["net.pt", "net", ".onnx"])
def test_unknown_kind_of_file(name, run, tmp_path):
    with pytest.raises(UserError, match=r"must end in \.stablehlo or \.onnx"):
        command.write(run, str(tmp_path / name))
    assert not list(tmp_path.iterdir())


def test_net_that_computes_something_else_is_not_written(run, tmp_path, monkeypatch):
    trained = train.load(run)
    other = jax.tree.map(lambda leaf: leaf + 1, trained.params)
    wrong = export.to_stablehlo(trained.module, other, 16)
    monkeypatch.setattr(export, "to_stablehlo", lambda *_: wrong)
    with pytest.raises(UserError, match="differ"):
        command.write(run, str(tmp_path / "net.stablehlo"))
    assert not list(tmp_path.iterdir())
