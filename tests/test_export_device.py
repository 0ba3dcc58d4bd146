"""What it takes to put an exported net on a device: its operators, a program in C++."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import pytest
from markdown_it import MarkdownIt

from rice_jax import export, zoo
from rice_jax.export import flatbuffer, litert, microcontroller, onnx

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # jax2onnx's own


class Small(nn.Module):
    """Of each format's commonest operations."""

    dtype: Any = None

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.max_pool(nn.relu(nn.Conv(4, (3, 3))(x)), (2, 2), (2, 2))
        return nn.Dense(3)(x.reshape(x.shape[0], -1))


def small():
    return Small(), Small().init(jax.random.key(0), np.zeros((1, 8, 8, 3), np.float32))["params"], 8


def zoos(name):
    found = zoo.load(name)
    return found.module, found.variables["params"], found.card.image_size


def in_int8(net):
    side = net[2]
    images = np.random.default_rng(0).random((8, side, side, 3), dtype=np.float32)
    return export.to_tflite(*net, calibrate=[images])


def test_operators_of_an_onnx():
    pytest.importorskip("jax2onnx")
    found = onnx.operators(export.to_onnx(*small()))
    assert found == sorted(set(found))
    assert {"Conv", "MaxPool"} < set(found)
    assert {"Gemm", "MatMul"} & set(found)
    assert not {"Dropout", "Softmax"} & set(found)


@pytest.mark.parametrize("quantized", [False, True], ids=["float32", "int8"])
@pytest.mark.parametrize("net", [small, lambda: zoos("nano")], ids=["small", "nano"])
def test_operators_of_a_tflite_are_those_that_litert_calls(net, quantized):
    pytest.importorskip("ai_edge_quantizer")
    content = in_int8(net()) if quantized else export.to_tflite(*net())
    called = {
        each["op_name"] for each in litert.interpreter(content, reference=True)._get_ops_details()
    }
    assert flatbuffer.operators(content) == sorted(called)
    assert "CONV_2D" in called


def test_converting_says_nothing_of_the_converters_own():
    """Which kernels it has, as it is loaded: once in a process, so in one of its own."""
    pytest.importorskip("litert_converter")
    code = (
        "from rice_jax import export, zoo; found = zoo.load('nano');"
        "export.to_tflite(found.module, found.variables['params'], found.card.image_size)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def the_program():
    page = (Path(__file__).parents[1] / "docs" / "export.md").read_text()
    [found] = [each.content for each in MarkdownIt().parse(page) if each.info == "cpp"]
    return found


def test_the_program_of_the_docs_has_the_operators_and_the_memory_that_micro_needs():
    pytest.importorskip("tflite_micro")
    module, params, side = zoos("micro")
    content, program = in_int8((module, params, side // 4)), the_program()
    added = re.findall(r"known\.Add(\w+)\(\);", program)
    named = (name.title().replace("_", "") for name in flatbuffer.operators(content))
    assert added == list(named)
    assert f"MicroMutableOpResolver<{len(added)}>" in program
    needed = microcontroller.measure(content, [np.zeros((56, 56, 3), np.float32)])["arena_bytes"]
    [kilobytes] = map(int, re.findall(r"arena\[(\d+) \* 1024\]", program))
    assert needed < 1024 * kilobytes < 1.1 * needed


def test_the_program_of_the_docs_averages_as_the_net_does():
    """Its two loops, in Python: rows of 224 pixels, three numbers each, become rows of 56."""
    [index] = re.findall(r"sums\[(.+)\] \+= getchar", the_program())
    assert "(sums[i] + 8) / 16 - 128" in the_program()
    photograph = np.random.default_rng(0).integers(0, 256, (224, 224, 3))
    sums = np.zeros((56, 56 * 3), np.int64)
    for row in range(56):
        for i, value in enumerate(photograph[4 * row : 4 * row + 4].ravel()):
            sums[row, eval(index.replace("/", "//"), {"i": i})] += value
    found = (sums + 8) // 16
    wanted = nn.avg_pool(photograph[None].astype(np.float32), (4, 4), (4, 4)).reshape(56, 56 * 3)
    assert np.abs(found - wanted).max() <= 0.5
