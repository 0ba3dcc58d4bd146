"""Exported nets in 8-bit integers, weights and activations, by the tools of each format.

Either tool is given the net in float32 and images that are like those to come: what ranges the
activations take on these (calibration) decides the scale of each tensor. Weights get a scale for
each output channel, but one for all in LiteRT's dense layers, where they would cost more bytes than
they are worth. Source: Jacob et al. 2018, arXiv:1712.05877.
"""

import contextlib
import itertools
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import log_softmax

from rice_jax.bar import Bar
from rice_jax.errors import UserError
from rice_jax.export import correction
from rice_jax.export.litert import DENSE, SIGNATURE, missing
from rice_jax.export.native import stderr_kept_back
from rice_jax.export.runtimes import tflite
from rice_jax.export.sample import EvenSample

Batches = Iterable[np.ndarray]
"""Images float32 (N, H, W, 3) in [0, 1]."""
Range = dict[str, Any]
"""'min' and 'max' of a tensor."""
_JUDGED = 100
"""Images by which it is decided whether the biases of a .tflite are corrected."""


def quantized_tflite(content: bytes, images: Batches) -> bytes:
    """A .tflite of float32 in int8, by ai-edge-quantizer.

    Args:
        content: as `to_tflite(..., to_be_quantized=True)` gives it.
        images: to calibrate on.

    Returns:
        The flatbuffer: input int8, which is a pixel of 0 to 255 less 128; output int8 logits
        with a scale and a zero point.

    Raises:
        UserError: there are no images, or the packages of the extra 'litert' are not installed.
    """
    looked_at = EvenSample(_JUDGED)
    plain = _with_ranges(content, _ranges(content, images, looked_at))
    judged = looked_at.images()
    exact = tflite(content)(judged)
    with Bar("correcting biases"):
        tried = (plain, correction.corrected(plain, content, judged))
    return min(tried, key=lambda each: _departure(exact, tflite(each)(judged)))


def _quantizer(content: bytes) -> Any:
    """The tool, told what is to be made of a .tflite."""
    try:
        from ai_edge_quantizer import qtyping, quantizer
    except ImportError as error:
        raise missing(error) from error
    made = quantizer.Quantizer(bytearray(content))
    made.add_static_config(".*", qtyping.TFLOperationName.ALL_SUPPORTED, 8, 8)
    one_scale = qtyping.QuantGranularity.TENSORWISE
    made.add_static_config(f".*{DENSE}.*", qtyping.TFLOperationName.CONV_2D, 8, 8, one_scale)
    return made


def _ranges(content: bytes, images: Batches, looked_at: EvenSample) -> dict[str, Range]:
    """Of each tensor the range that holds all that it is on the images, which are looked at."""
    tool, widest = _quantizer(content), dict[str, Range]()
    for batch in _some(images):
        looked_at.show(batch)
        # Image by image: of several the tool keeps a moving average, mostly of the last few.
        for image in batch:
            with _quiet():
                found = tool.calibrate({SIGNATURE: [{"images": image[None]}]}, num_threads=1)
            widest = {name: _holding(widest.get(name, seen), seen) for name, seen in found.items()}
    return widest


def _with_ranges(content: bytes, ranges: Mapping[str, Range]) -> bytes:
    """A .tflite in int8, its tensors in such ranges."""
    # All pixels there can be, not those that happened to be there: 1/255 and -128 exactly.
    pixels: Range = {"min": np.zeros((1, 1, 1, 1)), "max": np.ones((1, 1, 1, 1))}
    ranges = {**ranges, f"{SIGNATURE}_images": pixels}
    with _quiet():
        made = _quantizer(content).quantize(ranges, enable_progress_report=False)
    return bytes(made.quantized_model)


def _holding(one: Range, other: Range) -> Range:
    """The range that holds both."""
    return {
        "min": np.minimum(one["min"], other["min"]),
        "max": np.maximum(one["max"], other["max"]),
    }


def _departure(exact: np.ndarray, found: np.ndarray) -> float:
    """Mean divergence (Kullback and Leibler, in nats) of the answers, from logits (N, classes)."""
    ours, theirs = log_softmax(exact, axis=1), log_softmax(found, axis=1)
    return float(np.mean(np.sum(np.exp(ours) * (ours - theirs), axis=1)))


def quantized_onnx(content: bytes, images: Batches) -> bytes:
    """An ONNX model of float32 in int8, by onnxruntime's static quantisation.

    Args:
        content: as `to_onnx` gives it.
        images: to calibrate on.

    Returns:
        The model, whose input and output are float32 as before: it quantises what comes in, and
        the operations between are of int8 (QuantizeLinear, DequantizeLinear). Weights take seven
        of the eight bits: x86 without VNNI adds products in 16 bits, which overflow with eight.

    Raises:
        UserError: there are no images, or onnxruntime's quantiser is not installed.
    """
    try:
        import onnx
        from onnxruntime import quantization
    except ImportError as error:
        raise UserError(
            f"int8 ONNX needs packages that are not installed ({error}): "
            "pip install 'rice_jax[onnx]'"
        ) from error
    with tempfile.TemporaryDirectory() as folder, _quiet():
        given, whole, out = (
            Path(folder, name) for name in ("given.onnx", "float32.onnx", "int8.onnx")
        )
        given.write_bytes(content)
        # Its symbolic shapes know no ReduceMax of today's ONNX; ONNX's own suffice.
        quantization.quant_pre_process(given, whole, skip_symbolic_shape=True)
        model = onnx.load(whole)
        _flatten_biases(model.graph)
        quantization.quantize_static(
            model,
            out,
            _Reader(_some(images)),
            per_channel=True,
            weight_type=quantization.QuantType.QInt8,
            activation_type=quantization.QuantType.QInt8,
            reduce_range=True,
        )
        return out.read_bytes()


def _flatten_biases(graph: Any) -> None:
    """Give the bias (1, n) of each matrix product the shape (n,), for a scale in each column."""
    constants = {each.name: each for each in graph.initializer}
    for node in graph.node:
        bias = constants.get(node.input[2]) if node.op_type == "Gemm" and node.input[2:] else None
        if bias is not None and len(bias.dims) == 2:
            del bias.dims[0]
    del graph.value_info[:]  # shapes as they were, which are inferred again


class _Reader:
    """Images as onnxruntime's calibration asks for them."""

    def __init__(self, images: Iterator[np.ndarray]) -> None:
        self._images = images

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self._images, None)
        return None if batch is None else {"images": batch}


def _some(images: Batches) -> Iterator[np.ndarray]:
    """The batches; UserError where there is none."""
    batches = map(np.asarray, images)
    first = next(batches, None)
    if first is None or not len(first):
        raise UserError("int8 is calibrated on images, and there are none")
    return itertools.chain([first], batches)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the tools' own bars and hints."""
    with warnings.catch_warnings(), stderr_kept_back():
        warnings.simplefilter("ignore")
        yield
