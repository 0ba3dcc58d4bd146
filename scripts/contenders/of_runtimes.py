"""A net as rice_jax exports it, in a runtime made for inference: float32, on all cores of the CPU.

It is given float32 images in [0, 1], which the others make of the bytes themselves.
"""

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
import serving


def make(given: argparse.Namespace, images: np.ndarray, labels: np.ndarray) -> serving.Contender:
    """The net with random weights, exported and loaded; it cannot train."""
    del labels
    import jax

    from rice_jax import models

    module = models.build(given.net)
    params = jax.jit(module.init)(jax.random.key(0), np.zeros((1, *images.shape[1:]), np.float32))
    net = _RUNTIMES[given.runtime](module, params["params"], *images.shape[:2])
    inputs = images / np.float32(255)

    def infer(batches: int) -> object:
        for _ in range(batches):
            logits = net(inputs)
        return logits

    return serving.Contender(None, infer)


def _litert(module: Any, params: Any, batch: int, side: int) -> Callable[[np.ndarray], object]:
    from rice_jax.export import runtimes, to_tflite

    return runtimes.tflite(to_tflite(module, params, side, batch=batch))


def _onnxruntime(module: Any, params: Any, batch: int, side: int) -> Callable[[np.ndarray], object]:
    from rice_jax.export import runtimes, to_onnx

    return runtimes.onnx(runtimes.onnx_session(to_onnx(module, params, side)))


def _openvino(module: Any, params: Any, batch: int, side: int) -> Callable[[np.ndarray], object]:
    import openvino

    from rice_jax.export import to_onnx

    model = openvino.Core().read_model(to_onnx(module, params, side))
    model.reshape([batch, side, side, 3])
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.compile_model(model, "CPU", settings)
    return lambda images: compiled(images)[0]


_RUNTIMES = {"litert": _litert, "onnxruntime": _onnxruntime, "openvino": _openvino}

if __name__ == "__main__":
    serving.serve(make)
