"""A net as an .onnx or a .tflite, in float32, or in int8 where images are given to calibrate on."""

import numbers
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from rice_jax.errors import UserError
from rice_jax.export.int8 import quantized_onnx, quantized_tflite
from rice_jax.export.litert import float32_tflite
from rice_jax.export.onnx import float32_onnx
from rice_jax.export.subject import image_shape
from rice_jax.graph.arrays import InputShape
from rice_jax.graph.batches import Batches
from rice_jax.graph.call import Output
from rice_jax.graph.fronts import takes_variables

_BEYOND = 1e-3
"""By how much a pixel may leave [0, 1], as interpolation lets it."""


@takes_variables
def to_onnx(
    module: Any,
    variables: Any,
    input_shape: InputShape | int,
    *,
    calibrate: Iterable[Any] | None = None,
    output: Output = None,
    **kwargs: Any,
) -> bytes:
    """Serialise a net with its weights as an ONNX model, for a batch of any size.

    Net, numbers, size of the images and call are given as `to_stablehlo` takes them.

    Args:
        calibrate: makes it int8: batches of images (N, H, W, C) in [0, 1], or pairs of such and
            labels, or one batch; a hundred or so, like those to come. They are read once.

    Returns:
        The model: input 'images' float32 (batch, H, W, C) in [0, 1], output 'logits' float32; in
        int8 too, where weights and what is between are of eight bits.

    Raises:
        UserError: the packages of the extra 'onnx' are not installed; the net does not run on such
            images, or not with these variables; ONNX lacks an operation of it, which is named with
            its layer, or the net asks how many images there are; several outputs and none is named;
            images to calibrate on are none, of another shape, or not in [0, 1].
    """
    whole = float32_onnx(module, variables, input_shape, output=output, **kwargs)
    if calibrate is None:
        return whole
    return quantized_onnx(whole, _images(calibrate, input_shape))


@takes_variables
def to_tflite(
    module: Any,
    variables: Any,
    input_shape: InputShape | int,
    *,
    batch: int = 1,
    calibrate: Iterable[Any] | None = None,
    output: Output = None,
    **kwargs: Any,
) -> bytes:
    """Convert a net with its weights, for so many images at a time.

    Net, numbers, size of the images and call are given as `to_stablehlo` takes them.

    Args:
        batch: images at a time; LiteRT knows no other number afterwards.
        calibrate: makes it int8, of one image at a time: batches of images as for `to_onnx`.

    Returns:
        The flatbuffer: input 'images' float32 (batch, H, W, C) in [0, 1], output 'logits'. In int8
        the input is int8, a pixel of 0 to 255 less 128, and the logits are int8 with a scale and a
        zero point.

    Raises:
        UserError: the packages of the extra 'litert' are not installed; the net does not run on
            such images, or not with these variables; LiteRT lacks an operation of it, or int8 of
            it, which is named with its layer; several outputs and none is named; images to
            calibrate on are none, of another shape, or not in [0, 1]; a `batch` below 1, or int8
            of several at a time.
    """
    if not isinstance(batch, numbers.Integral) or batch < 1:
        raise UserError(f"batch={batch!r}: give how many images the file takes, 1 or more")
    if calibrate is not None and batch != 1:
        raise UserError(f"batch={batch}: a .tflite in int8 takes one image at a time")
    whole = float32_tflite(
        module,
        variables,
        input_shape,
        batch=batch,
        to_be_quantized=calibrate is not None,
        output=output,
        **kwargs,
    )
    if calibrate is None:
        return whole
    return quantized_tflite(whole, _images(calibrate, input_shape))


def _images(calibrate: Iterable[Any], input_shape: InputShape | int) -> Iterator[np.ndarray]:
    """The images as float32 (N, H, W, C); UserError for such as the file will not be given."""
    shape = image_shape(input_shape)
    for given, _ in Batches(calibrate, keep=False):
        images = np.asarray(given, np.float32)
        if images.shape[1:] != shape:
            raise UserError(
                f"calibrate: images are (N, {', '.join(map(str, shape))}), not {images.shape}"
            )
        if images.size and not (images.min() >= -_BEYOND and images.max() <= 1 + _BEYOND):
            raise UserError(
                f"calibrate: pixels are {images.min():.3g} to {images.max():.3g}, and the file "
                "takes them in [0, 1]"
            )
        yield images
