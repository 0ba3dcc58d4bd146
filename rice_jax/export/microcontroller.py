"""What tflite-micro, the interpreter for microcontrollers, makes of a .tflite."""

import re
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from rice_jax.export.litert import interpreter, missing
from rice_jax.export.native import stderr_kept_back
from rice_jax.export.runtimes import to_integers

_LACKS = re.compile(r"Didn't find op for builtin opcode '(\w+)'")
_ARENA = re.compile(r"Arena allocation total (\d+) bytes")
_SECONDS = 10.0
_OVERHEAD = 1 << 20
"""Bytes of the arena for what is no tensor; memory that is not used is never touched."""


def measure(content: bytes, images: Sequence[np.ndarray]) -> dict[str, Any]:
    """What the net takes on a microcontroller, and whether it computes there what LiteRT does.

    Args:
        content: a whole .tflite.
        images: float32 (H, W, 3) in [0, 1], at least one.

    Returns:
        flash_bytes: the file, which is read in place; the interpreter's own code comes on top.
        arena_bytes: memory for activations and bookkeeping, as tflite-micro reports it, on this
            machine's 64-bit pointers.
        images: how many were compared, in some ten seconds.
        identical: on how many of them all bytes of the output are those of LiteRT's plain kernels
            (its fast ones round differently in the last bit).
        Or flash_bytes and lacks: the operation that tflite-micro does not have.

    Raises:
        UserError: tflite-micro is not installed.
    """
    try:
        from tflite_micro.python.tflite_micro import runtime
    except ImportError as error:
        raise missing(error) from error
    usual = interpreter(content, reference=True)
    (source,), (target,) = usual.get_input_details(), usual.get_output_details()
    with stderr_kept_back() as said:
        try:
            micro = runtime.Interpreter.from_bytes(content, arena_size=_arena(usual))
        except RuntimeError:
            micro = None
    if micro is None:
        found = _LACKS.search(said())
        return {"flash_bytes": len(content), "lacks": found[1] if found else said().strip()}
    compared = identical = 0
    until = time.monotonic() + _SECONDS
    for image in images:
        given = to_integers(image[None], source)
        usual.set_tensor(source["index"], given)
        usual.invoke()
        micro.set_input(given, 0)
        micro.invoke()
        expected = usual.get_tensor(target["index"])
        identical += micro.get_output(0).tobytes() == expected.tobytes()
        compared += 1
        if time.monotonic() > until:
            break
    with stderr_kept_back() as said:
        micro.print_allocations()
    arena = _ARENA.search(said())
    return {
        "flash_bytes": len(content),
        "arena_bytes": int(arena[1]) if arena else None,
        "images": compared,
        "identical": identical,
    }


def _arena(net: Any) -> int:
    """More bytes than the net can need: tflite-micro does not survive a smaller arena."""
    tensors = net.get_tensor_details()
    sizes = (int(np.prod(each["shape"])) * np.dtype(each["dtype"]).itemsize for each in tensors)
    return sum(sizes) + _OVERHEAD
