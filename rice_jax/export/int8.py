"""Exported nets in 8-bit integers, weights and activations, by the tools of each format.

Either tool is given the net in float32 and images that are like those to come: what ranges the
activations take on these (calibration) decides the scale of each tensor. Weights get a scale for
each output channel, but one for all in LiteRT's dense layers, where they would cost more bytes than
they are worth. Source: Jacob et al. 2018, arXiv:1712.05877. Then biases are corrected.
"""

from collections.abc import Callable

import numpy as np
from scipy.special import log_softmax

from rice_jax.bar import Bar
from rice_jax.export import correction
from rice_jax.export.onnx_layers import OnnxLayers
from rice_jax.export.onnx_rounding import prepared_onnx, rounded_onnx
from rice_jax.export.runtimes import opened
from rice_jax.export.sample import Batches, EvenSample
from rice_jax.export.tflite_layers import TfliteLayers
from rice_jax.export.tflite_rounding import rounded_tflite

_JUDGED = 100
"""Images by which it is decided whether biases are corrected."""
_SLOW = 16
"""Images whose means are taken where tensors are kept by slow kernels: of pixels there are many."""


def quantized_tflite(content: bytes, images: Batches) -> bytes:
    """A .tflite of float32 in int8, by ai-edge-quantizer, and its biases corrected.

    Args:
        content: as `float32_tflite(..., to_be_quantized=True)` gives it.
        images: to calibrate on.

    Returns:
        The flatbuffer: input int8, which is a pixel of 0 to 255 less 128; output int8 logits
        with a scale and a zero point.

    Raises:
        UserError: there are no images, an operation has no int8, or the packages of the extra
            'litert' are not installed.
    """
    judged = EvenSample(_JUDGED)
    rounded = rounded_tflite(content, judged.showing(images))
    images = judged.images()
    some = images[:: -(-len(images) // _SLOW)]
    return _nearer(".tflite", TfliteLayers, content, rounded, images, some)


def quantized_onnx(content: bytes, images: Batches) -> bytes:
    """An ONNX model of float32 in int8, by onnxruntime, and its biases corrected.

    Args:
        content: as `float32_onnx` gives it.
        images: to calibrate on.

    Returns:
        The model, whose input and output are float32 as before: it quantises what comes in, and
        the operations between are of int8 (QuantizeLinear, DequantizeLinear). Weights take seven
        of the eight bits: x86 without VNNI adds products in 16 bits, which overflow with eight.

    Raises:
        UserError: there are no images, or onnxruntime's quantiser is not installed.
    """
    judged, whole = EvenSample(_JUDGED), prepared_onnx(content)
    rounded = rounded_onnx(whole, judged.showing(images))
    images = judged.images()
    return _nearer(".onnx", OnnxLayers, whole, rounded, images, images)


def _nearer(
    suffix: str,
    layers: Callable[[bytes], correction.Correctable],
    exact: bytes,
    rounded: bytes,
    images: np.ndarray,
    some: np.ndarray,
) -> bytes:
    """The file in int8 with biases corrected by some images, or as it is: the nearer to float32."""
    right = opened(suffix, exact)(images)
    with Bar("correcting biases"):
        tried = (rounded, correction.corrected(layers(rounded), layers(exact), some))
    return min(tried, key=lambda each: _departure(right, opened(suffix, each)(images)))


def _departure(exact: np.ndarray, found: np.ndarray) -> float:
    """Mean divergence (Kullback and Leibler, in nats) of the answers, from logits (N, classes)."""
    ours, theirs = log_softmax(exact, axis=1), log_softmax(found, axis=1)
    return float(np.mean(np.sum(np.exp(ours) * (ours - theirs), axis=1)))
