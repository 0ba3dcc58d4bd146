"""An ONNX model in int8, by onnxruntime's static quantisation."""

import collections
import contextlib
import errno
import math
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rice_jax.errors import UserError, reason
from rice_jax.export.native import quiet
from rice_jax.export.sample import Batches, some

_BATCH = 8
_NARROWEST = 1e-6
"""Range of a tensor that is always zero, after a ReLU: the tool's own would let negatives by."""
_COPIES, _SPARE = 4, 1 << 20
"""Of a model the tool writes three at a time, each with a graph that grows; and bytes for that."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def prepared_onnx(content: bytes) -> bytes:
    """The ONNX model in float32 as the quantiser wants it: shapes told, biases in their layers."""
    quantization = _onnx_quantiser()
    import onnx

    with _folder_for(content) as folder, quiet():
        given, whole = folder / "given.onnx", folder / "float32.onnx"
        model = onnx.load_from_string(content)
        _write_products_plainly(model.graph)
        onnx.save(model, given)
        # Its symbolic shapes know no ReduceMax of today's ONNX; ONNX's own suffice.
        quantization.quant_pre_process(given, whole, skip_symbolic_shape=True)
        model = onnx.load(whole)
    _move_biases_into_convolutions(model.graph)
    _give_biases(model.graph)
    _flatten_biases(model.graph)
    return bytes(model.SerializeToString())


def rounded_onnx(content: bytes, images: Batches) -> bytes:
    """As `quantized_onnx` of what `prepared_onnx` gave, the biases as the tool makes them.

    Raises:
        UserError: as there; what a layer gives on the images is infinite or no number.
    """
    quantization = _onnx_quantiser()
    import onnx

    with _folder_for(content) as folder, quiet():
        out = folder / "int8.onnx"
        try:
            quantization.quantize_static(
                onnx.load_from_string(content),
                out,
                _Reader(some(images)),
                per_channel=True,
                weight_type=quantization.QuantType.QInt8,
                activation_type=quantization.QuantType.QInt8,
                reduce_range=True,
                extra_options={"MinimumRealRange": _NARROWEST},
            )
        except AssertionError as error:  # that a scale is a positive number
            raise UserError(
                "what a layer gives on the images that int8 is calibrated on is infinite or no "
                "number, for which int8 has no steps"
            ) from error
        return out.read_bytes()


@contextlib.contextmanager
def _folder_for(content: bytes) -> Iterator[Path]:
    """A folder for the tool's files of a model; UserError where its disk is full, or fills up.

    Asked beforehand, for the tool goes on without what it could not write: with other steps.
    """
    place, needed = tempfile.gettempdir(), _COPIES * len(content) + _SPARE
    try:
        with tempfile.TemporaryDirectory() as folder:
            if shutil.disk_usage(folder).free < needed:
                raise OSError(errno.ENOSPC, f"int8 needs {needed / 1e6:.1f} MB for a while")
            yield Path(folder)
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise UserError(
            f"cannot write in {place}: {reason(error)}; TMPDIR names another folder"
        ) from error


def _onnx_quantiser() -> Any:
    try:
        from onnxruntime import quantization
    except ImportError as error:
        raise UserError(
            f"int8 ONNX needs packages that are not installed ({error}): "
            "pip install 'rice_jax[onnx]'"
        ) from error
    return quantization


def _move_biases_into_convolutions(graph: Any) -> None:
    """Where a convolution's output goes to the channels' old place and gets its bias there."""
    from onnx import numpy_helper

    constants = {each.name: each for each in graph.initializer}
    readers = collections.defaultdict[str, list[Any]](list)
    for node in graph.node:
        for name in node.input:
            readers[name].append(node)
    for node in [each for each in graph.node if each.op_type == "Conv" and len(each.input) == 2]:
        moved = _only(readers[node.output[0]], "Transpose")
        if moved and moved.attribute[0].ints[-1] != 1:
            continue  # what is last are no channels
        added = _only(readers[moved.output[0]], "Add") if moved else None
        bias = next((constants[n] for n in added.input if n in constants), None) if added else None
        kernel = constants.get(node.input[1])
        if moved and added and bias and kernel and _for_each_output(kernel.dims[0], bias.dims):
            name = f"{node.output[0]}_bias"
            flat = numpy_helper.to_array(bias).ravel()
            graph.initializer.append(numpy_helper.from_array(flat, name))
            node.input.append(name)
            moved.output[0] = added.output[0]
            graph.node.remove(added)
    read = {name for node in graph.node for name in node.input}
    for name in constants.keys() - read:
        graph.initializer.remove(constants[name])


def _write_products_plainly(graph: Any) -> None:
    """Make dense layers of whole maps, which the tool would leave in float32, matrix products."""
    for node in [each for each in graph.node if each.op_type == "Einsum"]:
        given, _, out = node.attribute[0].s.decode().partition("->")
        left, _, right = given.partition(",")
        if len(right) == 2 and left[-1:] == right[0] and out == left[:-1] + right[1]:
            node.op_type = "MatMul"
            del node.attribute[:]


def _give_biases(graph: Any) -> None:
    """Zeros to convolutions and dense layers without a bias, which can be corrected then."""
    from onnx import numpy_helper

    constants = {each.name: each for each in graph.initializer}
    known = (*graph.value_info, *graph.input, *graph.output)
    ranks = {each.name: len(each.type.tensor_type.shape.dim) for each in known}
    for node in graph.node:
        kernel = constants.get(node.input[1]) if len(node.input) == 2 else None
        if kernel is None:
            continue
        if node.op_type == "MatMul" and ranks.get(node.input[0]) == len(kernel.dims) == 2:
            node.op_type = "Gemm"
            outputs = kernel.dims[1]
        elif node.op_type == "Conv":
            outputs = kernel.dims[0]
        else:
            continue
        node.input.append(f"{node.output[0]}_bias")
        zeros = np.zeros(outputs, np.float32)
        graph.initializer.append(numpy_helper.from_array(zeros, node.input[2]))


def _for_each_output(outputs: int, shape: Sequence[int]) -> bool:
    """Whether numbers of this shape are one for each of so many channels, which are last."""
    return list(shape[-1:]) == [outputs] and math.prod(shape) == outputs


def _only(nodes: Sequence[Any], kind: str) -> Any:
    """The one node of them, if it is of this kind."""
    return nodes[0] if len(nodes) == 1 and nodes[0].op_type == kind else None


def _flatten_biases(graph: Any) -> None:
    """Give the bias (1, n) of each matrix product the shape (n,), for a scale in each column."""
    constants = {each.name: each for each in graph.initializer}
    for node in graph.node:
        bias = constants.get(node.input[2]) if node.op_type == "Gemm" and node.input[2:] else None
        if bias is not None and len(bias.dims) == 2:
            del bias.dims[0]
    del graph.value_info[:]  # shapes as they were, which are inferred again


class _Reader:
    """Images as onnxruntime's calibration asks for them: few at a time, as it keeps all maps."""

    def __init__(self, batches: Iterator[np.ndarray]) -> None:
        starts = ((batch, first) for batch in batches for first in range(0, len(batch), _BATCH))
        self._images = (batch[first : first + _BATCH] for batch, first in starts)

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self._images, None)
        return None if batch is None else {"images": batch}
