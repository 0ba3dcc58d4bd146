"""The layers of an .onnx, whose biases may be corrected, and what they read.

In int8 each tensor is made integers of (QuantizeLinear) and numbers again (DequantizeLinear) before
it is read; onnxruntime makes operations of integers of that.
"""

import collections
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from rice_jax.export.correction import BiasedLayer, in_waves
from rice_jax.export.runtimes import onnx_session

_TO_INTEGERS, _TO_NUMBERS = "QuantizeLinear", "DequantizeLinear"
_BATCH = 8


class OnnxLayers:
    """An .onnx, opened to be corrected: a `correction.Correctable`."""

    def __init__(self, content: bytes) -> None:
        import onnx

        self._onnx = onnx
        self._model = onnx.load_from_string(content)
        graph = self._model.graph
        self._constants = {each.name: each for each in graph.initializer}
        self._maker = {name: node for node in graph.node for name in node.output}
        rounding = (node for node in graph.node if node.op_type == _TO_INTEGERS)
        self._rounded_by = {node.input[0]: node for node in rounding}
        self._readers = collections.Counter(name for node in graph.node for name in node.input)
        self._biases = dict[str, np.ndarray]()
        self._turned = set[str]()

    def waves(self) -> list[list[BiasedLayer]]:
        """Its layers with biases, those that do not depend on each other together."""
        return in_waves(self._operations())

    def content(self) -> bytes:
        """The file, its biases as they are now."""
        for name, integers in self._biases.items():
            changed = self._onnx.numpy_helper.from_array(integers, name)
            self._constants[name].CopyFrom(changed)
        return bytes(self._model.SerializeToString())

    def means(self, sources: Iterable[str], images: np.ndarray) -> dict[str, np.ndarray]:
        """Of each tensor the mean of each channel, over its places and over images (N, H, W, 3)."""
        read = {name: self._rounded_by.get(name) for name in sources}
        names = sorted({name if node is None else node.output[0] for name, node in read.items()})
        shown = self._onnx.load_from_string(self.content())
        del shown.graph.output[:]  # what these do not need is not computed
        shown.graph.output.extend(self._onnx.ValueInfoProto(name=name) for name in names)
        session = onnx_session(shown.SerializeToString())
        sums: dict[str, Any] = dict.fromkeys(read, 0.0)
        for start in range(0, len(images), _BATCH):
            batch = images[start : start + _BATCH]
            values = dict(zip(names, session.run(names, {"images": batch}), strict=True))
            for name, node in read.items():
                shown_as = values[name if node is None else node.output[0]]
                means = _means(shown_as, axis=0 if name in self._turned else 1)
                if node is not None:
                    scale, zero = (self._array(each).astype(float) for each in node.input[1:3])
                    means = (means - zero) * scale
                sums[name] = sums[name] + means * len(batch) / len(images)
        return sums

    def _operations(self) -> Iterator[tuple[Sequence[str], Sequence[str], BiasedLayer | None]]:
        for node in self._model.graph.node:
            yield list(node.input), list(node.output), self._layer(node)

    def _layer(self, node: Any) -> BiasedLayer | None:
        """The operation as a layer; None where it is none, or has no bias."""
        if node.op_type not in ("Conv", "Gemm") or len(node.input) < 3:
            return None
        told = {each.name: self._onnx.helper.get_attribute_value(each) for each in node.attribute}
        kernel, bias = self._numbers(node.input[1]), self._to_numbers(node.input[2])
        if kernel is None or (bias is not None and bias.input[0] not in self._constants):
            return None  # what a Gemm adds may be what another layer gives
        if node.op_type == "Gemm" and not told.get("transB"):
            kernel = kernel.T
        weights = kernel.reshape(*kernel.shape[:2], -1).sum(axis=2)  # (G * O, I)
        source = self._source(node.input[0])
        if told.get("transA"):  # onnxruntime puts a transposition before a Gemm into it
            self._turned.add(source)
        return BiasedLayer(
            name=node.name,
            source=source,
            weights=weights.reshape(told.get("group", 1), -1, weights.shape[1]),
            bias=None if bias is None else self._integers(bias),
            step=np.empty(0) if bias is None else self._array(bias.input[1]),
        )

    def _source(self, name: str) -> str:
        """The tensor before it was rounded."""
        back = self._to_numbers(name)
        made = None if back is None else self._maker.get(back.input[0])
        return made.input[0] if made is not None and made.op_type == _TO_INTEGERS else name

    def _to_numbers(self, name: str) -> Any:
        """The operation that makes a tensor of integers; None where none does."""
        node = self._maker.get(name)
        return node if node is not None and node.op_type == _TO_NUMBERS else None

    def _integers(self, bias: Any) -> np.ndarray | None:
        """The integers of a bias, to be changed in place; None where two layers have it."""
        name = bias.input[0]
        if self._readers[bias.output[0]] > 1 or self._readers[name] > 1:
            return None
        return self._biases.setdefault(name, self._array(name).copy())

    def _numbers(self, name: str) -> np.ndarray | None:
        """What a constant (O, ...) or (I, O) stands for; None of what is no constant."""
        if name in self._constants:
            return self._array(name)
        node = self._to_numbers(name)
        if node is None or node.input[0] not in self._constants:
            return None
        integers, steps = (self._array(each) for each in node.input[:2])
        axis = next((each.i for each in node.attribute if each.name == "axis"), 1)
        shape = [1] * integers.ndim
        shape[axis] = steps.size  # one for all has size 1
        return integers * steps.reshape(shape)

    def _array(self, name: str) -> np.ndarray:
        """The numbers of a constant as they are stored."""
        return np.asarray(self._onnx.numpy_helper.to_array(self._constants[name]))


def _means(values: np.ndarray, axis: int) -> np.ndarray:
    """Of each channel along `axis`."""
    others = tuple(other for other in range(values.ndim) if other != axis)
    return values.mean(axis=others, dtype=float)
