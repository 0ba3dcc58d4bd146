"""The layers of a .tflite, whose biases may be corrected, and what they read."""

import collections
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from rice_jax.export import flatbuffer
from rice_jax.export.correction import BiasedLayer, in_waves
from rice_jax.export.litert import interpreter
from rice_jax.export.runtimes import from_integers, to_integers

_DEPTHWISE = "DEPTHWISE_CONV_2D"
_KINDS = ("CONV_2D", _DEPTHWISE, "FULLY_CONNECTED")


class TfliteLayers:
    """A .tflite, opened to be corrected: a `correction.Correctable`."""

    def __init__(self, content: bytes) -> None:
        self._model = flatbuffer.opened(content)
        self._graph = self._model.subgraphs[0]
        read = (index for each in self._graph.operators for index in each.inputs)
        self._readers = collections.Counter(self._graph.tensors[index].buffer for index in read)

    def waves(self) -> list[list[BiasedLayer]]:
        """Its layers with biases, those that do not depend on each other together."""
        return in_waves(self._operations())

    def content(self) -> bytes:
        """The file, its biases as they are now."""
        return flatbuffer.closed(self._model)

    def means(self, sources: Iterable[str], images: np.ndarray) -> dict[str, np.ndarray]:
        """Of each tensor the mean of each channel, over its places and over images (N, H, W, 3)."""
        names = set(sources)
        run = interpreter(self.content(), kept=True)
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

    def _operations(self) -> Iterator[tuple[Sequence[int], Sequence[int], BiasedLayer | None]]:
        rescaled = dict[int, int]()  # tensors that are others in other steps: none in float32
        for operation in self._graph.operators:
            inputs, outputs = list(operation.inputs), list(operation.outputs)
            kind = flatbuffer.kind(self._model, operation)
            if kind == "QUANTIZE":
                rescaled[outputs[0]] = rescaled.get(inputs[0], inputs[0])
            layer = self._layer(inputs, outputs[0], kind, rescaled) if kind in _KINDS else None
            yield inputs, outputs, layer

    def _layer(
        self, inputs: Sequence[int], output: int, kind: str, rescaled: Mapping[int, int]
    ) -> BiasedLayer | None:
        """The operation as a layer; None where it has no bias, or computes its kernel."""
        tensors = self._graph.tensors
        if len(inputs) < 3 or inputs[2] < 0 or not self._is_written(tensors[inputs[1]]):
            return None
        source = tensors[rescaled.get(inputs[0], inputs[0])]
        kernel, bias = (tensors[index] for index in inputs[1:3])
        channels, numbers = source.shape[-1], flatbuffer.numbers(self._model, kernel)
        if kind == _DEPTHWISE:  # (1, H, W, O)
            weights = numbers.reshape(-1, numbers.shape[-1]).sum(axis=0).reshape(channels, -1, 1)
        elif kind == "FULLY_CONNECTED" and channels != numbers.shape[-1]:  # of whole maps
            return None
        else:  # (O, ..., I)
            weights = numbers.reshape(len(numbers), -1, numbers.shape[-1]).sum(axis=1)
            weights = weights.reshape(channels // weights.shape[-1], -1, weights.shape[-1])
        return BiasedLayer(
            name=tensors[output].name.decode(),
            source=source.name.decode(),
            weights=weights,
            bias=self._integers(bias),
            step=flatbuffer.steps(bias),
        )

    def _is_written(self, tensor: Any) -> bool:
        """Whether the file holds the tensor's numbers."""
        return self._model.buffers[tensor.buffer].data is not None

    def _integers(self, bias: Any) -> np.ndarray | None:
        """The numbers of a bias, to be changed in place; None of floats, or where two have it."""
        if not flatbuffer.steps(bias).size or self._readers[bias.buffer] > 1:
            return None
        buffer = self._model.buffers[bias.buffer]
        buffer.data = np.array(buffer.data, np.uint8)
        return buffer.data.view(np.int32)
