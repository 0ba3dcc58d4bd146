"""What rounding adds to the sums of a layer on the whole, taken off its bias: of a .tflite in int8.

Most of an image is background, to whose pixels a layer gives one value each. That is rounded alike
in all of them, up or down by as much as half a step, and the layers after it add that up. A bias
has a finer step than any map, and can take it off again. Source: Nagel et al. 2019
(arXiv:1906.04721), section 4.2, bias correction; here of sums before any function of them, from the
means of what is read.
"""

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rice_jax.export import flatbuffer
from rice_jax.export.litert import interpreter
from rice_jax.export.runtimes import from_integers, to_integers

_IMAGES = 16
"""That means are taken over: of pixels there are many more."""
_DEPTHWISE = "DEPTHWISE_CONV_2D"
_KINDS = ("CONV_2D", _DEPTHWISE, "FULLY_CONNECTED")


def corrected(content: bytes, exact: bytes, images: np.ndarray) -> bytes:
    """The net in int8, with biases less what the sums of their layers are wrong by on the whole.

    Layers are corrected in their order, each for its own kernel's rounding and for what those
    before it still leave.

    Args:
        content: the .tflite in int8.
        exact: the one in float32 that it was made of: its tensors have the same names.
        images: float32 (N, H, W, 3) in [0, 1].
    """
    images, model = images[:: -(-len(images) // _IMAGES)], flatbuffer.opened(content)
    whole = {layer.name: layer for wave in _waves(flatbuffer.opened(exact)) for layer in wave}
    right = _means(exact, [layer.source for layer in whole.values()], images)
    for wave in _waves(model):
        found = _means(flatbuffer.closed(model), [layer.source for layer in wave], images)
        for layer in wave:
            if layer.alone:
                layer.subtract(layer.sums(found) - whole[layer.name].sums(right))
    return flatbuffer.closed(model)


@dataclasses.dataclass(frozen=True)
class _Layer:
    """A layer whose sums a bias can shift."""

    name: str
    """Of the tensor that it gives."""
    source: str
    """Of the tensor that it reads."""
    kernel: np.ndarray
    """Numbers (O, ..., I); (1, H, W, O) of a depthwise convolution."""
    depthwise: bool
    bias: Any
    """The buffer of its numbers (O,)."""
    step: np.ndarray
    """Of the bias in integers: for each output, or one for all."""
    alone: bool
    """Whether the bias is this layer's alone: equal ones may be stored once."""

    def sums(self, means: Mapping[str, np.ndarray]) -> np.ndarray:
        """The means (O,) of its sums, but for the bias, where those of its source (I,) are such."""
        read = means[self.source]
        weights = self.kernel.reshape(len(self.kernel), -1, self.kernel.shape[-1]).sum(axis=1)
        if self.depthwise:
            return weights[0] * np.repeat(read, weights.shape[1] // len(read))
        groups = read.reshape(-1, weights.shape[1])  # of channels; one if a layer has none
        each = weights.reshape(len(groups), -1, weights.shape[1])
        return np.einsum("goi,gi->go", each, groups).ravel()

    def subtract(self, added: np.ndarray) -> None:
        """Take numbers (O,) off its bias of integers."""
        old = np.asarray(self.bias.data, np.uint8).view(np.int32)
        self.bias.data = (old - np.rint(added / self.step).astype(np.int32)).view(np.uint8)


def _waves(model: Any) -> list[list[_Layer]]:
    """The layers with biases, in their order; those of a wave do not depend on each other."""
    waves = collections.defaultdict[int, list[_Layer]](list)
    depth, rescaled = dict[int, int](), dict[int, int]()
    for operation in model.subgraphs[0].operators:
        deepest = max((depth.get(index, 0) for index in operation.inputs), default=0)
        kind = flatbuffer.kind(model, operation)
        if kind == "QUANTIZE":
            first = operation.inputs[0]
            rescaled[operation.outputs[0]] = rescaled.get(first, first)
        elif layer := _layer(model, operation, kind, rescaled):
            waves[deepest].append(layer)
            deepest += 1
        depth.update(dict.fromkeys(operation.outputs, deepest))
    return [waves[number] for number in sorted(waves)]


def _layer(model: Any, operation: Any, kind: str, rescaled: Mapping[int, int]) -> _Layer | None:
    """The operation as a layer; None where it has no bias of its own.

    `rescaled` has the tensors that are others in other steps, of which the net in float32 has none.
    """
    inputs = list(operation.inputs)
    if kind not in _KINDS or len(inputs) < 3 or inputs[2] < 0:
        return None
    graph = model.subgraphs[0]
    source = graph.tensors[rescaled.get(inputs[0], inputs[0])]
    kernel, bias = (graph.tensors[index] for index in inputs[1:3])
    if kind == "FULLY_CONNECTED" and source.shape[-1] != kernel.shape[-1]:  # of whole maps
        return None
    read = [graph.tensors[index].buffer for each in graph.operators for index in each.inputs]
    return _Layer(
        name=graph.tensors[operation.outputs[0]].name.decode(),
        source=source.name.decode(),
        kernel=flatbuffer.numbers(model, kernel),
        depthwise=kind == _DEPTHWISE,
        bias=model.buffers[bias.buffer],
        step=flatbuffer.steps(bias),
        alone=read.count(bias.buffer) == 1,
    )


def _means(content: bytes, names: Sequence[str], images: np.ndarray) -> dict[str, np.ndarray]:
    """Of each tensor by name the mean of each channel, over its places and over the images."""
    run = interpreter(content, kept=True)
    (source,) = run.get_input_details()
    tensors = [each for each in run.get_tensor_details() if each["name"] in names]
    sums: dict[str, Any] = dict.fromkeys(names, 0.0)
    for image in images:
        run.set_tensor(source["index"], to_integers(image[None], source))
        run.invoke()
        for each in tensors:
            values = from_integers(run.get_tensor(each["index"]), each)
            means = values.reshape(-1, values.shape[-1]).mean(axis=0, dtype=float)
            sums[each["name"]] = sums[each["name"]] + means / len(images)
    return sums
