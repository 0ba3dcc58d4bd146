"""A .tflite in int8, by ai-edge-quantizer."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from rice_jax.errors import UserError
from rice_jax.export import flatbuffer
from rice_jax.export.litert import DENSE, ROOT, SIGNATURE, interpreter, missing
from rice_jax.export.native import quiet
from rice_jax.export.sample import Batches, some

Range = dict[str, Any]
"""'min' and 'max' of a tensor."""
_TO_ONE: Range = {"min": np.zeros((1, 1, 1, 1)), "max": np.ones((1, 1, 1, 1))}
"""Of pixels; of a tensor that is always zero, to which the tool gives steps too fine for LiteRT."""


def rounded_tflite(content: bytes, images: Batches) -> bytes:
    """As `quantized_tflite`, the biases as the tool makes them.

    Raises:
        UserError: as there; an operation that the tool has no int8 for; what a layer gives on the
            images is infinite or no number, or hardly moves, so that no step fits it.
    """
    ranges = _ranges(content, images)
    _require_finite(content, ranges)
    try:
        made = _with_ranges(content, ranges)
    except (ValueError, RuntimeError) as error:
        tensor = re.search(r"jit\(\S+/\S+", str(error))
        raise UserError(
            f"{_layer(tensor.group() if tensor else '')}: ai-edge-quantizer has no int8 for one of "
            f"its operations ({' '.join(str(error).split())})"
        ) from error
    try:
        interpreter(made)
    except (ValueError, RuntimeError) as error:
        least, size = _least(ranges)
        raise UserError(
            "LiteRT cannot compute the net in the steps that fit the images that int8 is "
            f"calibrated on, where {least} gives the least, {size:.2g} at most: give others, or "
            f"more, and if that is of no help an .onnx ({' '.join(str(error).split())})"
        ) from error
    return made


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
    # LiteRT reads the first scale of a matrix alone, where each row of images has one of its own.
    made.add_static_config(".*", qtyping.TFLOperationName.BATCH_MATMUL, 8, 8, one_scale)
    return made


def _ranges(content: bytes, images: Batches) -> dict[str, Range]:
    """Of each tensor the range that holds all that it is on the images."""
    tool, widest = _quantizer(content), dict[str, Range]()
    for batch in some(images):
        # Image by image: of several the tool keeps a moving average, mostly of the last few.
        for image in batch:
            with quiet():
                found = tool.calibrate({SIGNATURE: [{"images": image[None]}]}, num_threads=1)
            widest = {name: _holding(widest.get(name, seen), seen) for name, seen in found.items()}
    return {name: seen if _moves(seen) else _TO_ONE for name, seen in widest.items()}


def _with_ranges(content: bytes, ranges: Mapping[str, Range]) -> bytes:
    """A .tflite in int8, its tensors in such ranges."""
    # All pixels there can be, not those that happened to be there: 1/255 and -128 exactly.
    ranges = {**ranges, f"{SIGNATURE}_images": _TO_ONE}
    with quiet():
        made = _quantizer(content).quantize(ranges, enable_progress_report=False)
    return bytes(made.quantized_model)


def _require_finite(content: bytes, ranges: Mapping[str, Range]) -> None:
    """UserError where there is no range: LiteRT would end the process."""
    graph = flatbuffer.opened(content).subgraphs[0]
    names = (graph.tensors[at].name.decode() for each in graph.operators for at in each.outputs)
    for name in names:
        if name in ranges and not np.isfinite(_size(ranges[name])):
            raise UserError(
                f"{_layer(name)}: what it gives on the images that int8 is calibrated on is "
                "infinite or no number, for which int8 has no steps"
            )


def _least(ranges: Mapping[str, Range]) -> tuple[str, float]:
    """The layer whose numbers are the smallest, and the size of the largest of them."""
    name = min(ranges, key=lambda each: _size(ranges[each]))
    return _layer(name), _size(ranges[name])


def _size(seen: Range) -> float:
    return float(np.maximum(np.abs(seen["min"]).max(), np.abs(seen["max"]).max()))


def _layer(tensor: str) -> str:
    """The layer that a tensor is named by, as messages have it."""
    found = flatbuffer.layer(tensor) if "/" in tensor else ROOT
    return "the net" if found == ROOT else found


def _moves(seen: Range) -> bool:
    return bool(np.any(seen["min"]) or np.any(seen["max"]))


def _holding(one: Range, other: Range) -> Range:
    """The range that holds both."""
    return {
        "min": np.minimum(one["min"], other["min"]),
        "max": np.maximum(one["max"], other["max"]),
    }
