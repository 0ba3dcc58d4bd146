"""A note within a .tflite: metadata under a name, as the format has it."""

from typing import Any

import numpy as np

from rice_jax.export.litert import missing


def with_note(content: bytes, name: str, text: str) -> bytes:
    """The file with `text` as its metadata `name`."""
    schema, tools = _packages()
    model = tools.convert_bytearray_to_object(bytearray(content))
    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data = np.frombuffer(text.encode(), np.uint8)
    entry.name, entry.buffer = name, len(model.buffers)
    model.buffers.append(buffer)
    model.metadata = [*(model.metadata or []), entry]
    return bytes(tools.convert_object_to_bytearray(model))


def note(content: bytes, name: str) -> str | None:
    """The text of the metadata `name`; None where there is none."""
    schema, _ = _packages()
    model = schema.Model.GetRootAs(content, 0)
    for index in range(model.MetadataLength()):
        entry = model.Metadata(index)
        if entry.Name() == name.encode():
            return model.Buffers(entry.Buffer()).DataAsNumpy().tobytes().decode()
    return None


def _packages() -> tuple[Any, Any]:
    try:
        from ai_edge_litert import schema_py_generated
        from ai_edge_litert.tools import flatbuffer_utils
    except ImportError as error:
        raise missing(error) from error
    return schema_py_generated, flatbuffer_utils
