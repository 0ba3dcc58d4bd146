"""A .tflite as its format has it: a note within it, short names of tensors, its operators."""

from typing import Any

import numpy as np

from rice_jax.export.litert import DENSE, ROOT, SIGNATURE, missing

_PREFIX = f"{SIGNATURE}_"


def opened(content: bytes) -> Any:
    """The file as objects of the schema's own classes, to be changed."""
    # The quantiser lays what is large behind the flatbuffer: this reader brings it in again.
    return _packages()[1].read_model_from_bytearray(bytearray(content))


def closed(model: Any) -> bytes:
    """The file of what `opened` gave."""
    return bytes(_packages()[1].convert_object_to_bytearray(model))


def kind(model: Any, operation: Any) -> str:
    """What an operation of an opened file is, as the format calls it: 'CONV_2D'."""
    return _packages()[1].opcode_to_name(model, operation.opcodeIndex)


def numbers(model: Any, tensor: Any) -> np.ndarray:
    """What the constant tensor of an opened file stands for: of float32, or of int8."""
    data = np.asarray(model.buffers[tensor.buffer].data, np.uint8)
    if not steps(tensor).size:
        return data.view(np.float32).reshape(tensor.shape)
    shape = [1] * len(tensor.shape)
    shape[tensor.quantization.quantizedDimension] = -1
    return data.view(np.int8).reshape(tensor.shape) * steps(tensor).reshape(shape)


def steps(tensor: Any) -> np.ndarray:
    """What one more of a tensor's integers stands for, by channel; none where it has floats."""
    told = tensor.quantization
    return np.asarray([] if told is None or told.scale is None else told.scale)


def with_note(content: bytes, name: str, text: str) -> bytes:
    """The file with `text` as its metadata `name`; its tensors are named by their layers alone.

    The converter names a tensor by all operations that it fused, a tenth of a small net's file.
    """
    schema, _ = _packages()
    model = opened(content)
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            tensor.name = layer(tensor.name.decode())
    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data = np.frombuffer(text.encode(), np.uint8)
    entry.name, entry.buffer = name, len(model.buffers)
    model.buffers.append(buffer)
    model.metadata = [*(model.metadata or []), entry]
    return closed(model)


def note(content: bytes, name: str) -> str | None:
    """The text of the metadata `name`; None where there is none."""
    schema, _ = _packages()
    model = schema.Model.GetRootAs(content, 0)
    for index in range(model.MetadataLength()):
        entry = model.Metadata(index)
        if entry.Name() == name.encode():
            return model.Buffers(entry.Buffer()).DataAsNumpy().tobytes().decode()
    return None


def operators(content: bytes) -> list[str]:
    """The kinds of operators that the file needs, as the format calls them: 'CONV_2D', by name."""
    schema, _ = _packages()
    names = {code: name for name, code in vars(schema.BuiltinOperator).items()}
    model = schema.Model.GetRootAs(content, 0)
    codes = [model.OperatorCodes(index) for index in range(model.OperatorCodesLength())]
    custom = schema.BuiltinOperator.CUSTOM
    return sorted(
        {
            code.CustomCode().decode()
            if code.BuiltinCode() == custom
            else names[code.BuiltinCode()]
            for code in codes
        }
    )


def layer(name: str) -> str:
    """Of 'max;jit(logits)/conv1/add;jit(logits)/conv1/reshape' the first layer, 'conv1'."""
    operations = [part.split("/")[1:-1] for part in name.split(";") if "/" in part]
    paths = ["/".join(part for part in parts if part != DENSE) for parts in operations]
    found = [path for path in paths if path != ROOT] or paths or [name.removeprefix(_PREFIX)]
    return found[0]


def _packages() -> tuple[Any, Any]:
    try:
        from ai_edge_litert import schema_py_generated
        from ai_edge_litert.tools import flatbuffer_utils
    except ImportError as error:
        raise missing(error) from error
    return schema_py_generated, flatbuffer_utils
