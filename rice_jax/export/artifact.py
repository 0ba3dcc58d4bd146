"""An exported file, read back: what it tells of itself, and its net in the format's own runtime."""

import dataclasses
import hashlib
import os
from collections.abc import Mapping
from typing import Any

from rice_jax import files, records
from rice_jax.errors import UserError, reason
from rice_jax.export import averaging, flatbuffer, passport, runtimes
from rice_jax.run import Run, parse_json

_LARGEST = 1 << 30
RUNTIMES = {".stablehlo": "JAX", ".onnx": "onnxruntime", ".tflite": "LiteRT"}
"""What computes a file, by the end of its name."""


@dataclasses.dataclass(frozen=True)
class Artifact:
    """A file that `write` wrote."""

    path: str
    content: bytes
    about: Mapping[str, Any]
    """net, precision, classes, image_size, averaged, seed, split_seed, input, output."""
    alone: runtimes.Runnable
    """The net as it is in the file: of averaged images, where the file takes such."""

    @property
    def net(self) -> runtimes.Runnable:
        """The net of whole images, `image_size` pixels high and wide."""
        return averaging.before(self.alone, self.about["averaged"])

    @property
    def suffix(self) -> str:
        """'.stablehlo', '.onnx' or '.tflite'."""
        return os.path.splitext(self.path)[1]

    @property
    def runtime(self) -> str:
        """What computes it."""
        return RUNTIMES[self.suffix]


def read(path: str) -> Artifact:
    """Open an exported file.

    Raises:
        UserError: there is no such file, it is of another kind, damaged or not written by this
            package, or what runs it is not installed.
    """
    suffix = os.path.splitext(path)[1]
    if suffix not in RUNTIMES:
        raise UserError(f"{path}: no exported net; its name would end in {', '.join(RUNTIMES)}")
    place = files.reached(path)
    try:
        files.require_content(place, _LARGEST)
        with place.open("rb") as file:
            content = file.read()
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: {reason(error)}") from error
    try:
        about, net = _beside(path, content) if suffix == ".stablehlo" else _within(path, content)
    except UserError:
        raise
    except Exception as error:  # each runtime has its own kinds
        raise UserError(
            f"{path} cannot be read by {RUNTIMES[suffix]} here: {reason(error)}; newer packages "
            "may have written it"
        ) from error
    return Artifact(path, content, about, net)


def _beside(path: str, content: bytes) -> tuple[dict[str, Any], runtimes.Runnable]:
    """Of a .stablehlo: what FILE.json tells, and the net."""
    records.require_beside(path)
    folder, name = os.path.split(path)
    told = Run(folder or ".").read_json(f"{name}.json")
    digest = hashlib.sha256(content).hexdigest()
    if not isinstance(told, dict) or told.get("sha256") != digest:
        raise UserError(f"{path} is damaged, or {name}.json is of another file")
    about, net = _checked(path, told), runtimes.exported(content)
    _require_told(path, about, *runtimes.sizes(net))
    return about, runtimes.stablehlo(net)


def _checked(path: str, told: Any) -> dict[str, Any]:
    """As `passport.checked` has it, of the file at `path`."""
    try:
        return passport.checked(told)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _require_told(path: str, about: Mapping[str, Any], side: int, classes: int) -> None:
    """Hold what FILE.json tells, which anyone can edit, against what the net takes and gives."""
    told = about["image_size"] // about["averaged"]
    if (told, len(about["classes"])) != (side, classes):
        raise UserError(
            f"{path} takes images of {side} x {side} and tells {classes} classes apart, and its "
            f".json says {told} and {len(about['classes'])}: export it again"
        )


def _within(path: str, content: bytes) -> tuple[dict[str, Any], runtimes.Runnable]:
    """Of an .onnx or a .tflite: what the file itself tells, and the net."""
    if not passport.is_sealed(content):
        raise UserError(f"{path} is damaged, or it was not written by rice_jax's export")
    if path.endswith(".onnx"):
        session = runtimes.onnx_session(content)
        note = session.get_modelmeta().custom_metadata_map.get(passport.NAME)
        return _checked(path, parse_json(note or "null")), runtimes.onnx(session)
    note = flatbuffer.note(content, passport.NAME)
    return _checked(path, parse_json(note or "null")), runtimes.tflite(content)
