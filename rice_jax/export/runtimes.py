"""An exported file as a function of images, computed by the runtime that the format is for."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from rice_jax.errors import UserError
from rice_jax.export.litert import interpreter
from rice_jax.ops.backend import cores

Runnable = Callable[[np.ndarray], np.ndarray]
"""Images float32 (N, H, W, 3) in [0, 1] to logits float32 (N, classes)."""
_BATCH = 32


def opened(suffix: str, content: bytes) -> Runnable:
    """The net of an exported file, by the end of its name: '.stablehlo', '.onnx' or '.tflite'."""
    if suffix == ".onnx":
        return onnx(onnx_session(content))
    return stablehlo(exported(content)) if suffix == ".stablehlo" else tflite(content)


def exported(content: bytes) -> jax.export.Exported:
    """What JAX makes of a .stablehlo."""
    return jax.export.deserialize(bytearray(content))


def stablehlo(net: jax.export.Exported) -> Runnable:
    """By JAX, on its first device."""
    call = jax.jit(net.call)
    return lambda images: np.asarray(call(images))


def sizes(net: jax.export.Exported) -> tuple[int, int]:
    """Height of the images that a .stablehlo takes, and the number of its classes."""
    (images,), (logits,) = net.in_avals, net.out_avals
    return images.shape[1], logits.shape[1]


def onnx_session(content: bytes) -> Any:
    """onnxruntime's session of an .onnx, on the CPU; UserError where it is not installed."""
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(
            f".onnx needs a package that is not installed ({error}): pip install 'rice_jax[onnx]'"
        ) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors: a warning of shapes is for who made the converter
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def onnx(session: Any) -> Runnable:
    """By onnxruntime, in batches, so that its memory does not grow with their number."""

    def logits(images: np.ndarray) -> np.ndarray:
        starts = range(0, len(images), _BATCH)
        batches = (images[start : start + _BATCH] for start in starts)
        return np.concatenate([session.run(["logits"], {"images": each})[0] for each in batches])

    return logits


def tflite(content: bytes, *, reference: bool = False) -> Runnable:
    """By LiteRT, as many images at a time as it was made for.

    `reference` is as `litert.interpreter` has it.
    """
    net = interpreter(content, reference=reference, threads=cores())
    (source,), (target,) = net.get_input_details(), net.get_output_details()

    batch = source["shape"][0]

    def logits(images: np.ndarray) -> np.ndarray:
        net.set_tensor(source["index"], to_integers(images, source))
        net.invoke()
        return from_integers(net.get_tensor(target["index"]), target)

    def all_logits(images: np.ndarray) -> np.ndarray:
        starts = range(0, len(images), batch)
        return np.concatenate([logits(images[start : start + batch]) for start in starts])

    return all_logits


def to_integers(values: np.ndarray, tensor: Mapping[str, Any]) -> np.ndarray:
    """Numbers as a tensor of LiteRT holds them: q = values / scale + zero point, rounded."""
    if tensor["dtype"] is np.float32:
        return values.astype(np.float32, copy=False)
    scale, zero = tensor["quantization"]
    bounds = np.iinfo(tensor["dtype"])
    return np.clip(np.rint(values / scale) + zero, bounds.min, bounds.max).astype(bounds.dtype)


def from_integers(values: np.ndarray, tensor: Mapping[str, Any]) -> np.ndarray:
    """The numbers that a tensor of LiteRT stands for: scale * (q - zero point)."""
    if tensor["dtype"] is np.float32:
        return values
    scale, zero = tensor["quantization"]
    return np.float32(scale) * (values.astype(np.float32) - zero)


def latency(net: Runnable, image_size: int, repeats: int = 30) -> dict[str, float]:
    """Seconds that the net takes for one image: median, p10 and p90 of `repeats` runs."""
    image = np.random.default_rng(0).random((1, image_size, image_size, 3), dtype=np.float32)
    for _ in range(3):
        net(image)
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        net(image)
        seconds.append(time.perf_counter() - started)
    p10, median, p90 = (float(value) for value in np.percentile(seconds, (10, 50, 90)))
    return {"median": median, "p10": p10, "p90": p90}
