"""What an exported file tells of itself: its classes, its images, and a digest of the whole.

JSON under the name 'rice_jax' in the metadata of .onnx and .tflite, whose 'sha256' is of the file
with zeros in its place. .stablehlo has no metadata: FILE.json beside it holds the same fields.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from rice_jax.errors import UserError

NAME = "rice_jax"
_DIGEST = re.compile(rb'"sha256": "([0-9a-f]{64})"')
_UNSEALED = "0" * 64
_FIELDS = {
    "net": str,
    "precision": str,
    "classes": list,
    "image_size": int,
    "averaged": int,
    "seed": int,
    "split_seed": int,
    "input": str,
    "resizing": str,
    "output": str,
}


def unsealed(about: Mapping[str, Any]) -> str:
    """The JSON that goes into a file, before its digest is known."""
    told = {name: about[name] for name in _FIELDS}
    return json.dumps(told | {"sha256": _UNSEALED}, ensure_ascii=False, allow_nan=False)


def sealed(content: bytes) -> bytes:
    """The file with its digest in the place that `unsealed` left for it."""
    digest = hashlib.sha256(content).hexdigest()
    return content.replace(f'"sha256": "{_UNSEALED}"'.encode(), f'"sha256": "{digest}"'.encode())


def is_sealed(content: bytes) -> bool:
    """Whether the file is as it was written; only then is it safe to hand to a parser in C++."""
    found = _DIGEST.search(content)
    if not found:
        return False
    before = content[: found.start(1)] + _UNSEALED.encode() + content[found.end(1) :]
    return hashlib.sha256(before).hexdigest().encode() == found[1]


def checked(told: Any) -> dict[str, Any]:
    """What a file tells, if it is all there.

    Raises:
        UserError: a field is missing or of another kind.
    """
    lacking = {"averaged": 1, "resizing": ""}  # in older files
    told = lacking | (told if isinstance(told, dict) else {})
    for name, kind in _FIELDS.items():
        if type(told.get(name)) is not kind:
            raise UserError(f"it does not tell its {name}")
    if not 1 <= told["averaged"] <= told["image_size"]:
        raise UserError(f"it tells images averaged over {told['averaged']} pixels of a side")
    names = told["classes"]
    if not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise UserError("its classes are no names, or two are the same")
    return told
