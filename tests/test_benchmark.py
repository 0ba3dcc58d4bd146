"""The benchmark runs its contenders in turn and writes what it measured."""

import argparse
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from unittest import mock

import commands
import data_files
import jax
import keras_nets  # noqa: F401  (sets the backend before Keras is imported)
import numpy as np
import prunable
import pytest

from rice_jax import models, profile
from rice_jax.errors import UserError
from rice_jax.report import figures

ROOT = Path(__file__).parent.parent
BENCHMARK = ROOT / "scripts" / "benchmark.py"
MEASURES = {
    "train_images_per_second",
    "inference_images_per_second",
    "peak_memory_mb",
    "compile_seconds",
}


@pytest.fixture(autouse=True)
def _as_a_program(monkeypatch):
    """Its neighbours are found, as where Python starts with it."""
    monkeypatch.syspath_prepend(BENCHMARK.parent)


@pytest.mark.thorough
def test_contenders_are_measured_side_by_side(tmp_path):
    done = commands.run(
        BENCHMARK,
        "--nets=cnn_light",
        "--batch=4",
        "--contenders=rice_jax,plain_flax",
        "--image_size=32",
        "--rounds=2",
        "--seconds=0.01",
        f"--out={tmp_path}",
    )
    assert done.returncode == 0, done.stderr
    (contenders,) = json.loads((tmp_path / "benchmark.json").read_text())["cnn_light"].values()
    assert set(contenders) == {"rice_jax", "plain_flax"}
    for measured in contenders.values():
        assert measured.keys() >= MEASURES
        assert all(measured[measure] > 0 for measure in MEASURES)
        assert len(measured["train_turns"]) == 2
    assert "| cnn_light | 4 | plain_flax |" in done.stdout
    assert (tmp_path / "benchmark.png").stat().st_size > 0


@pytest.mark.thorough
def test_seconds_to_an_accuracy_end_with_the_epoch_that_has_it(tmp_path):
    data_files.write_folder(tmp_path / "images", data_files.pictures())
    done = commands.run(
        BENCHMARK,
        "--nets=cnn_light",
        f"--images={tmp_path / 'images'}",
        "--accuracy=0",
        "--contenders=rice_jax",
        f"--out={tmp_path}",
    )
    assert done.returncode == 0, done.stderr
    ways = json.loads((tmp_path / "accuracy.json").read_text())["cnn_light"]
    assert set(ways) == {"rice_jax study", "rice_jax quick"}
    for (epoch,) in ways.values():
        assert epoch["seconds"] > 0
        assert 0 <= epoch["val_accuracy"] <= 1


@pytest.mark.thorough
def test_a_runtime_infers_what_was_exported(monkeypatch):
    pytest.importorskip("jax2onnx")
    monkeypatch.syspath_prepend(ROOT / "scripts" / "contenders")
    import of_runtimes

    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)
    given = argparse.Namespace(net="nano", runtime="onnxruntime")
    contender = of_runtimes.make(given, images, np.zeros(2, np.int32))
    module = models.build("nano")

    def logits(x):
        return module.apply(module.init(jax.random.key(0), x[:1]), x)

    x = images / np.float32(255)
    ours = prunable.compiled(logits, x)(x)
    assert contender.train is None
    np.testing.assert_allclose(contender.infer(1), ours, atol=1e-5)


def test_the_table_leaves_free_what_was_not_measured():
    measured = {"peak_memory_mb": 100.0, "compile_seconds": 0.5, "infer_turns": [9.0, 30.0, 10.0]}
    trained = measured | {"train_turns": [4.0, 5.0, 6.0]}
    text = commands.imported(BENCHMARK).table({"cnn": {"32": {"litert": measured, "jax": trained}}})
    assert "| cnn | 32 | litert |  | 10 (9 to 30) | 100 | 0.5 |" in text
    assert "| cnn | 32 | jax | 5 (4 to 6) | 10 (9 to 30) | 100 | 0.5 |" in text


@pytest.mark.parametrize("name", ["cnn_light", "final", "cnn", "vgg_custom", "googlenet_light"])
def test_the_peers_net_is_ours(name, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts" / "contenders")
    import of_keras

    zeros = mock.Mock(side_effect=lambda shape, **_: np.zeros(shape))  # drawing would compile
    monkeypatch.setattr(of_keras.keras.initializers.GlorotUniform, "__call__", zeros)
    theirs = of_keras.build(models.get(name).widths, 64)
    ours = profile.count(models.build(name), (64, 64, 3))
    assert theirs.count_params() == ours.params


@pytest.mark.parametrize(
    ("argument", "line"),
    [
        ("--nets=lenet", "error: --nets: there is no lenet; there are cnn, "),
        ("--contenders=caffe", "error: --contenders: there is no caffe; there are rice_jax, "),
        ("--batch=32,many", "error: --batch=32,many: give 1 or more of: a whole number from 1 to"),
        ("--batch=0", "error: --batch=0: give 1 or more of: a whole number from 1 to"),
        ("--dtypes=float16", "error: --dtypes=float16: give 1 or more of: float32 or bfloat16"),
        ("--accuracy=0.9", "error: --accuracy changes nothing without --images"),
    ],
)
def test_what_it_does_not_know_is_named(tmp_path, argument, line):
    done = commands.run(BENCHMARK, argument, f"--out={tmp_path}")
    assert done.returncode == 1
    assert done.stderr.startswith(line)
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("more", [(), ("--accuracy=0.9",)])
@pytest.mark.parametrize("contender", ["rice_jax", "keras_tensorflow"])
def test_the_ways_from_files_have_one_folder_and_keras_is_as_fast_as_it_can(
    more, contender, tmp_path, monkeypatch
):
    """Wherever the benchmark is begun, and with the settings that its steps are measured with."""
    begun = []

    def begin(command, *_, env, **__):
        begun.append((command, env))
        raise UserError("begun")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(subprocess, "Popen", begin)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)  # TensorFlow is not here
    given = ("--nets=final", "--images=some/folder", f"--contenders={contender}", "--out=out")
    commands.run(BENCHMARK, *given, *more)
    [(command, environment), *_] = begun
    named = [part.rpartition("=")[2] for part in command if part.endswith("some/folder")]
    assert named == [str(tmp_path / "some" / "folder")]
    if contender == "keras_tensorflow":
        assert environment.items() >= commands.imported(BENCHMARK).CONTENDERS[contender][2].items()


def test_a_contender_s_memory_is_its_own(monkeypatch):
    """Linux hands the peak of whoever starts a process on to it."""
    folder = ROOT / "scripts" / "contenders"
    monkeypatch.syspath_prepend(folder)
    import serving

    ours = np.ones(25_000_000)  # 200 MB
    program = f"import sys; sys.path.insert(0, {str(folder)!r})\nimport serving\n"
    program += "print(serving.peak_memory())\nheld = b'1' * 10**8\nprint(serving.peak_memory())"
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, check=True)
    alone, more = map(float, done.stdout.split())
    assert alone < ours.nbytes / 1e6 < serving.peak_memory()
    assert more - alone == pytest.approx(100, abs=5)


@pytest.mark.parametrize(("batch", "waits"), [(1, 3), (2, 1)])
def test_a_single_image_is_awaited(batch, waits, monkeypatch):
    """Also by plain Flax, whose images would else be computed one behind the other."""
    monkeypatch.syspath_prepend(ROOT / "scripts" / "contenders")
    import of_jax

    net = argparse.Namespace(
        init=lambda key, image: {"params": image.mean()},
        apply=lambda variables, images: images * variables["params"],
    )
    monkeypatch.setattr(models, "build", lambda *_, **__: net)
    awaited = []
    monkeypatch.setattr(jax, "block_until_ready", lambda array: awaited.append(array) or array)
    images = np.ones((batch, 4, 4, 3), np.uint8)
    given = argparse.Namespace(net="final", dtype="float32", batch=batch)
    contender = of_jax.plain_flax(given, images, np.zeros(batch, np.int32))
    contender.infer(3)
    assert len({id(array) for array in awaited}) == waits


def test_the_plot_has_a_mark_for_each_contender():
    measured = {"train_images_per_second": 100.0, "inference_images_per_second": 300.0}
    faster = {name: 2 * value for name, value in measured.items()}
    results = {
        "cnn": {"32": {"torch": measured, "rice_jax": faster}, "64": {"rice_jax": faster}},
        "final": {"32": {"torch": measured, "litert": {"inference_images_per_second": 9.0}}},
    }
    figure = figures.speeds(results)
    training, inference = figure.axes
    marks = {line.get_label(): list(line.get_xdata()) for line in training.lines}
    assert marks == {"torch": [100, 100], "rice_jax": [200, 200], "litert": []}
    assert {line.get_label() for line in inference.lines} == marks.keys()
    assert [label.get_text() for label in training.get_yticklabels()] == [
        "cnn, 32",
        "cnn, 64",
        "final, 32",
    ]
    assert "images per second" in inference.get_xlabel()
