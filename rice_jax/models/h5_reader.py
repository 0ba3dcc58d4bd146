"""Reads a Keras .h5 or .keras of untrusted origin, as a program: `python h5_reader.py ...`.

HDF5's C library loops, crashes or asks for any amount of memory on some damaged files, and no
check from Python forestalls that. So `keras_h5` runs this file in a process with bounds on
memory and processor time, and takes nothing back but JSON and raw floats.

    h5_reader.py list FILE   prints [[group, layer, path, shape], ...] of the float weights
    h5_reader.py read FILE   reads [[path, shape], ...] on stdin, prints those arrays as '<f4'

A .keras is a zip, whose .h5 is read in memory. What is wrong goes to stderr on one line, with exit
status 1, or `OF_NO_USE` where the file may be whole all the same. Only links within the file are
followed, no data is taken from other files, and no dataset is read whose shape is not the one asked
for.
"""

import contextlib
import io
import json
import math
import re
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

_MEMORY = 256 << 20
"""What HDF5 may take beyond the arrays that were asked for."""
_SECONDS = 5
"""Processor time: some damaged files make HDF5 loop for ever."""
_OBJECTS = 20_000
_IN_ARCHIVE = "model.weights.h5"
_DEFLATED = 4
"""How many times the bytes of an archive its weights may take: Keras does not compress them."""
_DEPTH = 16
_NAME_BYTES = 1024
# Groups of a weights file that are no layer's.
_NOT_LAYERS = ("optimizer", "metrics", "_metrics", "seed_generator")

OF_NO_USE = 3
"""Exit status of a file that is not damaged, and whose weights are not to be had."""

Weight = tuple[str, str, str, list[int]]
"""Group of layers that the file lists as one, layer, path of the dataset, shape."""


class RefusedError(Exception):
    """The file asks for what this reader does not do."""


class OfNoUseError(RefusedError):
    """The file may be whole, and its weights cannot be taken."""


def weights(file: h5py.File) -> list[Weight]:
    """The floating-point weights, in the file's own order of layers."""
    root = _child(file, "model_weights") if "model_weights" in file else file
    if any("theano" in _names(group, "backend") for group in (file, root)):
        raise OfNoUseError(
            "it is of Keras on Theano, whose kernels are mirrored; save it with Keras on another "
            "backend"
        )
    prefix = "" if root is file else "model_weights/"
    found: list[Weight] = []
    for group, layer, path in _listed(root) if _has(root, "layer_names") else _numbered(root):
        if len(found) >= _OBJECTS or len(path) > _NAME_BYTES:
            raise RefusedError("too many weights, or too long names, for a file of Keras")
        dataset = _descend(root, path)
        if not isinstance(dataset, h5py.Dataset):
            raise RefusedError(f"{path} is no array")
        if dataset.dtype.kind == "f" or _is_bfloat16(dataset):
            found.append((group, layer, f"{prefix}{path}", list(dataset.shape or ())))
        elif dataset.dtype.kind not in "biu":  # these: the state of a random number generator
            raise OfNoUseError(f"{path} holds numbers of a kind ({dataset.dtype}) unknown here")
    return found


def array(file: h5py.File, path: str, shape: list[int]) -> np.ndarray:
    """The weight at `path` as little-endian float32, read only if it has that shape."""
    dataset = _descend(file, path)
    if not isinstance(dataset, h5py.Dataset) or list(dataset.shape or ()) != shape:
        raise RefusedError(f"{path} is no array of shape {tuple(shape)}")
    if dataset.is_virtual or dataset.external:
        raise RefusedError(f"{path} keeps its data in another file")
    if _is_bfloat16(dataset):  # the upper half of a float32
        return (dataset[()].view("<u2").astype("<u4") << 16).view("<f4")
    return np.asarray(dataset[()], dtype="<f4")


def _is_bfloat16(dataset: h5py.Dataset) -> bool:
    """HDF5 has no such type: h5py writes two bytes that say nothing of themselves."""
    return dataset.dtype.kind == "V" and dataset.dtype.names is None and dataset.dtype.itemsize == 2


def _listed(root: h5py.Group) -> Iterator[tuple[str, str, str]]:
    """Keras 1 and 2, and whole models of Keras 3: attributes name layers and weights in order."""
    for group in _names(root, "layer_names"):
        for name in _names(_descend(root, group), "weight_names"):
            inner = name.split("/")[-2:-1]
            layer = "/".join(dict.fromkeys([group, *inner]))
            yield group, layer, f"{group}/{name}"


def _numbered(root: h5py.Group) -> Iterator[tuple[str, str, str]]:
    """Weights files of Keras 3: .../conv2d_1/vars/0, the names numbered in order of layers."""
    for path in sorted(_datasets(root, "", set()), key=natural):
        layer = re.sub(r"^layers/|/vars/\d+$", "", path)
        yield layer, layer, path


def _datasets(group: h5py.Group, path: str, seen: set[Any]) -> Iterator[str]:
    if group.id in seen or path.count("/") > _DEPTH:
        raise RefusedError(f"groups within groups without end at {path}")
    seen.add(group.id)
    for name in map(str, group):
        item = None if name in _NOT_LAYERS else _child(group, name)
        if isinstance(item, h5py.Group):
            yield from _datasets(item, f"{path}{name}/", seen)
        elif isinstance(item, h5py.Dataset):
            yield f"{path}{name}"


def natural(name: str) -> list[tuple[str, int]]:
    """A key that sorts conv2d, conv2d_1, conv2d_2, conv2d_10 in that order."""
    parts = re.findall(r"([^\d/]*/?)(\d{0,18})", name)
    return [(text, int(number or 0)) for text, number in parts]


def _descend(group: Any, path: str) -> Any:
    for name in filter(None, path.split("/")):
        group = _child(group, name)
    return group


def _child(group: Any, name: str) -> Any:
    link = group.get(name, getlink=True) if isinstance(group, h5py.Group) else None
    if link is None:
        raise RefusedError(f"{name} is missing")
    if not isinstance(link, h5py.HardLink):
        raise RefusedError(f"{name} is a link to somewhere else")
    return group[name]


def _has(group: h5py.Group, name: str) -> bool:
    return name in group.attrs or f"{name}0" in group.attrs


def _names(group: h5py.Group, name: str) -> list[str]:
    """An attribute of strings; Keras splits those above 64 kB into name0, name1, ..."""
    if name in group.attrs:
        return _strings(group, name)
    found: list[str] = []
    part = 0
    while f"{name}{part}" in group.attrs:
        found += _strings(group, f"{name}{part}")
        if len(found) > _OBJECTS:
            raise RefusedError(f"more than {_OBJECTS} {name}")
        part += 1
    return found


def _strings(group: h5py.Group, name: str) -> list[str]:
    attribute = group.attrs.get_id(name)
    if math.prod(attribute.shape or ()) > _OBJECTS or attribute.dtype.itemsize > _NAME_BYTES:
        raise RefusedError(f"an attribute {name} too large for names")
    values = group.attrs[name]
    if isinstance(values, h5py.Empty):
        return []
    return [
        value.decode() if isinstance(value, bytes) else str(value)
        for value in np.ravel(values).tolist()
    ]


def _limit(extra: int) -> None:
    try:
        import resource
    except ImportError:  # not on Windows; the caller's time limit holds there too
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS, _SECONDS))
    if sys.platform == "linux":  # elsewhere the bound cannot be set, or is not kept
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + _MEMORY + extra
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


@contextlib.contextmanager
def _opened(path: str, extra: int) -> Iterator[h5py.File]:
    """The .h5, or the one in an archive of Keras; `extra` bytes are what its arrays may take."""
    with open(path, "rb") as begin:
        is_archive = begin.read(2) == b"PK"
    if not is_archive:
        _limit(extra)
        with h5py.File(path, "r", locking=False) as file:
            yield file
        return
    most = _DEFLATED * Path(path).stat().st_size
    _limit(extra + 2 * most)
    with zipfile.ZipFile(path) as archive:
        if _IN_ARCHIVE not in archive.namelist():
            raise OfNoUseError(
                f"it is an archive without {_IN_ARCHIVE}, as Keras's model.save('x.keras') writes"
            )
        with archive.open(_IN_ARCHIVE) as member:
            content = member.read(most + 1)
    if len(content) > most:
        raise RefusedError(f"its {_IN_ARCHIVE} is far larger than the archive")
    with h5py.File(io.BytesIO(content), "r") as file:
        yield file


def main(task: str, path: str) -> None:
    """Do one of the two tasks; see the module's text."""
    wanted = json.load(sys.stdin) if task == "read" else []
    largest = max((math.prod(shape) for _, shape in wanted), default=0)
    with _opened(path, extra=16 * largest) as file:  # float64, its float32 copy, HDF5's buffers
        if task == "list":
            json.dump(weights(file), sys.stdout)
            return
        for name, shape in wanted:
            sys.stdout.buffer.write(array(file, name, shape).tobytes())


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except Exception as error:
        print(" ".join(str(error).split()) or type(error).__name__, file=sys.stderr)
        sys.exit(OF_NO_USE if isinstance(error, OfNoUseError) else 1)
